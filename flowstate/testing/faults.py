"""Answers that are lost: the fault that every client of a store must expect.

A commit whose connection breaks may or may not have happened. ``FaultDriver`` causes either on
purpose, around any driver.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import suppress

from attrs import define, field

from ..errors import FlowstateError, UnknownOutcomeError
from ..plan import Plan
from ..state import State
from .wrapper import WrapperDriver


class Fault(enum.Enum):
    """When the answer to a commit is lost."""

    BEFORE = "before"
    """The commit never reached the store."""
    AFTER = "after"
    """The store stored or refused the commit, and its answer was lost."""


def _each(faults: Iterable[Fault | None]) -> Iterator[Fault | None]:
    return iter(faults)


@define(eq=False)
class FaultDriver(WrapperDriver):
    """Delegates to *driver*; the n-th commit meets the n-th of *faults*.

    None stands for no fault, and a commit after the last of *faults* meets none. *faults* may be
    endless (``itertools.cycle``) or random. ``async with`` opens and closes the driver inside.
    """

    faults: Iterator[Fault | None] = field(converter=_each)
    lost: int = field(default=0, init=False)
    """How many answers were lost."""

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        """Raises ``UnknownOutcomeError`` where *faults* says so."""
        fault = next(self.faults, None)
        if fault is None:
            return await self.driver.commit(plan)
        if fault is Fault.AFTER:
            with suppress(FlowstateError):
                await self.driver.commit(plan)
        self.lost += 1
        raise UnknownOutcomeError(
            type(self).__name__, f"the answer to commit {plan.commit_id!r} was lost on purpose"
        )
