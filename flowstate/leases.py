"""Leases: how an engine shows that it works on what it runs, and what the others may take.

Every committed RUNNING version is leased to whoever executes it, from the moment of its commit,
for as long as its policy says; unless its retries are switched off. The words for it, here and
everywhere:

- *renew*: whoever executes it moves the end of the lease, again and again;
- *release*: whoever cannot go on with it gives the lease back, and others take it over at once;
- *abandon*: have it released when the engine is left;
- a lease that *ran out* means that its executor died or hung.

To a driver a lease is a due time like that of an alarm: the instant at which somebody is to act on
a version. A released lease is due before every instant, so it cannot be mistaken for one that ran
out. The keeper renews the leases of an engine's executions, all that need it in one call, once a
third of their time is gone. It costs an execution nothing: when a lease began is told by the state
itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

import anyio
from attrs import define, field
from msgspec import Struct

from .clock import MAX_INSTANT_MS, Clock, milliseconds
from .errors import FlowstateError
from .query import Unreadable
from .state import Alarm, RetryPolicy, State, Status

logger = logging.getLogger("flowstate")

_RUNNING = Status.RUNNING  # Python 3.11 takes as long to find a member of an enum as to call

RENEW_AFTER = 1 / 3
"""The part of a lease that may go by before it is renewed."""
PAUSE_AFTER_ERROR_MS = 200
"""Between two attempts while the store fails."""
RELEASE_TIMEOUT_S = 5.0
"""How long releasing leases may take when the engine is left."""
RELEASED = MAX_INSTANT_MS + 1
"""A lease that is released at an instant is due at that instant minus this."""


# ---------------------------------------------------------------- how long, and until when


def lease_ms(policy: RetryPolicy) -> int:
    """How long a version with this policy is leased for, in ms; 0 if it never is, because nobody
    is to retry it."""
    return round(policy.lease * 1000) if policy.enabled else 0  # on the path of every commit


def policy_of(state: State, policy: RetryPolicy) -> RetryPolicy:
    """What a version goes by: its state's own policy, or else that of the engine that committed
    it."""
    return state.retry or policy


def renewal_ms(length_ms: int) -> int:
    """How much of a lease of that length may go by before it is renewed, in ms."""
    return int(length_ms * RENEW_AFTER)


def released_at(now: int) -> int:
    """The due time (ms) of a lease that is released now."""
    return now - RELEASED


def instant_of(due: int) -> int:
    """The instant (ms) that a due time stands for: when it came, or when a lease was released."""
    return due if due >= 0 else due + RELEASED


class Due(Struct, frozen=True, gc=False):
    """A current version whose due time has come, that time as the store has it (ms), and the policy
    that was stored beside it (``Write.policy``)."""

    state: State
    time: int
    policy: RetryPolicy | None = None

    @property
    def at(self) -> int:
        """Since when it is due (ms)."""
        return instant_of(self.time)

    @property
    def is_released(self) -> bool:
        """Whether its lease was released, by whoever could not go on with it."""
        return self.time < 0


class DuePage(Struct, frozen=True, gc=False):
    """What is due, soonest first, and when to look again.

    ``next`` is the soonest due time (ms, as the store has it) of a version that is not in ``due``,
    whether it has come or is still to come; None if there is none. Versions that are due but
    cannot be read hold up nothing: those that were met are in ``unreadable``, and ``next`` passes
    them by.
    """

    due: tuple[Due, ...]
    next: int | None
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def next_at(self) -> int | None:
        """The instant (ms) that ``next`` stands for."""
        return None if self.next is None else instant_of(self.next)


# ---------------------------------------------------------------- keeping them


Renew: TypeAlias = Callable[[Collection[tuple[str, int]], int], Awaitable[frozenset[str]]]
"""``Driver.renew``."""


@define(eq=False)
class Execution:
    """One state being run by an engine."""

    state: State
    """As it was last committed: that is what has a lease, and perhaps a timeout."""
    at: State
    """As its flow was given it last; moves in memory have come to it since it was committed."""
    policy: RetryPolicy
    """That of the engine which committed ``state``."""
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    renewed_at: int = 0
    """When its lease was last renewed (ms); a commit renews it too."""
    future_rev: int = 0
    """The last revision that was committed at a time which, by the engine's clock, was to come."""
    future_noticed_at: int = 0
    """When that was noticed (ms)."""
    suspect: int = 0
    """The revision at which the store said that the state has moved on; 0 if it did not."""
    is_timed_out: bool = False
    """Whether it was stopped because the timeout of what it runs has come."""
    is_handed_over: bool = False
    """Whether its flow has had the state run in the background, so that it holds it no more."""
    is_over: bool = False

    @property
    def has_moved(self) -> bool:
        """Whether its flow has committed its state itself, since it was given it."""
        return self.state.rev != self.at.rev

    @property
    def timeout(self) -> Alarm | None:
        """The timeout of what it runs; what was never committed has none yet."""
        state = self.state
        return state.transition.alarm if state.rev else None

    def is_lost(self, rev: int) -> bool:
        """Whether it is lost, now that the store said that the state has moved on from *rev*.

        Perhaps by the execution's own commit, whose answer is on its way: so the second time
        counts.
        """
        if self.state.rev != rev:
            return False
        is_second, self.suspect = self.suspect == rev, rev
        return is_second


@define(eq=False)
class LeaseKeeper:
    """Renews the leases of executions, cancels those that lost theirs, and releases the leases of
    what cannot be run here. Leases are as long as the policies of their versions say; ``policy`` is
    this engine's.
    """

    renew_leases: Renew
    clock: Clock
    policy: RetryPolicy
    executions: dict[Execution, None] = field(factory=dict[Execution, None], init=False)
    """What runs now, in the order in which it began."""
    _sleeps_until: int = field(default=0, init=False)
    _awake: anyio.Event = field(factory=anyio.Event, init=False)
    _abandoned: dict[str, int] = field(factory=dict[str, int], init=False)
    """id -> revision of what is to be released when the engine is left."""

    def begin(self, execution: Execution) -> None:
        """A new execution: renew its lease in time."""
        self.executions[execution] = None
        if self._abandoned:
            self._abandoned.pop(execution.state.id, None)
        self.look_again(execution)

    def look_again(self, execution: Execution) -> None:
        """The state of an execution has another version: mind its lease and its timeout."""
        due = self._next(execution)
        if due is not None and due < self._sleeps_until:
            self._awake.set()

    def end(self, execution: Execution) -> None:
        """The execution is over: its state rests, or has moved on, or is released."""
        execution.is_over = True
        del self.executions[execution]

    async def run(self) -> None:
        """Keep leases until cancelled."""
        clock = self.clock
        while True:
            looks = [
                due for execution in self.executions if (due := self._next(execution)) is not None
            ]
            self._sleeps_until = min(looks, default=MAX_INSTANT_MS)
            self._awake = anyio.Event()
            if self._sleeps_until > clock.now():
                end = self._sleeps_until
                if looks:
                    # in slices: a clock that was wrong when this began costs no more than one
                    end = min(end, clock.now() + renewal_ms(milliseconds(self.policy.lease)))
                await clock.wait_until(end, self._awake)
                continue
            self.stop_timed_out()
            try:
                await self.renew()
            except FlowstateError:
                logger.warning("leases could not be renewed; trying again", exc_info=True)
                await clock.wait_until(clock.now() + PAUSE_AFTER_ERROR_MS)

    def stop_timed_out(self) -> None:
        """Cancel the executions whose timeout has come, by this engine's clock."""
        now = self.clock.now()
        for execution in self.executions:
            timeout = execution.timeout
            if timeout is not None and timeout.at <= now and not execution.is_timed_out:
                execution.is_timed_out = True
                execution.scope.cancel()

    async def renew(self) -> None:
        """Renew what needs it now: one call to the driver for each end of a lease."""
        now = self.clock.now()
        batches: dict[int, list[Execution]] = {}
        for execution in self.executions:
            due = self._renewal(execution)
            if due is not None and due <= now:
                until = now + _lease_ms(execution.state, execution.policy)
                alarm = execution.state.transition.alarm
                batches.setdefault(min(until, alarm.at) if alarm else until, []).append(execution)
        for until, batch in batches.items():
            leases = [(execution.state.id, execution.state.rev) for execution in batch]
            moved = await self.renew_leases(leases, until)
            for execution, (id, rev) in zip(batch, leases, strict=True):
                execution.renewed_at = now
                if id in moved and execution.is_lost(rev):
                    execution.scope.cancel()

    # ------------------------------------------------------------ releasing

    async def release(self, state: State, policy: RetryPolicy) -> None:
        """Release the lease of a state, so that another engine goes on with it at once."""
        if _lease_ms(state, policy):
            try:
                await self._release([(state.id, state.rev)])
            except FlowstateError:
                logger.warning("state %r: its lease could not be released", state.id, exc_info=True)

    def abandon(self, state: State, policy: RetryPolicy) -> None:
        """Have the lease of a state released when the engine is left, unless it is begun again."""
        if _lease_ms(state, policy):
            self._abandoned[state.id] = state.rev

    async def release_abandoned(self) -> None:
        """Release the leases of what was left RUNNING."""
        if not self._abandoned:
            return
        with anyio.move_on_after(RELEASE_TIMEOUT_S, shield=True):
            try:
                await self._release(self._abandoned.items())
            except FlowstateError:
                logger.warning("leases could not be released; they will run out", exc_info=True)

    async def _release(self, leases: Collection[tuple[str, int]]) -> None:
        await self.renew_leases(leases, released_at(self.clock.now()))

    # ------------------------------------------------------------ when

    def _next(self, execution: Execution) -> int | None:
        """When to look after an execution: to renew its lease, or to stop it at its timeout."""
        renewal, timeout = self._renewal(execution), execution.timeout
        if timeout is None or execution.is_timed_out:
            return renewal
        return timeout.at if renewal is None else min(renewal, timeout.at)

    def _renewal(self, execution: Execution) -> int | None:
        """When to tell the store that it is being executed, or to learn from the store that it is
        no longer."""
        length = _lease_ms(execution.state, execution.policy)
        if not length:
            return None
        began = max(self._committed_at(execution), execution.renewed_at)
        return began + renewal_ms(length)

    def _committed_at(self, execution: Execution) -> int:
        """When its state was committed, by the engine's clock, by which leases are counted. The
        store's may be ahead of it: then, when it was noticed, at most one look too late."""
        state = execution.state
        now = self.clock.now()
        if state.committed_at <= now:
            return state.committed_at
        if execution.future_rev != state.rev:
            execution.future_rev, execution.future_noticed_at = state.rev, now
        return execution.future_noticed_at


def _lease_ms(state: State, policy: RetryPolicy) -> int:
    """The length of the state's lease; 0 if it has none, as what rests or was never committed."""
    is_leased = state.rev and state.transition.status is _RUNNING
    return lease_ms(policy_of(state, policy)) if is_leased else 0
