"""Answers that get lost: the fault that every client of a store must live with.

A commit whose connection breaks may or may not have happened. ``FaultDriver`` makes either happen
on purpose, around any driver.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from attrs import define, field

from ..data import DataRef
from ..driver import Driver, Durability, Page, Plan, Query
from ..errors import FlowstateError, UnknownOutcomeError
from ..state import State


class Fault(enum.Enum):
    """When the answer to a commit is lost."""

    BEFORE = "before"
    """The commit never reached the store."""
    AFTER = "after"
    """The store stored or refused it; nobody was told which."""


def _each(faults: Iterable[Fault | None]) -> Iterator[Fault | None]:
    return iter(faults)


@define(eq=False)
class FaultDriver(Driver):
    """Delegates to *driver*; the n-th commit meets the n-th of *faults*.

    None stands for no fault, and when *faults* is used up there are no more. It may be endless
    (``itertools.cycle``) or random. ``async with`` opens and closes the driver inside.
    """

    driver: Driver
    faults: Iterator[Fault | None] = field(converter=_each)
    lost: int = field(default=0, init=False)
    """How many answers were lost so far."""

    @property
    def durability(self) -> Durability:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the driver inside."""
        return self.driver.durability

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

    async def get(self, id: str, rev: int | None = None) -> State | None:
        return await self.driver.get(id, rev)

    async def find(self, query: Query) -> State | None:
        return await self.driver.find(query)

    async def read(self, query: Query, after: int, limit: int) -> Page:
        return await self.driver.read(query, after, limit)

    async def head(self) -> int:
        return await self.driver.head()

    async def wait(self, after: int) -> None:
        await self.driver.wait(after)

    async def due(self, until: int, flows: Collection[str], limit: int) -> tuple[State, ...]:
        return await self.driver.due(until, flows, limit)

    async def next_due(self, flows: Collection[str]) -> int | None:
        return await self.driver.next_due(flows)

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        return await self.driver.renew(leases, until)

    async def load(self, ref: DataRef) -> bytes:
        return await self.driver.load(ref)

    async def open(self) -> None:
        await self.driver.open()

    async def close(self) -> None:
        await self.driver.close()
