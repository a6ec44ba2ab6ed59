"""Executions: what an engine runs now, and keeping what it has taken.

The keeper renews the leases of an engine's executions, all that need it in one call, once a third
of their time is gone; it stops those that lost their claim, or whose timeout has come. It costs an
execution nothing: when a lease began is told by the state itself.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextvars import ContextVar

import anyio
import msgspec
from attrs import define, field
from msgspec import Struct

from .clock import MAX_INSTANT_MS, Clock, milliseconds
from .driver import Driver
from .errors import InvalidValueError
from .leases import Held, lease_ms, policy_of, renewal_ms
from .state import KERNEL_PREFIX, Alarm, RetryPolicy, State

logger = logging.getLogger("flowstate")

PAUSE_AFTER_ERROR_MS = 200
"""Between two attempts while the store fails."""
RELEASE_TIMEOUT_S = 5.0
"""How long releasing may take when the engine is left."""


class Execution(Struct, eq=False):  # a struct is made in a fifth of the time of a class of attrs
    """One state being run by an engine."""

    state: State
    """As it was last committed: that is what is taken, and perhaps has a timeout."""
    given: State
    """As its flow was given it last; moves in memory have come to it since it was committed."""
    claim: str | None = None
    """The claim by which ``state`` is taken; empty if it was committed as taken, None if it is
    not."""
    policy: RetryPolicy | None = None
    """That of the engine which committed it; None if that is this one, or if it has its own."""
    flow: str = ""
    """The flow with a limit that it counts for."""
    outer: Execution | None = None
    """That of the flow which waits for it."""
    scope: anyio.CancelScope = msgspec.field(default_factory=anyio.CancelScope)
    renewed_at: int = 0
    """When its lease was last renewed (ms); a commit renews it too."""
    future_rev: int = 0
    """The last revision that was committed at a time which, by the engine's clock, was to come."""
    future_noticed_at: int = 0
    """When that was noticed (ms)."""
    suspect: int = 0
    """The revision at which the store said that the state has moved on; 0 if it did not."""
    failed: State | None = None
    """What was committed because its flow raised."""
    is_left: bool = False
    """Whether there was no room for it at its next flow, so that it waits in line."""
    is_timed_out: bool = False
    """Whether it was stopped because the timeout of what it runs has come."""
    is_over: bool = False

    @property
    def has_moved(self) -> bool:
        """Whether its flow has committed its state itself, since it was given it."""
        return self.state.rev != self.given.rev

    @property
    def held(self) -> Held | None:
        """What it has taken."""
        return None if self.claim is None else (self.state.id, self.state.rev, self.claim)

    @property
    def timeout(self) -> Alarm | None:
        """The timeout of what it runs; what was never committed has none yet."""
        state = self.state
        return state.transition.alarm if state.rev else None

    def begin_again(self, state: State) -> None:
        """It goes on with that version, after it was stopped."""
        self.state = self.given = state
        self.scope = anyio.CancelScope()
        self.is_timed_out = self.is_over = False

    def lose(self) -> None:
        """Stop it: it is somebody else's now."""
        self.claim = None
        self.scope.cancel()

    def is_lost(self, rev: int) -> bool:
        """Whether it is lost, now that the store said that the state has moved on from *rev*.

        Perhaps by the execution's own commit, whose answer is on its way: so the second time
        counts.
        """
        if self.state.rev != rev:
            return False
        is_second, self.suspect = self.suspect == rev, rev
        return is_second


running_here: ContextVar[Execution | None] = ContextVar("flowstate.execution", default=None)
"""The execution whose flow the present task runs; it may be over. It decides three things: what a
flow starts does not wait for a place (``Background.start``), an engine that is being left still
does what its flows ask for (``Executor.check_takes_work``), and a flow that moves its own state
keeps it (``Executor.commit``, ``Executor.committed``)."""


def present_execution() -> Execution | None:
    """The execution whose flow the present task runs. A task that a flow began, and that has
    outlived it, runs none."""
    execution = running_here.get()
    return None if execution is None or execution.is_over else execution


def runs_flow() -> bool:
    """Whether the present task runs a flow."""
    return present_execution() is not None


def forget_flow() -> None:
    """Say that the present task runs no flow: a task begins with the context of who started it."""
    running_here.set(None)


def check_not_held(id: str) -> None:
    """Raise ``InvalidValueError`` if the flow that asks runs for that state, or one that waits for
    it: it would wait for itself."""
    execution = present_execution()
    while execution is not None:
        if execution.state.id == id:
            raise InvalidValueError(
                f"state {id!r}",
                "is run by this very flow, which would wait for itself; return Execute(state)",
            )
        execution = execution.outer


@define(eq=False)
class Keeper:
    """Renews what an engine has taken and runs, and releases what it does not run.

    ``policy`` is that of states without their own.
    """

    driver: Driver
    owner: str
    clock: Clock
    policy: RetryPolicy
    executions: dict[Execution, None] = field(factory=dict[Execution, None], init=False)
    """What runs now, in the order in which it began."""
    by_id: dict[str, Execution] = field(factory=dict[str, Execution], init=False)
    """The same by the ids of their states; of several of one state that of the newest version."""
    _slice_ms: int = field(init=False)
    """The longest that it sleeps while anything runs: a clock that was wrong when that began costs
    no more than one."""
    _sleeps_until: int = field(default=MAX_INSTANT_MS, init=False)
    _awake: anyio.Event = field(factory=anyio.Event, init=False)
    _abandoned: dict[Held, None] = field(factory=dict[Held, None], init=False)
    """What is to be released when the engine is left."""
    _passed_by: set[Held] = field(factory=set[Held], init=False)
    """What was taken and is left to its lease, since it cannot be run, or was and did not move."""
    _astray: dict[Held, int] = field(factory=dict[Held, int], init=False)
    """What stood under the owner when last renewed, and was not run; each with how many calls that
    take something had begun when this was first seen."""
    _calls: dict[int, None] = field(factory=dict[int, None], init=False)
    """The numbers of those whose answers are on their way."""
    _begun: int = field(default=0, init=False)
    """How many have begun."""

    def __attrs_post_init__(self) -> None:
        self._slice_ms = renewal_ms(milliseconds(self.policy.lease))

    def begin(self, execution: Execution) -> None:
        """A new execution: renew its lease in time."""
        self.executions[execution] = None
        state = execution.state
        other = self.by_id.get(state.id)
        if other is None or other.state.rev <= state.rev:
            self.by_id[state.id] = execution
        if (
            state.committed_at < self._sleeps_until - self._slice_ms
            or execution.policy is not None
            or state.retry is not None
            or state.transition.alarm is not None
        ):  # else it is looked after when the keeper wakes next, which is in time
            self.look_again(execution)

    def look_again(self, execution: Execution) -> None:
        """The state of an execution has another version: mind its lease and its timeout."""
        due = self._next(execution)
        if due is not None and due < self._sleeps_until:
            self._sleeps_until = due
            self._awake.set()

    def end(self, execution: Execution) -> None:
        """The execution is over."""
        execution.is_over = True
        del self.executions[execution]
        id = execution.state.id
        if self.by_id.get(id) is execution:
            del self.by_id[id]

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
                    end = min(end, clock.now() + self._slice_ms)
                await clock.wait_until(end, self._awake)
                continue
            self.stop_timed_out()
            try:
                await self.renew()
            except Exception:
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
        """Renew what needs it now, in one call to the driver, and release what went astray."""
        now = self.clock.now()
        batch = [
            execution
            for execution in self.executions
            if (due := self._renewal(execution)) is not None and due <= now
        ]
        if not batch:
            return
        held = [held for execution in batch if (held := execution.held) is not None]
        renewal = await self.driver.renew(held, self.owner, now)
        for execution, (id, rev, claim) in zip(batch, held, strict=True):
            execution.renewed_at = now
            if id in renewal.moved:
                if execution.is_lost(rev):
                    execution.lose()
            elif id in renewal.lost and (rev, claim) == (execution.state.rev, execution.claim):
                execution.lose()
        await self._find_astray()

    async def _find_astray(self) -> None:
        """Release what this engine has taken, as the store has it, and does not run: the answer to
        a claim or a commit was lost. Seen twice, and not while an answer may be on its way. What
        is the kernel's own is run by nobody."""
        answered = min(self._calls, default=self._begun + 1)
        holdings = await self.driver.holdings(self.owner)
        here = {execution.state.id for execution in self.executions}
        found = {
            each.held: self._astray.get(each.held, self._begun)
            for each in holdings
            if each.id not in here and not each.id.startswith(KERNEL_PREFIX)
        }
        self._passed_by &= found.keys()
        for held in self._passed_by:
            del found[held]
        astray = [
            held for held, begun in found.items() if held in self._astray and begun < answered
        ]
        self._astray = found
        if astray:
            await self.release(astray)

    def call_begins(self) -> int:
        """A call that takes something is on its way: what it takes can be run only when the answer
        is there. Gives the number of the call."""
        self._begun += 1
        self._calls[self._begun] = None
        return self._begun

    def call_ends(self, number: int) -> None:
        """Its answer is there, or will never be."""
        del self._calls[number]

    # ------------------------------------------------------------ releasing

    async def release(self, held: Collection[Held]) -> None:
        """Give these back, so that they are ready at once."""
        try:
            await self.driver.release(held, self.owner, self.clock.now())
        except Exception:
            logger.warning("leases could not be released; they will run out", exc_info=True)

    def pass_by(self, held: Held) -> None:
        """Leave this to its lease: renew and release it no more."""
        self._passed_by.add(held)

    def abandon(self, held: Held) -> None:
        """Have this given back when the engine is left."""
        self._abandoned[held] = None

    async def release_abandoned(self) -> None:
        """Give back what was left RUNNING."""
        if self._abandoned:
            with anyio.move_on_after(RELEASE_TIMEOUT_S, shield=True):
                await self.release(self._abandoned)

    # ------------------------------------------------------------ when

    def _next(self, execution: Execution) -> int | None:
        """When to look after an execution: to renew its lease, or to stop it at its timeout."""
        renewal, timeout = self._renewal(execution), execution.timeout
        if timeout is None or execution.is_timed_out:
            return renewal
        return timeout.at if renewal is None else min(renewal, timeout.at)

    def _renewal(self, execution: Execution) -> int | None:
        """When to tell the store that it is being executed, or to learn from the store that it is
        no longer; None if it has no lease."""
        if execution.claim is None:
            return None
        state = execution.state
        length = lease_ms(policy_of(state, execution.policy or self.policy))
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
