"""Who had what when: every change of a place in a store, and every call of a flow, in one order.

``PlaceRecorder`` notes what became of places at the store itself, whatever its clients hear of it;
``recorded`` gives flows that note that they are called. ``history.check`` judges the two together.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Any

from attrs import define, field
from msgspec import Struct
from msgspec.structs import replace

from ..clock import Clock
from ..commands import Command
from ..flow import Flow
from ..flows import Flows
from ..leases import Claimed, Held, Renewal
from ..plan import Plan
from ..query import Unreadable
from ..state import State
from .wrapper import WrapperDriver


class Change(enum.Enum):
    """What happens to a place."""

    COMMITTED = "committed"
    CLAIMED = "claimed"
    RENEWED = "renewed"
    RELEASED = "released"
    ENDED = "ended"
    """Its owner was taken for dead."""


class PlaceChange(Struct, frozen=True):
    """A change of the place of a version, as it was at the store afterwards."""

    change: Change
    id: str
    rev: int
    owner: str = ""
    """Who has it; empty: nobody."""
    claim: str = ""
    until: int | None = None
    """When the lease ends (ms)."""
    at: int = 0
    """When it happened (ms)."""


class Call(Struct, frozen=True):
    """A call of a flow. When it began and ended is told by the number of changes before it."""

    id: str
    rev: int
    owner: str
    began: int
    ended: int


@define(eq=False)
class PlaceRecorder(WrapperDriver):
    """Notes every change of a place. For a driver whose calls do not wait, or the order of the
    notes would not be that of the store."""

    clock: Clock
    changes: list[PlaceChange] = field(factory=list[PlaceChange])
    calls: list[Call] = field(factory=list[Call])

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        head = await self.driver.head()
        written = await self.driver.commit(plan)
        for state in written:
            if state.rev > head:  # else it was committed before
                await self._note(Change.COMMITTED, state.id, state.rev)
        return written

    async def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        return await self._claimed(await self.driver.claim(room, limit, owner, claim, now))

    async def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        return await self._claimed(await self.driver.take(versions, owner, claim, now))

    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        renewal = await self.driver.renew(held, owner, now)
        for id, rev, _ in held:
            if id not in renewal.moved | renewal.lost:
                await self._note(Change.RENEWED, id, rev)
        return renewal

    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        before = {each.held[:2] for each in await self.driver.holdings()}
        await self.driver.release(held, owner, now)
        after = {each.held[:2] for each in await self.driver.holdings()}
        for id, rev in sorted(before - after):
            await self._note(Change.RELEASED, id, rev)

    async def end_leases(self, owner: str, now: int) -> None:
        await self.driver.end_leases(owner, now)
        for holding in await self.driver.holdings(owner):
            if holding.place.until is not None:
                await self._note(Change.ENDED, holding.id, holding.rev)

    def recorded(self, flows: Flows, owner: str, without: Collection[str] = ()) -> Flows:
        """Flows that do the same as those, in an engine of that name, and note each call."""
        made = Flows()
        for flow in flows:
            if flow.name not in without:
                limit = flows.limits.get(flow.name)
                made.add(flow.name, self._recorded(flow, owner), limit=limit)
        return made

    def _recorded(self, flow: Flow, owner: str) -> Any:
        async def call(state: State, engine: Any) -> Command[Any]:
            began = len(self.changes)
            try:
                command: Command[Any] = await flow.run(state, engine)
                return command
            finally:
                self.calls.append(Call(state.id, state.rev, owner, began, len(self.changes)))

        return call

    async def _claimed(
        self, given: tuple[Claimed | Unreadable, ...]
    ) -> tuple[Claimed | Unreadable, ...]:
        for each in given:
            version = each.state if isinstance(each, Claimed) else each
            await self._note(Change.CLAIMED, version.id, version.rev)
        return given

    async def _note(self, change: Change, id: str, rev: int) -> None:
        place, now = await self.driver.place(id), self.clock.now()
        noted = PlaceChange(change, id, rev, at=now)
        if place is not None and place.since is None:
            noted = replace(noted, owner=place.owner, claim=place.claim, until=place.until)
        self.changes.append(noted)
