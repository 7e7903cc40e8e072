"""A promotion in words: what is known, what it starts from, what it changes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from engine.runs.live_settings import written
from stonk_tui.widgets import figures
from stonk_tui.widgets.saiyan import glance
from stonk_tui.widgets.text import line

if TYPE_CHECKING:
    from engine.runs.promotion import Candidate, PromotionPlan

_SETTINGS = {
    "data.sampling": "data",
    "optimizer.learning_rate": "learning rate",
    "objective.kl_coefficient": "KL",
    "rollout.prompts_per_step": "prompts a step",
    "reward.scheme": "scheme",
    "schedule.epochs": "epochs",
}
"""Changes worth a word here; the others are counted."""


def lights(plan: "PromotionPlan", width: int) -> Content:
    """How many of the four indicators are on, and each of them."""
    on = sum(indicator.get("on") is True for indicator in plan.indicators)
    word = "All four lights are on." if plan.is_earned else f"{on} of 4 lights are on."
    return _flow([Content.styled(word, "bold $gold"), glance(plan.indicators)], width)


def candidate(item: "Candidate") -> Content:
    """A checkpoint and its validation: reward, accuracy with interval, n and best baseline."""
    interval = figures.interval(item.accuracy_low, item.accuracy_high)
    return Content.assemble(
        line(item.name, limit=24),
        (" ★ best" if item.is_best else "       ", "$gold"),
        ("  reward ", "$quiet"),
        figures.fixed(item.validation_reward),
        ("  right ", "$quiet"),
        f"{figures.share(item.accuracy)} {interval}",
        (f" n={figures.whole(item.accuracy_n)}" if item.accuracy_n is not None else "", "$quiet"),
        (f" vs {figures.share(item.baseline)}", "$quiet"),
    )


def changes(plan: "PromotionPlan", width: int) -> Content:
    """What is different in Stage II, in words a person decides by."""
    changed = {change.key: change for change in plan.changes}
    pieces = [Content.styled("Then", "bold $gold")]
    for key, label in _SETTINGS.items():
        if change := changed.pop(key, None):
            before, after = _setting(change.before), _setting(change.after)
            pieces.append(Content.assemble((f"{label} ", "$quiet"), before, " → ", after))
    rank = changed.pop("lora.r", None)
    before = _setting(rank.before if rank else plan.config.lora.r)
    after = _setting(plan.config.lora.r)
    pieces.append(Content.assemble(("LoRA ", "$quiet"), "r", before, " frozen + r", after))
    if changed:
        pieces.append(Content.styled(f"and {len(changed)} more in its run.yaml", "$quiet"))
    return _flow(pieces, width)


def _flow(pieces: Sequence[Content], width: int) -> Content:
    """Pieces one after the other, none of them torn at the end of a line."""
    lines: list[Content] = []
    for piece in pieces:
        if lines and lines[-1].cell_length + piece.cell_length + 3 <= width:
            lines[-1] = Content.assemble(lines[-1], "   ", piece)
        else:
            lines.append(piece)
    return Content("\n").join(lines)


def _setting(value: object) -> Content:
    return line(written(value), limit=30)
