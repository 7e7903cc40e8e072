"""Alarms about the policy itself: entropy, contrast, length, distance from the reference."""

import statistics

from engine.training.alarms.reading import Reading
from engine.training.alarms.stream import START_STEPS, Stream
from engine.training.entropy import STEPS as ENTROPY_STEPS

ENTROPY_OVER = 1.5
"""Times the floor at which the alarm ends."""

FLAT_RAISED, FLAT_OVER = 0.5, 0.4
"""Share of groups without contrast, over 10 to 20 steps."""

LENGTH_RAISED, LENGTH_OVER = 0.4, 0.5
"""Of the mean length of the first ten steps, over ten steps."""

TRUNCATED_RAISED, TRUNCATED_OVER = 0.25, 0.15
"""Share of completions cut at the longest allowed length, over ten steps."""

KL_OVER = 0.8
"""Of the threshold: five steps in a row below it end the alarm."""
KL_STEPS = 5


def entropy_collapse(stream: Stream) -> Reading | None:
    """Mean entropy over five steps below the floor (``engine.training.entropy``)."""
    mean, floor = stream.entropy.mean, stream.entropy.floor
    if mean is None:
        return None
    return Reading(
        value=mean,
        threshold=floor,
        is_raised=stream.entropy.is_collapsed,
        is_over=mean > ENTROPY_OVER * floor,
        title=f"entropy {mean:.4f} nats a token, floor {floor:.3f}",
        explanation=(
            "The policy is all but certain of every token: it writes nearly the same completion "
            f"each time (mean over {ENTROPY_STEPS} steps). A group of equal completions has equal "
            "rewards, so there is nothing left to learn from, and it rarely recovers by itself."
        ),
        advice=(
            "Stop and start again from an earlier checkpoint with a lower optimizer.learning_rate "
            "or a higher objective.kl_coefficient; a higher rollout.temperature keeps samples "
            "apart."
        ),
    )


def zero_variance(stream: Stream) -> Reading | None:
    """Mean share of groups whose rewards are all equal, over the newest 10 to 20 steps."""
    shares = stream.newest("groups/zero_variance")
    if len(shares) < START_STEPS:
        return None
    share = statistics.fmean(shares)
    return Reading(
        value=share,
        threshold=FLAT_RAISED,
        is_raised=share > FLAT_RAISED,
        is_over=share < FLAT_OVER,
        title=f"{100 * share:.0f} % of groups have no contrast",
        explanation=(
            "All completions of such a group earned the same, so their advantages are 0 and they "
            "teach nothing. A loss near 0 alone is normal: advantages sum to 0 in every group, so "
            "on fresh samples the loss is near 0 while its gradient is not. It is bad news only "
            "together with this share or with a gradient norm of 0."
        ),
        advice=(
            "Read a few groups: if their completions are alike, see the entropy; if they differ, "
            "the reward cannot tell them apart. A larger rollout.group_size or "
            "rollout.temperature brings contrast back, and so do harder examples."
        ),
    )


def length_collapse(stream: Stream) -> Reading | None:
    """Mean completion length over ten steps against that of the run's first ten."""
    now = stream.mean("tokens/mean", START_STEPS)
    if now is None or len(stream.first_tokens) < START_STEPS:
        return None
    first = statistics.fmean(stream.first_tokens)
    limit = LENGTH_RAISED * first
    return Reading(
        value=now,
        threshold=limit,
        is_raised=now < limit,
        is_over=now > LENGTH_OVER * first,
        title=f"completions of {now:.0f} tokens, {first:.0f} at the start",
        explanation=(
            "Completions have shrunk to less than two fifths of what they were. The policy found "
            "that reasoning does not pay and leaves it out, which often comes before it answers "
            "the same to everything."
        ),
        advice=(
            "Look at rubric/reasoning and at the weights of data_use and coherence in the reward "
            "scheme; raise them, or raise objective.kl_coefficient, and start from an earlier "
            "checkpoint."
        ),
    )


def truncation(stream: Stream) -> Reading | None:
    """Mean share of truncated completions over ten steps."""
    share = stream.mean("tokens/truncated", START_STEPS)
    if share is None:
        return None
    return Reading(
        value=share,
        threshold=TRUNCATED_RAISED,
        is_raised=share > TRUNCATED_RAISED,
        is_over=share < TRUNCATED_OVER,
        title=f"{100 * share:.0f} % of completions are cut off",
        explanation=(
            "These completions reached the longest allowed length before they ended. An answer "
            "stands at the end, so most of them have none and earn the reward of an unreadable "
            "one, whatever the reasoning was worth."
        ),
        advice=(
            "Raise rollout.max_new_tokens, or give the warm-up more steps (warmup.steps) so that "
            "the policy learns to come to an end."
        ),
    )


def kl_blow_up(stream: Stream) -> Reading | None:
    """KL of a single step above ``objective.kl_alarm``; over after five steps well below it."""
    values = stream.newest("kl", KL_STEPS)
    if not values:
        return None
    limit = stream.settings.kl_alarm
    return Reading(
        value=values[-1],
        threshold=limit,
        is_raised=values[-1] > limit,
        is_over=len(values) == KL_STEPS and max(values) < KL_OVER * limit,
        title=f"KL {values[-1]:.3g} nats a token, alarm at {limit:g}",
        explanation=(
            "The policy has moved far from the reference policy: at this distance it has usually "
            "lost fluent language or found a text that only the reward likes. A single high step "
            "can be one very unlikely token; several in a row are a policy that is leaving."
        ),
        advice=(
            "If it stays, stop and start from an earlier checkpoint with a lower "
            "optimizer.learning_rate, a lower optimizer.max_grad_norm or a higher "
            "objective.kl_coefficient. objective.kl_alarm sets this threshold."
        ),
    )


RULES = {
    "entropy_collapse": entropy_collapse,
    "zero_variance": zero_variance,
    "length_collapse": length_collapse,
    "truncation": truncation,
    "kl_blow_up": kl_blow_up,
}
"""Judged after every step."""
