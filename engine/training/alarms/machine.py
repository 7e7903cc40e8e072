"""Alarm about the machine: a GPU that waits."""

from engine.training.alarms.reading import Reading
from engine.training.alarms.stream import BUSY_SECONDS, Stream

BUSY_RAISED, BUSY_OVER = 0.50, 0.60
"""Share of training time in which the GPU computed."""


def idle_gpu(stream: Stream) -> Reading | None:
    """Use of the GPU over the last five minutes of training, weighted by the steps' length."""
    total = sum(seconds for seconds, _ in stream.busy)
    if total < BUSY_SECONDS:
        return None
    busy = sum(seconds * share for seconds, share in stream.busy) / total
    return Reading(
        value=busy,
        threshold=BUSY_RAISED,
        is_raised=busy < BUSY_RAISED,
        is_over=busy > BUSY_OVER,
        title=f"GPU busy {100 * busy:.0f} % of {total / 60:.0f} minutes of training",
        explanation=(
            "The GPU waits for more than half of the time, so the run takes about twice as long as "
            "it has to. Sampling with few rows is the usual reason: each new token costs one pass, "
            "however many completions share it."
        ),
        advice=(
            "Raise rollout.prompts_per_step or rollout.group_size until memory is used, and "
            "optimizer.micro_batch_tokens with them. `stonk-tui doctor` says whether something "
            "else holds the GPU or the processor."
        ),
    )


RULES = {"idle_gpu": idle_gpu}
"""Judged after every step."""
