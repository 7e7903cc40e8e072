"""What checkpoints answered: the text of a column, and the list of what was asked before.

Pure functions of what the store holds, which another version or program may have written: every
value may be of any type.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from stonk_tui.theme import DOWN, UNKNOWN, UNPARSED, UP, side_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import rows
from stonk_tui.widgets.rollouts import call
from stonk_tui.widgets.table import Column, Row
from stonk_tui.widgets.text import line, shown

HISTORY = (
    Column("asked", 8),
    Column("ticker", 8),
    Column("as of", 10, optional=50),
    Column("market", 8),
    Column("samples", 7, "right", optional=60),
    Column("P(UP) by checkpoint", 0),
)
_COMPLETION_CHARACTERS = 6000


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings in ``value``, where it is a list."""
    return [mapping(item) for item in value] if isinstance(value, list | tuple) else []


def answers(probe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What each checkpoint answered."""
    return mappings(probe.get("answers"))


def title(answer: Mapping[str, Any], *, own_run: str, best: str | None) -> Content:
    """A checkpoint's name: with its run where that is another, with a star where it is the best."""
    name, run = answer.get("checkpoint") or UNKNOWN, answer.get("run")
    is_own = run == own_run
    return Content.assemble(
        " ",
        line(name, "bold", limit=40) if is_own or not run else line(f"{run}:{name}", limit=60),
        (" ★" if is_own and name == best else "", "$gold"),
        " ",
    )


def answered(answer: Mapping[str, Any]) -> Content:
    """The column of one checkpoint: what its samples say together, then each of them."""
    samples = mappings(answer.get("samples"))
    parts: list[Content | str] = [*summary(answer), ""]
    for number, sample in enumerate(samples, 1):
        parts += [_sample(number, sample), ""]
    return rows(*parts)


def summary(answer: Mapping[str, Any]) -> list[Content]:
    """Probability of UP with its interval and n; counts and vote; confidence and reward."""
    calls, sure = mapping(answer.get("calls")), mapping(answer.get("confidence"))
    vote = side_look(answer.get("vote"))
    rewards = [
        value
        for sample in mappings(answer.get("samples"))
        if (value := figures.known(sample.get("reward"))) is not None
    ]
    lines = [
        probability(answer),
        Content.assemble(
            (f"{UP.glyph} {figures.whole(calls.get('up'))}", UP.style),
            (f"  {DOWN.glyph} {figures.whole(calls.get('down'))}", DOWN.style),
            (f"  {UNPARSED.glyph} {figures.whole(calls.get('unread'))}", UNPARSED.style),
            ("   vote ", "$quiet"),
            (f"{vote.glyph} {vote.word}" if vote else "none", vote.style if vote else "$quiet"),
        ),
        Content.assemble(
            ("mean sure ", "$quiet"),
            figures.share(sure.get("mean")),
            (f" n={figures.whole(sure.get('n'))}" if sure else "", "$quiet"),
        ),
    ]
    if rewards:
        lines.append(
            Content.assemble(
                ("mean reward ", "$quiet"),
                (figures.fixed(sum(rewards) / len(rewards)), "bold"),
                (f" n={len(rewards)}", "$quiet"),
            )
        )
    return lines


def probability(answer: Mapping[str, Any]) -> Content:
    """``P(▲) 0.69 [.44, .86] n=16``."""
    p_up = mapping(answer.get("p_up"))
    head = Content.assemble(("P(", "$quiet"), (UP.glyph, UP.style), (") ", "$quiet"))
    if figures.known(p_up.get("value")) is None:
        return Content.assemble(head, UNKNOWN, ("  no sample says a side", "$quiet"))
    bounds = ", ".join(figures.fixed(p_up.get(name)) for name in ("low", "high"))
    return Content.assemble(
        head,
        (figures.fixed(p_up.get("value")), "bold"),
        (f" [{bounds}] n={figures.whole(p_up.get('n'))}", "$quiet"),
    )


def _sample(number: int, sample: Mapping[str, Any]) -> Content:
    reward = figures.known(sample.get("reward"))
    head = Content.assemble(
        (f"{number:>2} ", "$quiet"),
        call(sample.get("direction"), sample.get("percent")),
        ("  sure ", "$quiet"),
        figures.share(sample.get("confidence")),
        ("  reward ", "$quiet"),
        (figures.fixed(reward), "bold"),
    )
    text = shown(sample.get("completion") or "", limit=_COMPLETION_CHARACTERS)
    parts: list[Content | str] = [head]
    if side_look(sample.get("direction")) is None and sample.get("error"):
        parts.append(line(sample["error"], "$warn", limit=120))
    parts.append(text)
    if sample.get("finished") is False:
        parts.append(Content.styled("── cut at the length limit", "$warn"))
    return rows(*parts)


def sampling(draft: Mapping[str, Any]) -> Content:
    """The column of a checkpoint that is being asked: how far, and what its first samples say."""
    done, total = figures.whole(draft.get("done")), figures.whole(draft.get("total"))
    parts: list[Content | str] = [
        Content.assemble(
            ("sampling  ", "$quiet"),
            (f"{done} of {total} done", "bold"),
            (f"  {figures.whole(draft.get('tokens'))} tokens", "$quiet"),
        ),
        "",
    ]
    texts = draft.get("texts")
    for number, text in enumerate(texts if isinstance(texts, list) else [], 1):
        parts += [
            Content.assemble((f"{number:>2} ", "$quiet"), shown(text, limit=4000), ("▌", "$gold")),
            "",
        ]
    return rows(*parts)


def asked(probe: Mapping[str, Any]) -> Content:
    """What was asked, and what the market did, in one line."""
    about = mapping(probe.get("example"))
    actual = mapping(about.get("actual"))
    source = about.get("source")
    dot = (" · ", "$faint")
    return Content.assemble(
        line(about.get("ticker") or UNKNOWN, "bold $gold", limit=16),
        dot,
        line(about.get("as_of") or UNKNOWN, limit=12),
        dot,
        line(source, limit=40) if source else Content("typed by hand"),
        dot,
        ("market ", "$quiet"),
        call(actual.get("direction"), actual.get("percent"))
        if side_look(actual.get("direction"))
        else Content("not known"),
        dot,
        (f"temperature {figures.small(probe.get('temperature'))}", "$quiet"),
    )


def history(probes: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One line a probe, the newest first; keys are the probes' ids."""
    return [_past(probe) for probe in reversed(probes)]


def _past(probe: Mapping[str, Any]) -> Row:
    about = mapping(probe.get("example"))
    actual = mapping(about.get("actual"))
    told: list[Content | str | tuple[str, str]] = []
    for answer in answers(probe):
        p_up = mapping(answer.get("p_up"))
        bounds = ", ".join(figures.fixed(p_up.get(name)) for name in ("low", "high"))
        told += [
            line(answer.get("checkpoint") or UNKNOWN, limit=24),
            (f" {figures.fixed(p_up.get('value'))}", "bold"),
            (f" [{bounds}] n={figures.whole(p_up.get('n'))}" if p_up else "", "$quiet"),
            "   ",
        ]
    return Row(
        key=str(probe.get("id")),
        cells=(
            Content.styled(figures.clock_time(probe.get("time")), "$quiet"),
            line(about.get("ticker") or UNKNOWN, "bold", limit=8),
            line(about.get("as_of") or UNKNOWN, limit=10),
            call(actual.get("direction"), actual.get("percent"))
            if side_look(actual.get("direction"))
            else Content(UNKNOWN),
            Content(figures.whole(probe.get("samples"))),
            Content.assemble(*told),
        ),
    )
