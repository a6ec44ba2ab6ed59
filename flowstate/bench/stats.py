"""Medians, quantiles and spread. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence

from attrs import frozen

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""The quantiles that are kept of the delays of a round."""


@frozen
class Summary:
    """Several rounds of one figure."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """How far the furthest round is from the median, as a share of the median."""
        furthest = max(self.high - self.median, self.median - self.low)
        return furthest / abs(self.median) if self.median else 0.0


def summarize(rounds: Collection[float]) -> Summary:
    """The median of at least one round, and the lowest and highest."""
    return Summary(statistics.median(rounds), min(rounds), max(rounds), len(rounds))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the values that at least *share* (0 to 1) of them do not exceed: one that
    was measured, not one in between. The values are given in ascending order."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def quantiles(values: Collection[float]) -> tuple[float, ...]:
    """The values at ``SHARES``."""
    ordered = sorted(values)
    return tuple(quantile(ordered, share) for share in SHARES)
