"""What a workload is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from attrs import frozen

from flowstate import Durability

from ..place import Place
from ..results import WorkloadFacts
from ..sites import Site
from ..values import Effort, Measure, Sample

MAX_ROUNDS = 100

Run: TypeAlias = Callable[[Place, int], Awaitable[Sample]]
Raw: TypeAlias = Callable[[Site, int, Effort], Sample | None]
"""The raw limit of a case, right now; None if the store has none."""


@frozen
class Workload:
    """One thing that is measured, for several values of one parameter.

    ``quick`` are the values for those in a hurry. ``needs`` is what a store must be able to do for
    it: NONE is a store of one process.
    """

    name: str
    about: str
    """In one sentence; ``{states}`` in it is how many there are."""
    parameter: str
    values: Sequence[int]
    quick: Sequence[int]
    measures: tuple[Measure, ...]
    run: Run
    raw: Raw | None = None
    raw_about: str = ""
    needs: Durability = Durability.NONE
    max_rounds: int = MAX_ROUNDS
    """For what takes long and varies little."""
    max_quick_rounds: int = MAX_ROUNDS
    is_warmed_up: bool = True
    """Whether it is run once, small, before it counts."""
    cost_s: Callable[[int], float] = lambda _: 0.5
    """About how long a case takes besides the time that it repeats what it does."""

    def cases(self, effort: Effort) -> Sequence[int]:
        return self.quick if effort.is_quick else self.values

    def rounds(self, effort: Effort) -> int:
        return min(effort.rounds, self.max_quick_rounds if effort.is_quick else self.max_rounds)

    def facts(self, effort: Effort) -> WorkloadFacts:
        return WorkloadFacts(
            name=self.name,
            about=self.about.format(states=effort.states),
            parameter=self.parameter,
            measures=self.measures,
            raw=self.raw_about,
        )
