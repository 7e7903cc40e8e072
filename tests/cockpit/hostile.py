"""Foreign text in every field that can hold any, for tests and for the bench of faults."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import Event, Rollout
from engine.runs.replay import fold
from engine.runs.store import RolloutRecord
from engine.task import ComponentScore
from engine.text import MAX_CELLS, MAX_MARKS
from stonk_tui.feed import RunModel
from tests import evaluated, recorded

HOSTILE = (
    "[/INST][/think][b]BOLD[/b][@click=app.quit]quit[/] "
    "\x1b]52;c;aGFja2Vk\x07\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\x9d52;c;eA==\x9c "
    "\u202eesrever\u202c \u2066x\u2069 \u200f \u061c \x00\x08\x7f\r \u2028\u2029 "
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\"
)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
PIECES = [
    *re.split(r"(?<=[\x07\\m\]\s])", HOSTILE),
    *(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))),
    *(chr(code) for code in (0x61C, *range(0x200E, 0x2010), *range(0x2028, 0x202F), 0xD800)),
    "[",
    "]",
    "[/]",
    "$x",
    "漢字",
    "e\u0301",
    "\U0001f468\u200d\U0001f469",
    "z" + "\u0335\u0489" * 20,
    "".join(chr(0xE0000 + ord(letter)) for letter in "hidden by tags"),
    "\u200b" * 30,
]


def unsafe(text: str) -> str:
    """What in ``text`` must not reach a terminal; empty where all of it may."""
    if found := FORBIDDEN.search(text):
        return f"{found.group()!r} in {text[max(0, found.start() - 20) : found.end() + 20]!r}"
    marks = 0
    for character in text:
        is_mark = unicodedata.category(character) in ("Mn", "Me", "Cf")
        marks = marks + 1 if is_mark else 0
        if marks > MAX_MARKS:
            return f"more than {MAX_MARKS} marks in a row"
    longest = max(map(cell_len, text.split("\n")))
    # What stands around it on the line is ours.
    return f"a line of {longest} cells" if longest > MAX_CELLS + 200 else ""


def hostile_run(text: Callable[[], str] = lambda: HOSTILE) -> recorded.Recording:
    """A run with foreign text in every field of its store, another one each; and in its log."""
    recording = recorded.new_run()
    store = recording.store
    recording.starts(device=text(), device_name=text())
    store.event(
        "worker",
        {
            "model": text(),
            "max_steps": 40,
            "weights": {"format": 0.2, text(): 0.5},
            "host": text(),
        },
    )
    store.event("notice", {"level": "error", "text": text()})
    store.event("notice", {"level": text(), "text": text()})
    store.event("command", {"id": "1", "verb": text(), "ok": False, "message": text()})
    recording.warms_up(2)
    store.event("state", {"state": "training", "detail": text()})
    recording.trains(2)
    prediction = {"direction": text(), "percent": text(), "confidence": text()}
    store.rollouts(
        3,
        [
            RolloutRecord(
                group=group,
                sample=0,
                prompt=text() * 3,
                subject={
                    "ticker": text(),
                    "as_of": text(),
                    "actual_direction": text(),
                    "actual_percent": text(),
                    "closes": [text(), 1.0, None, 2.0],
                },
                completion=text() * 5,
                tokens=9,
                finished=False,
                reward=0.1,
                advantage=0.0,
                prediction=prediction | ({"reasoning": text()} if group else {"error": text()}),
                components=(
                    ComponentScore("format", 1.0, 0.2, text()),
                    ComponentScore(text(), 0.5, 0.1, text()),
                ),
                cited=((0, 7), (30, 60)),
            )
            for group in range(2)
        ],
    )
    store.event(
        "step",
        {
            "metrics": {"reward/total": 0.4, f"reward/{text()}": 0.5, "kl": text(), text(): 1},
            "seconds": {text(): 1.0, "rollout": text(), "train": 2.0},
            "epoch": 0.1,
            "milestones": [
                {"name": text(), "value": text()},
                {"name": "reward", "value": text(), "threshold": text(), "on": text()},
                {"name": "accuracy", "why": text(), "streak": text(), "needed": text()},
                {"name": "settled", "value": 1.0, "threshold": 2.0, "why": text()},
            ],
            "power": text(),
        },
        step=3,
    )
    store.event(
        "alarm",
        {
            "name": text(),
            "on": True,
            "title": text(),
            "explanation": text() * 3,
            "advice": text(),
            "value": text(),
            "threshold": text(),
        },
        step=3,
    )
    store.event("super_saiyan", {"power": text(), "step": 3, "suggestion": text()}, step=3)
    store.event("promotion", {"parent": text(), "checkpoint": text(), "reason": text()})
    sample = {"completion": text() * 3, "error": text(), "direction": text(), "reward": text()}
    answer = {"checkpoint": text(), "run": text(), "samples": [sample, text()], "vote": text()}
    example = {"ticker": text(), "as_of": text(), "source": text(), "actual": text()}
    store.event("probe", {"id": text(), "example": example, "answers": [answer, answer, text()]})
    evaluated.write(recording.run, evaluated.hostile(text()))
    evaluation = evaluated.event("done", source=text(), split=text(), message=text())
    store.event("evaluation", evaluation | {"verdicts": {text(): text()}, "accuracy": text()})
    store.event("checkpoint", {"name": text(), "best": True, "validation_reward": None})
    store.event("progress", {"task": text(), "done": 1, "total": 2, "detail": text()})
    recording.closes()
    recording.run.record_worker()
    recording.run.log.write_bytes(
        text().encode("utf-8", "surrogatepass") + b"\xff\xfe\n\r\x1b[2Jx\n"
    )
    return recording


def run_of(text: str) -> RunModel:
    """A run with ``text`` in every field that an event can fill."""
    metrics = {"reward/total": 0.5, f"reward/{text}": 0.25, text: 1, "kl": text, "accuracy": text}
    indicator = {"name": text, "value": text, "threshold": text, "on": text, "why": text}
    known = {"streak": text, "needed": text}
    names = ("reward", "accuracy", "reasoning", "settled", text)
    payloads: list[tuple[str, dict[str, Any]]] = [
        ("worker", {"pid": 1, "host": text, "device": text, "device_name": text}),
        ("worker", {"model": text, "weights": {text: text, "format": 0.2}, "versions": {text: 1}}),
        ("progress", {"task": text, "done": 1, "total": 2, "detail": text, "metrics": {"loss": 1}}),
        ("notice", {"level": text, "text": text}),
        ("command", {"id": text, "verb": text, "ok": False, "message": text}),
        ("memory", {"phase": text, "unit": text, "old": text, "new": text}),
        ("promotion", {"parent": text, "checkpoint": text, "reason": text}),
        (
            "step",
            {
                "metrics": metrics,
                "seconds": {text: 1.0, "rollout": text},
                "epoch": text,
                "eta_seconds": text,
                "milestones": [indicator | known | {"name": name} for name in names],
                "power": text,
            },
        ),
        ("validation", {"metrics": metrics, "power": text}),
        ("super_saiyan", {"suggestion": text}),
        ("checkpoint", {"name": text, "best": True, "validation_reward": text}),
        (
            "alarm",
            {
                "name": text,
                "on": True,
                "title": text,
                "explanation": text,
                "advice": text,
                "value": text,
                "threshold": text,
            },
        ),
        ("state", {"state": "training", "detail": text}),
        ("progress", {"task": text, "done": 1, "total": 2, "detail": text}),
    ]
    history = History()
    events = [
        Event(seq, 1, 1.0 * seq, kind, 1, payload)
        for seq, (kind, payload) in enumerate(payloads, start=1)
    ]
    assert fold(history, events) == ""
    name = text.replace("/", "").replace("\0", "") or "run"
    return RunModel(
        RunDirectory(Path("/nowhere") / name), history=history, promotion={"parent": text}
    )


def rollout_of(text: str) -> Rollout:
    return Rollout(
        id=1,
        attempt=1,
        step=1,
        group=0,
        sample=0,
        completion=text,
        tokens=1,
        finished=True,
        reward=0.5,
        advantage=0.1,
        prediction={"direction": text, "percent": text, "confidence": text, "reasoning": text},
        components=(),
        cited=(),
        prompt=text,
        subject={"ticker": text, "as_of": text, "actual_direction": text, "actual_percent": text},
    )
