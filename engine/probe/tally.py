"""What several samples say together: counts, vote, probability of UP with its interval."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from engine.evaluation.intervals import wilson


def tally(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up the predictions of one checkpoint.

    Returns:
        ``calls``: how many samples say UP and DOWN, and how many none (``unread``). ``vote``:
        the side that more of them say, None where neither is. ``p_up``: share of UP among
        the samples that say a side, with its 95 % Wilson interval and ``n``; None where none
        does. It tells how the policy answers this prompt, not how often it is right.
        ``confidence``: mean of what is stated, with ``n``; None where none is.
    """
    sides = [prediction.get("direction") for prediction in predictions]
    ups, downs = sides.count("UP"), sides.count("DOWN")
    said = ups + downs
    stated = [
        float(prediction["confidence"])
        for prediction in predictions
        if prediction.get("confidence") is not None
    ]
    low, high = wilson(ups, said) if said else (0.0, 0.0)
    return {
        "calls": {"up": ups, "down": downs, "unread": len(sides) - said},
        "vote": None if ups == downs else "UP" if ups > downs else "DOWN",
        "p_up": {"value": ups / said, "low": low, "high": high, "n": said} if said else None,
        "confidence": {"mean": statistics.fmean(stated), "n": len(stated)} if stated else None,
    }
