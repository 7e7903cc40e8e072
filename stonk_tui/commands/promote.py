"""``promote``: show what speaks for it, then write the Stage II run."""

from collections.abc import Sequence
from pathlib import Path

from engine import config as configuration
from engine.errors import UserError
from engine.runs import directory, promotion
from engine.runs.live_settings import written
from engine.runs.promotion import Candidate, PromotionPlan
from stonk_tui import prepare
from stonk_tui.commands.output import note, say, table


def promote(
    name: str | None, checkpoint: str, *, reason: str | None, forced: bool, starts: bool
) -> None:
    """Promote a checkpoint of the run called ``name``; the newest Stage I run if left out.

    Raises:
        UserError: see ``engine.runs.promotion.plan`` and ``promote``.
    """
    run = directory.find(name) if name is not None else _newest_stage1()
    _carry_out(promotion.plan(run, checkpoint), reason, forced=forced, starts=starts)


def promote_adapter(
    folder: Path,
    preset: str | None,
    overrides: Sequence[str],
    *,
    reason: str | None,
    forced: bool,
    starts: bool,
) -> None:
    """Promote an adapter that was trained elsewhere; base and data are those of ``preset``.

    Raises:
        UserError: see ``engine.runs.promotion.plan_adapter`` and ``promote``.
    """
    first = configuration.with_overrides(configuration.preset(preset or "stage1"), overrides)
    plan = promotion.plan_adapter(folder, prepare.anchored(first))
    _carry_out(plan, reason, forced=forced, starts=starts)


def _carry_out(plan: PromotionPlan, reason: str | None, *, forced: bool, starts: bool) -> None:
    if forced and not (reason and reason.strip()):
        raise UserError("a forced promotion needs a reason", where="--force", fix="--reason TEXT")
    if plan.existing is None:
        say(_describe(plan))
        run = promotion.promote(plan, reason=reason or "", forced=forced)
    else:
        run = plan.existing
        note(f"{plan.checkpoint} was promoted before")
    if starts and run.is_prepared:
        prepare.restart(run)
        note(f"watch it with `stonk-tui attach {run.id}`, end it with `stonk-tui stop {run.id}`")
    elif run.is_prepared:
        note(f"edit {run.path / 'run.yaml'} if you like; `stonk-tui train --resume {run.id}`")
    elif starts:
        note(f"run {run.id} was started before")
    # The last line, alone, for scripts.
    say(run.id)


def _newest_stage1() -> directory.RunDirectory:
    for run in directory.list_runs():
        if not run.promotion.exists():
            return run
    return directory.find(None)


def _describe(plan: PromotionPlan) -> str:
    parts = [f"promotes {plan.checkpoint}  sha256 {plan.sha256[:16]}…"]
    if plan.indicators:
        rows = [
            (
                str(one.get("name")),
                "on" if one.get("on") else "off",
                _figure(one.get("value")),
                str(one.get("threshold")),
                f"{one.get('streak')} of {one.get('needed', 1)}",
            )
            for one in plan.indicators
        ]
        parts.append(table(("INDICATOR", "LAMP", "VALUE", "THRESHOLD", "STREAK"), rows))
    if plan.candidates:
        parts.append(
            table(
                ("CHECKPOINT", "", "VALIDATION REWARD", "VALIDATION ACCURACY", "BASELINE"),
                [_row(one, plan.checkpoint) for one in plan.candidates],
            )
        )
    changes = [(one.key, written(one.before), written(one.after)) for one in plan.changes]
    parts.append(table(("SETTING", "STAGE I", "STAGE II"), changes))
    return "\n\n".join(parts)


def _row(one: Candidate, chosen: str) -> tuple[str, ...]:
    marks = [word for word, is_so in (("this", one.name == chosen), ("best", one.is_best)) if is_so]
    accuracy = ""
    if one.accuracy is not None and one.accuracy_low is not None and one.accuracy_high is not None:
        interval = f"[{100 * one.accuracy_low:.0f}, {100 * one.accuracy_high:.0f}]"
        accuracy = f"{100 * one.accuracy:.0f}% {interval} n={one.accuracy_n}"
    baseline = "" if one.baseline is None else f"{100 * one.baseline:.0f}%"
    return (one.name, " ".join(marks), _figure(one.validation_reward), accuracy, baseline)


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
