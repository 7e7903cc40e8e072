"""Standardised values, by the mean and deviation of training values alone."""

from dataclasses import dataclass

import numpy as np

from engine.market.history import Values


@dataclass(frozen=True)
class Scaler:
    """``(value - mean) / std``. The default changes nothing."""

    mean: float = 0.0
    std: float = 1.0
    """Always positive."""

    @classmethod
    def fit(cls, training: Values) -> "Scaler":
        """The scaler that gives ``training`` mean 0 and population standard deviation 1.

        Args:
            training: values of training rows only, any shape. Equal ones are centred and
                keep their unit.

        Raises:
            ValueError: there is no value, or one that is not finite.
        """
        if not training.size or not np.isfinite(training).all():
            raise ValueError("a scaler needs finite training values")
        std = float(training.std())
        # The mean of equal numbers may be off by rounding, and their deviation then not 0.
        varies = std > 1e-12 * float(np.abs(training).max())
        return cls(float(training.mean()), std if varies else 1.0)

    def scaled(self, values: Values) -> Values:
        """Prices to scaled prices, any shape."""
        return (values - self.mean) / self.std

    def scaled_difference(self, values: Values) -> Values:
        """Differences of prices to differences of scaled prices, any shape."""
        return values / self.std
