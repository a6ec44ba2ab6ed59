"""Who leads the recovery of a store. The package's docstring explains it; this is the code."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio
from attrs import Factory, define, field
from msgspec.structs import replace

from flowstate import (
    Commit,
    Engine,
    FlowstateError,
    Pause,
    Query,
    RetryPolicy,
    RevMismatchError,
    State,
    StateNotFoundError,
    Status,
    Transit,
    Transition,
    UnreadableVersionError,
)
from flowstate.leases import renewal_ms

from .pace import BACKOFF_MS
from .roll_call import RollCall

logger = logging.getLogger("flowstate.recovery")

LEADER_ID = "flowstate.recovery"
"""The id of the state of the election, and of the flow that it is at."""
MARGIN = 1 / 6
"""The part of a lease that a leader does not trust itself for."""
RESIGN_TIMEOUT_S = 5.0
"""How long handing over may take."""


class Role(enum.Enum):
    """What a recoverer is."""

    STANDBY = "standby"
    LEADER = "leader"
    STOPPED = "stopped"


class Event(enum.Enum):
    """What happens to it."""

    WON = "won"
    LOST = "lost"
    RENEWED = "renewed"
    DEPOSED = "deposed"
    TRUST_ENDED = "trust ended"
    RESIGNED = "resigned"


ELECTION: Mapping[Role, Mapping[Event, Role]] = {
    Role.STANDBY: {
        Event.WON: Role.LEADER,
        Event.LOST: Role.STANDBY,
        Event.RESIGNED: Role.STOPPED,
    },
    Role.LEADER: {
        Event.RENEWED: Role.LEADER,
        Event.DEPOSED: Role.STANDBY,
        Event.TRUST_ENDED: Role.STANDBY,
        Event.RESIGNED: Role.STOPPED,
    },
    Role.STOPPED: {},
}
"""role -> event -> the role that follows. A missing key cannot happen."""


@define(eq=False)
class Elector:
    """One candidate. ``term`` is 0 while it does not lead."""

    engine: Engine
    name: str
    lease_ms: int
    tell: Callable[[Event, int], None] = lambda _event, _term: None
    """Told every event, with the term; for tests and for people."""
    roll: RollCall = field(default=Factory(lambda self: RollCall(self.engine), takes_self=True))
    """Tells if the leader has died, if somebody calls it."""
    role: Role = field(default=Role.STANDBY, init=False)
    term: int = field(default=0, init=False)
    leader: str = field(default="", init=False)
    """Who leads, as far as this candidate knows; empty: nobody."""
    trusted_until: int = field(default=0, init=False)
    """Until when (ms) the leader may act."""
    _unreadable: int = field(default=0, init=False)
    """The last revision of the election's state that could not be read."""

    @property
    def leads(self) -> bool:
        return self.role is Role.LEADER and self.engine.clock.now() < self.trusted_until

    async def win(self) -> None:
        """Return once this candidate leads. Raises what the store raises."""
        while self.role is not Role.LEADER:
            try:
                state = await self.engine.get(LEADER_ID)
            except StateNotFoundError:
                state = State(LEADER_ID)
            except UnreadableVersionError as error:
                state = self._unknown(error)
            self.leader = state.labels.get("leader", "")
            if state.transition.status is Status.RUNNING:
                place = await self.engine.timers.place(LEADER_ID)
                ends = None if place is None else place.until
                if (
                    place is not None
                    and ends is not None
                    and ends > self.engine.clock.now()
                    and place.owner not in self.roll.dead
                ):
                    await self._vacancy(state.rev, ends, place.owner)
                    continue
            await self._stand(state)

    async def keep(self) -> None:
        """Renew the term until it is lost; returns then."""
        while self.role is Role.LEADER:
            began = self.trusted_until - self._trust_ms()
            await self._until(began + renewal_ms(self.lease_ms))
            await self._renew()

    async def resign(self) -> None:
        """Stop, and hand the term over if there is one."""
        term, self.term = self.term, 0
        self.role = Role.STOPPED
        self.leader = ""
        with anyio.move_on_after(RESIGN_TIMEOUT_S, shield=True), suppress(FlowstateError):
            state = await self.engine.get(LEADER_ID)
            # by name, not by term: it may have won in the moment in which it was told to stop
            if state.labels.get("leader") == self.name:
                vacant = state.without_labels("leader")
                await self.engine.timers.commit(
                    Commit(Pause(vacant, reason=f"{self.name} has left"))
                )
        self.tell(Event.RESIGNED, term)

    # ------------------------------------------------------------ inside

    async def _stand(self, state: State) -> None:
        """Commit the state under this name: whoever is first wins."""
        began = self.engine.clock.now()
        # the lease is this candidate's own: whoever led before may have had another
        state = replace(state, retry=RetryPolicy(lease=self.lease_ms / 1000))
        try:
            (won,) = await self.engine.timers.commit(
                Commit(Transit(state.with_labels(leader=self.name), LEADER_ID))
            )
        except RevMismatchError:
            self._become(Event.LOST, state.rev)
        else:
            self.term, self.leader = won.rev, self.name
            self.trusted_until = began + self._trust_ms()
            self._become(Event.WON, won.rev)

    def _unknown(self, error: UnreadableVersionError) -> State:
        """The state of the election, when it cannot be read: perhaps somebody leads, until the
        lease that the store has of it is over. Then it is replaced, for which its revision is
        enough."""
        if error.rev != self._unreadable:
            self._unreadable = error.rev
            logger.error("%s; it is replaced once no lease is left of it", error)
        running = Transition(to=LEADER_ID, status=Status.RUNNING)
        return State(LEADER_ID, rev=error.rev, transition=running)

    async def _vacancy(self, term: int, ends: int, owner: str) -> None:
        """Return when the term may have ended: it ran out, or its leader left or died."""
        async with anyio.create_task_group() as tasks:

            async def changed() -> None:
                with suppress(UnreadableVersionError):  # it has changed, whatever it is now
                    await anext(self.engine.watch(Query(id=LEADER_ID), after=term))
                tasks.cancel_scope.cancel()

            async def died() -> None:
                await self.roll.death(owner)
                tasks.cancel_scope.cancel()

            tasks.start_soon(changed)
            tasks.start_soon(died)
            await self._until(ends)
            tasks.cancel_scope.cancel()

    async def _renew(self) -> None:
        began = self.engine.clock.now()
        if began >= self.trusted_until:
            self._become(Event.TRUST_ENDED, self.term)
            return
        try:
            renewal = await self.engine.timers.renew([(LEADER_ID, self.term, "")])
        except Exception:
            logger.warning("term %d was not renewed", self.term, exc_info=True)
            await self._until(min(began + BACKOFF_MS, self.trusted_until))
        else:
            if renewal.moved or renewal.lost:
                self._become(Event.DEPOSED, self.term)
            else:
                self.trusted_until = began + self._trust_ms()
                self._become(Event.RENEWED, self.term)

    def _become(self, event: Event, term: int) -> None:
        self.role = ELECTION[self.role][event]
        if self.role is not Role.LEADER:
            self.term = 0
        self.tell(event, term)

    def _trust_ms(self) -> int:
        return int(self.lease_ms * (1 - MARGIN))

    async def _until(self, instant: int) -> None:
        clock = self.engine.clock
        while (now := clock.now()) < instant:
            # in slices: a clock that was wrong when this began costs no more than one of them
            await clock.wait_until(min(instant, now + renewal_ms(self.lease_ms)))
