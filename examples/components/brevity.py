"""A reward component of your own: short reasoning pays more than long.

    stonk-tui score --source demo --ticker AAPL --date 2012-09-14 --completion answer.txt \\
        --scheme examples/components/brief.yaml \\
        --component examples/components/brevity.py:brevity --allow-code

The function's name is the component's name; its weight stands in the scheme.
"""

from engine.market.example import Example
from engine.rewards.parse import Prediction

HALF_AT = 40
"""Words at which half is left."""


def brevity(prediction: Prediction, example: Example, prompt_text: str) -> tuple[float, str]:
    """``1 / (1 + words / HALF_AT)`` for a reasoning that was read, else 0; range [0, 1]."""
    words = len(prediction.reasoning.split())
    if not words:
        return 0.0, "no reasoning"
    return 1 / (1 + words / HALF_AT), f"{words} words"
