"""Alarms about the calls of the training batches: one side, unreadable, too sure."""

import math
import statistics

from engine.training.alarms.reading import Reading
from engine.training.alarms.stream import START_STEPS, WINDOW, Stream

LEAST_CALLS = 200
"""Calls in the window before it is judged."""

ONE_SIDED_RAISED, ONE_SIDED_OVER = 0.30, 0.20
"""Share of UP called minus share of UP in the market, either way."""

PARSED_RAISED, PARSED_OVER = 0.15, 0.08
"""Fall of the parse rate from its best, both over ten steps."""

HABIT_STEPS = 100
"""Steps that a policy has to unlearn the confidence of the warm-up's demonstrations, which state
50 to 95 % over coin flips: 22 points too much on average."""
HABIT_GAP, GAP_RAISED = 0.25, 0.10
"""Overconfidence that the interval has to exclude, during and after those steps."""
GAP_BAND = 0.05
"""Below the threshold by this much the alarm ends."""
SHOWN_Z = 2.0
"""Standard errors on either side that are shown, about 95 %."""
RAISED_Z = 3.0
"""Standard errors that raise the alarm: it is tested after every step, so chance has many tries."""


def one_sided(stream: Stream) -> Reading | None:
    """Share of UP among the window's calls against share of UP among its examples."""
    rows = [row for row in stream.steps if {"calls/up_share", "market/up_share"} <= row.keys()]
    calls = [_read(row) for row in rows]
    total = sum(calls)
    if len(rows) < WINDOW or total < LEAST_CALLS:
        return None
    called = sum(n * row["calls/up_share"] for n, row in zip(calls, rows, strict=True)) / total
    market = statistics.fmean(row["market/up_share"] for row in rows)
    gap = called - market
    return Reading(
        value=gap,
        threshold=math.copysign(ONE_SIDED_RAISED, gap),
        is_raised=abs(gap) > ONE_SIDED_RAISED,
        is_over=abs(gap) < ONE_SIDED_OVER,
        title=f"UP called {100 * called:.0f} %, market {100 * market:.0f} % UP, n={total:.0f}",
        explanation=(
            f"Over the last {len(rows)} steps one side is called far more often than it occurs in "
            "the same examples. A policy that always calls one side is right as often as that "
            "side occurs, has learnt nothing, and its groups lose their contrast."
        ),
        advice=(
            "Stage I: keep data.sampling balanced and reward.shaping diversity. Stage II: use "
            "reward.shaping market_skew. If it stays, go back to a checkpoint from before it began "
            "and lower optimizer.learning_rate."
        ),
    )


def parse_rate(stream: Stream) -> Reading | None:
    """Parse rate over ten steps against the best ten steps so far."""
    now, best = stream.mean("parsed", START_STEPS), stream.best_parsed
    if now is None or best is None:
        return None
    fall = best - now
    return Reading(
        value=now,
        threshold=best - PARSED_RAISED,
        is_raised=fall > PARSED_RAISED,
        is_over=fall < PARSED_OVER,
        title=f"{100 * now:.0f} % of answers readable, {100 * best:.0f} % at best",
        explanation=(
            f"Fewer completions than before can be read as an answer (means over {START_STEPS} "
            "steps). An unreadable answer counts as wrong everywhere, so accuracy and reward "
            "fall with it; it is often the first sign of a policy that drifts apart."
        ),
        advice=(
            "Open rollouts without an answer and see why. If they are cut off, raise "
            "rollout.max_new_tokens; else lower optimizer.learning_rate or raise "
            "objective.kl_coefficient, and go back to an earlier checkpoint."
        ),
    )


def overconfidence(stream: Stream) -> Reading | None:
    """Stated confidence minus hit rate, with an interval over steps.

    Completions of one prompt share their outcome, so the steps and not the calls are taken as
    independent: the mean of the steps' gaps less 3 of their standard errors has to exceed the
    threshold.
    """
    rows = [row for row in stream.steps if {"confidence/mean", "confidence/hit_rate"} <= row.keys()]
    total = sum(row.get("confidence/n", _read(row)) for row in rows)
    if len(rows) < WINDOW or total < LEAST_CALLS:
        return None
    gaps = [row["confidence/mean"] - row["confidence/hit_rate"] for row in rows]
    stated = statistics.fmean(row["confidence/mean"] for row in rows)
    gap = statistics.fmean(gaps)
    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    limit = HABIT_GAP if stream.step <= HABIT_STEPS else GAP_RAISED
    return Reading(
        value=gap,
        threshold=limit,
        is_raised=gap - RAISED_Z * error > limit,
        is_over=gap < limit - GAP_BAND,
        title=(
            f"says {100 * stated:.0f} %, right {100 * (stated - gap):.0f}"
            f" ± {100 * SHOWN_Z * error:.0f} %, n={total:.0f}"
        ),
        explanation=(
            "The policy states more confidence than it is right: the mean over calls that state "
            "one, against the share of them that are right, with its interval over steps. Guessing "
            "is right about half of the time, so on an unpredictable market the honest statement "
            "is near 50 %."
        ),
        advice=(
            "Look at the confidence component: if it does not rise, give it more weight in the "
            "reward scheme. Until it does, do not use the stated confidence as a probability."
        ),
    )


def _read(row: dict[str, float]) -> float:
    """Calls of a step that could be read."""
    return row.get("accuracy/n", 0.0) * row.get("parsed", 1.0)


RULES = {
    "one_sided": one_sided,
    "parse_rate": parse_rate,
    "overconfidence": overconfidence,
}
"""Judged after every step."""
