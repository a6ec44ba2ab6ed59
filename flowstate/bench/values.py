"""What a workload says of itself, how much it is asked to do, and what it gives."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from . import stats


class Better(enum.Enum):
    """Which of two figures is the better one."""

    HIGHER = "higher"
    LOWER = "lower"


class Measure(Struct, frozen=True):
    """One figure of a workload. The unit of a delay is milliseconds."""

    name: str
    unit: str
    better: Better
    has_raw: bool = False
    """Whether the raw limit is one of this figure."""


class Effort(Struct, frozen=True, kw_only=True):
    """How much is measured. ``seconds`` is how long a measurement repeats what it does, ``states``
    how many states there are where reading is measured."""

    rounds: int = 5
    seconds: float = 1.0
    states: int = 10_000
    is_quick: bool = False


FULL = Effort()
QUICK = Effort(rounds=3, seconds=0.1, states=1_000, is_quick=True)


class Sample(Struct, frozen=True):
    """What one measurement gave."""

    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    delays: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    """Seconds, as many as there were; by what was waited for, which may be the empty text."""

    def all_figures(self) -> dict[str, float]:
        """The figures, with a p50 and a p99 (ms) of each kind of delay that there was."""
        found = dict(self.figures)
        for name, delays in self.delays.items():
            if not delays:
                continue
            ordered = sorted(delays)
            for share, of in ((0.50, "p50"), (0.99, "p99")):
                found[f"{name} {of}".lstrip()] = stats.quantile(ordered, share) * 1000
        return found

    def distributions(self) -> dict[str, tuple[float, ...]]:
        """The quantiles (ms) of each kind of delay, at ``stats.SHARES``."""
        return {
            name: tuple(delay * 1000 for delay in stats.quantiles(delays))
            for name, delays in self.delays.items()
            if delays
        }


def delays(name: str = "", *, has_raw: bool = False) -> tuple[Measure, Measure]:
    """The two measures of a kind of delay."""
    first, second = (f"{name} {of}".lstrip() for of in ("p50", "p99"))
    return (
        Measure(first, "ms", Better.LOWER, has_raw),
        Measure(second, "ms", Better.LOWER, has_raw),
    )
