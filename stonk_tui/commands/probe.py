"""``probe``: ask checkpoints about one example, and print what they say."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.probe import client
from engine.probe.request import ProbeRequest, Wanted
from engine.runs import checkpoint_names, directory
from engine.runs.directory import RunDirectory
from engine.text import one_line
from stonk_tui.commands.output import say, say_json
from stonk_tui.commands.progress import Progress, progress_display

_COMPLETION = 60
"""Characters of a completion in the list of samples; JSON has all of it."""


def probe(
    name: str | None,
    checkpoints: Sequence[str],
    *,
    wanted: Wanted,
    samples: int,
    temperature: float | None,
    seed: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Ask ``checkpoints`` about the example that is wanted.

    Raises:
        UserError: no such run, checkpoint or example, or the device is busy.
        RunFailedError: the worker did not answer, or not in time.
    """
    from engine.probe import examples

    run = host(name, checkpoints)
    pinned = [client.pinned(checkpoint, run) for checkpoint in checkpoints]
    example, style = examples.build(wanted, run.config())
    request = ProbeRequest(
        checkpoints=tuple(pinned),
        example=example,
        style=style,
        samples=samples,
        temperature=temperature,
        seed=seed,
    )
    with quiet_progress() as progress:
        progress(f"asking the worker of {run.id}", 0, 0)
        answer = client.ask(
            run,
            request,
            timeout=timeout,
            drafts=lambda draft: progress(
                f"samples of {draft['checkpoint']}", int(draft["done"]), int(draft["total"])
            ),
        )
    if as_json:
        for one in answer["answers"]:
            # One object a line: whoever asks one checkpoint reads one object.
            say_json(_shown(answer, one), indent=None)
    else:
        say(text(answer))


@contextlib.contextmanager
def quiet_progress() -> Iterator[Progress]:
    """A bar on a terminal; in a pipe the answer stands alone."""
    if not sys.stderr.isatty():
        yield lambda phase, done, total: None
        return
    with progress_display() as progress:
        yield progress


def from_file(path: Path) -> Wanted:
    """The example that a file describes.

    Raises:
        UserError: it cannot be read.
    """
    where = one_line(str(path))
    try:
        return Wanted(text=path.read_text(encoding="utf-8"), where=where)
    except OSError as error:
        raise UserError(f"cannot read the example: {error.strerror}", where=where) from error
    except UnicodeDecodeError as error:
        raise UserError("the example is not UTF-8 text", where=where) from error


def host(name: str | None, checkpoints: Sequence[str]) -> RunDirectory:
    """The run whose worker is asked: the one named, that of the first checkpoint, the newest."""
    if name is None and checkpoints:
        of_first = checkpoint_names.resolve(checkpoints[0]).run
        if of_first is not None:
            return of_first
    return directory.find(name)


def _shown(answer: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    about = {key: value for key, value in answer["example"].items() if key != "actual"}
    shared = {key: answer[key] for key in ("temperature", "seed", "seconds")}
    return {**one, "example": about, "actual": answer["example"]["actual"], **shared}


def text(answer: Mapping[str, Any]) -> str:
    """An answer for a person."""
    about = answer["example"]
    actual = about["actual"]
    went = "the outcome is not known"
    if actual is not None:
        went = f"it went {actual['direction']} {actual['percent']:+.2f}%"
    source = "typed by hand" if about["source"] is None else f"source {about['source']}"
    lines = [
        f"{about['ticker']} on {about['as_of']}, {one_line(source)}, {answer['samples']} samples at"
        f" temperature {answer['temperature']:g}: {went}"
    ]
    for one in answer["answers"]:
        lines += ["", f"{_name(one)}  {summary(one)}"]
        lines += [f"  {_sample(sample)}" for sample in one["samples"]]
    return "\n".join(lines)


def summary(one: Mapping[str, Any]) -> str:
    """What the samples of one checkpoint say together, in one line."""
    calls, p_up, sure = one["calls"], one["p_up"], one["confidence"]
    return "  ".join(
        [
            "P(UP) ·"
            if p_up is None
            else f"P(UP) {p_up['value']:.2f} [{p_up['low']:.2f}, {p_up['high']:.2f}] n={p_up['n']}",
            f"UP {calls['up']}, DOWN {calls['down']}, unread {calls['unread']}",
            "sure ·" if sure is None else f"sure {sure['mean']:.0%} n={sure['n']}",
            f"vote {one['vote'] or 'none'}",
        ]
    )


def _name(one: Mapping[str, Any]) -> str:
    checkpoint = one_line(str(one["checkpoint"]), 80)
    return f"{one_line(one['run'], 80)}:{checkpoint}" if one["run"] else checkpoint


def _sample(sample: Mapping[str, Any]) -> str:
    reward = "·" if sample["reward"] is None else f"{sample['reward']:+.2f}"
    percent = "·" if sample["percent"] is None else f"{sample['percent']:g}%"
    sure = "·" if sample["confidence"] is None else f"{sample['confidence']:.0%}"
    said = one_line(str(sample["completion"]), _COMPLETION)
    return f"{sample['direction'] or '?':<5}{percent:>6}{sure:>6}  reward {reward:>6}  {said}"
