"""Claims: what an engine takes to run it, and waiting for what others have taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import anyio
from attrs import define, field
from msgspec import Struct

from .clock import MAX_INSTANT_MS, milliseconds, pause
from .committer import Committer
from .errors import RevMismatchError, StoreError
from .executions import Execution, check_not_held
from .flow import Flow
from .flows import Flows
from .leases import Claimed, Place, renewal_ms
from .leaving import Leaving
from .plan import Plan
from .room import Room
from .state import State, Status
from .writes import Writes

MAX_DUE = 10_000
"""States that are looked through for one that is due."""
LOOK_AGAIN_MS = 5
"""Between two looks at a state that somebody else has."""


@define(eq=False)
class Claims:
    """What one engine takes."""

    committer: Committer
    flows: Flows
    room: Room
    leaving: Leaving
    writes: Writes
    by_name: Mapping[str, Flow] = field(init=False)
    owner: str = field(init=False)
    store: Callable[[Plan], Awaitable[tuple[State, ...]]] = field(init=False)
    """Stores a plan that takes something; a driver that does not wait needs no shield for it."""

    def __attrs_post_init__(self) -> None:
        self.by_name, self.owner = self.flows.by_name, self.committer.owner
        waits = self.committer.driver.waits
        self.store = self.writes.store if waits else self.committer.store

    async def take(self, states: list[State]) -> list[Execution]:
        """Executions of those of these RUNNING states that are ready, each as it is given; and of
        those that were moved in memory from where they rest, or were never committed."""
        committer = self.committer
        versions = [(state.id, state.rev) for state in states if state.rev]
        claim, taken = committer.new_id(), dict[str, Claimed]()
        now = committer.clock.now()
        if versions:
            given = await self.writes.claim(
                claim,
                lambda: committer.driver.take(versions, committer.owner, claim, now),
            )
            taken = {each.state.id: each for each in given}
        executions: list[Execution] = []
        for state in states:
            flow, mine = state.transition.to, taken.get(state.id)
            if mine is not None:
                executions.append(
                    Execution(mine.state, state, claim, mine.policy, flow, renewed_at=now)
                )
            elif not state.rev or await self.rests_where_it_was(state):
                executions.append(Execution(state, state, flow=flow))
        return executions

    async def acquire(self, state: State) -> Execution | State:
        """An execution of a RUNNING state, once it can be taken; or the state once it rests."""
        driver = self.committer.driver
        check_not_held(state.id)
        while True:
            head = await driver.head() if state.rev else 0
            if (execution := await self._try(state)) is not None:
                return execution
            newest = await self.newest(state)
            if newest.rev != state.rev:
                if newest.transition.status is not Status.RUNNING:
                    return newest
                state = newest  # the newest counts
                continue
            if not state.rev or newest.transition.status is not Status.RUNNING:
                return await self.hand_on(state)
            due_at = await self._due_at(newest)
            if due_at <= self.committer.clock.now():
                if (fired := await self._fire(newest)) is not None:
                    return fired
            else:
                await self._wait(head, due_at)
            await self.pause(LOOK_AGAIN_MS)

    async def hand_on(self, state: State) -> State:
        """Commit a state that was moved in memory to a flow of others, as ready for them."""
        return (await self.store(self.committer.plan_ready(state)))[0]

    async def rests_where_it_was(self, state: State) -> bool:
        """Whether a state was moved in memory from the version that is stored, which rests."""
        stored = await self.newest(state)
        return stored.rev == state.rev and stored.transition.status is not Status.RUNNING

    async def newest(self, state: State) -> State:
        """The state as it is stored; as it is given, if it never was."""
        return await self.committer.driver.get(state.id) or state

    async def pause(self, wait_ms: int) -> None:
        """Wait, unless the engine is left meanwhile."""
        clock = self.committer.clock
        with self.leaving.ends_this():
            await clock.wait_until(clock.now())  # others have their turn, however short it is
            await pause(clock, wait_ms)

    async def _try(self, state: State) -> Execution | None:
        """An execution of a state, if its flow is here, is not held, and it can be taken; waits
        until the limit of the flow has room."""
        flow = state.transition.to
        if flow not in self.by_name:
            return None
        while not self.room.enter(flow):
            if flow in self.room.held:
                return None
            with self.leaving.ends_this():
                await self.room.freed()
        executions: list[Execution] = []
        try:
            executions = await self.take([state])
        finally:
            if not executions:
                self.room.leave(flow)
        return executions[0] if executions else None

    async def _due_at(self, state: State) -> int:
        """When the alarm of a RUNNING state comes, or the lease of who has taken it ends (ms)."""
        place = await self.committer.driver.place(state.id)
        alarm = state.transition.alarm
        lease = None if place is None else place.until
        ends = [lease, None if alarm is None else alarm.at]
        return min((at for at in ends if at is not None), default=MAX_INSTANT_MS)

    async def _fire(self, state: State) -> State | None:
        """Commit what has become of a state that is due, and give it: perhaps nobody leads."""
        committer = self.committer
        page = await committer.driver.due(committer.clock.now(), MAX_DUE)
        for due in page.due:
            if (due.state.id, due.state.rev) == (state.id, state.rev):
                firing = committer.plan_firing(due)
                try:
                    return None if firing is None else (await self.store(firing))[0]
                except RevMismatchError:
                    return await self.newest(state)
        return None

    async def _wait(self, head: int, until: int) -> None:
        """Wait until the store changes, and no longer than until then, nor than a third of a lease:
        the clock may be wrong."""
        clock, news = self.committer.clock, anyio.Event()
        until = min(until, clock.now() + renewal_ms(milliseconds(self.committer.policy.lease)))

        async def change() -> None:
            with suppress(StoreError):  # whoever looks next is told, and not in a group
                await self.committer.driver.wait(head)
            news.set()

        with self.leaving.ends_this():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(change)
                await clock.wait_until(until, news)
                tasks.cancel_scope.cancel()


class Taking(Struct, eq=False):
    """What the commits of one execution take: its own state, if its next flow is here, is not held
    and has room, and others as long as there are places.

    Room is taken when a commit is planned; ``keep`` says that it was stored. What was not kept is
    to be given back in the end, whatever that is.
    """

    claims: Claims
    own: str
    """The id of its state."""
    flow: str = ""
    """The flow that its state counts for, if flows have limits."""
    has_taken_own: bool = False
    _next: str = ""
    _reserved: list[str] | None = None
    """The flows of the others."""

    def place_of(self, state: State, now: int, lease: int) -> Place:
        """For ``transitions.plan``."""
        claims, flow = self.claims, state.transition.to
        if flow not in claims.by_name or claims.leaving.has_begun:
            return Place(now)
        room = claims.room
        if state.id == self.own:
            if room.limits or room.held:
                if flow in room.held or (flow != self.flow and not room.enter(flow)):
                    return Place(now)
                self._next = flow if flow != self.flow else ""
            self.has_taken_own = True
        else:
            if not room.take(flow):
                return Place(now)
            self._reserved = self._reserved or []
            self._reserved.append(flow)
        return Place(None, claims.owner, "", now + lease if lease else None)

    def keep(self) -> None:
        """What was planned is stored: the room is in use."""
        if self._next:
            self.claims.room.leave(self.flow)
            self.flow, self._next = self._next, ""
        self._reserved = None

    def give_back(self) -> None:
        """Give back the room that was taken and not kept."""
        room = self.claims.room
        if self._next:
            room.leave(self._next)
            self._next = ""
        for flow in self._reserved or ():
            room.give_back(flow)
        self._reserved = None

    def goes_on(self, flow: str) -> bool:
        """Whether the execution's own state may go on at that flow, moved in memory."""
        room = self.claims.room
        if flow == self.flow or not (room.limits or room.held):
            return True
        if not room.enter(flow):
            return False
        room.leave(self.flow)
        self.flow = flow
        return True
