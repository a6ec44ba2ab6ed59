"""Running a state: the loop that every transition goes through.

It calls the flow that the state is at, does the command that the flow returns, and goes on while
the state is RUNNING. It logs nothing below WARNING, copies nothing and takes no lock. What runs in
the background, and how much of it at a time, is ``background.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define, field

from .commands import Command, Commit, Execute, Noop, Require
from .committer import Committer, outcome
from .errors import (
    EngineClosedError,
    FlowReturnError,
    FlowstateError,
    InvalidValueError,
    RevMismatchError,
)
from .failures import failure_of, is_flows_own, is_others_move, reason
from .flows import Flows
from .leases import Due, Execution, LeaseKeeper
from .leaving import Leaving
from .plan import Plan
from .races import Races
from .state import KERNEL_PREFIX, Cause, RetryPolicy, State, Status
from .transitions import MOVES, TRANSITIONS, check_legal

logger = logging.getLogger("flowstate")

_RUNNING = Status.RUNNING  # Python 3.11 takes as long to find a member of an enum as to call

MAX_STEPS_WITHOUT_YIELD = 250
"""Transitions that one execution does before other tasks get a turn."""
_running_here: ContextVar[Execution | None] = ContextVar("flowstate.execution", default=None)
"""The execution whose flow the present task runs. It decides three things: what a flow starts does
not wait for a slot (``Background.start``), an engine that is being left still does what its flows
ask for (``Executor.check_takes_work``), and a flow that moves its own state is not cancelled for it
(``Executor.committed``)."""


def runs_flow() -> bool:
    """Whether the present task runs a flow. One that a flow began, and that has outlived it, does
    not."""
    execution = _running_here.get()
    return execution is not None and not execution.is_over


def hand_over(state: State) -> None:
    """Say that a state is run in the background from now on: if the present flow holds it, it no
    longer does."""
    execution = _running_here.get()
    if execution is not None and execution.state.id == state.id:
        execution.is_handed_over = True


def forget_flow() -> None:
    """Say that the present task runs no flow: a task begins with the context of who started it."""
    _running_here.set(None)


@define(eq=False)
class Executor:
    """The executions of one engine.

    ``context`` is what a flow is given beside its state. ``fork`` has a state run in the
    background, for a flow that made it RUNNING in a commit of its own.
    """

    committer: Committer
    flows: Flows
    context: Any
    fork: Callable[[State, RetryPolicy], None]
    ended: Callable[[], None]
    """Called after each execution."""
    leases: LeaseKeeper = field(init=False)
    leaving: Leaving = field(factory=Leaving, init=False)
    _by_id: dict[str, Execution] = field(factory=dict[str, Execution], init=False)
    _shields: set[anyio.CancelScope] = field(factory=set[anyio.CancelScope], init=False)
    """Of the commits that are on their way."""
    _answered: anyio.Event = field(factory=anyio.Event, init=False)
    _shields_commits: bool = field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        committer = self.committer
        self.leases = LeaseKeeper(committer.driver.renew, committer.clock, committer.policy)
        committer.listeners.append(self.committed)

    def close(self) -> None:
        """Hear of no more commits: the engine was left."""
        self.committer.listeners.remove(self.committed)

    def check_takes_work(self) -> None:
        """Raise ``EngineClosedError`` if the engine is being left, unless a flow asks."""
        if self.leaving.has_begun and not runs_flow():
            raise EngineClosedError("the engine is closing and takes no new work")

    async def execute(self, state: State, policy: RetryPolicy | None = None) -> State:
        """Run a state here and now, until it rests, and give it as it is then. *policy* is that of
        the engine which committed it, if it is known not to be this one."""
        check_runnable(state)
        self.check_takes_work()
        policy = policy or self.committer.policy
        while state.transition.status is _RUNNING:
            execution = Execution(state, state, policy)
            rested = await self._execute(execution)
            if rested is not None:
                return rested
            # it was stopped: time was up, or somebody else moved the state
            if self.leaving.has_begun:
                raise EngineClosedError(
                    f"the engine was left before state {state.id!r} came to rest"
                )
            if not execution.is_timed_out:
                return await self._newest(state)
            policy = execution.policy
            fired = await self._fire_timeout(execution)
            if fired is None:
                return await self._newest(state)
            state = fired
        return state

    async def run(self, state: State, policy: RetryPolicy | None = None) -> BaseException | None:
        """Run a state for nobody who waits for it, and give what came out of its flow: that was
        logged, and what follows from it was committed, so it is not raised, whatever it is."""
        try:
            await self.execute(state, policy)
        except EngineClosedError:
            return None  # left for another engine; its lease is released
        except BaseException as error:
            if not is_flows_own(error):
                raise
            return error
        return None

    async def commit(self, commit: Commit) -> tuple[State, ...]:
        """Commit for whoever asks. A flow that moves its own state waits for the outcome, whatever
        cancels it: else nobody would know which revision it is at."""
        execution = _running_here.get()
        if execution is None or not self.committer.driver.waits:
            return await self.committer.commit(commit)
        if _moves(commit, execution.state.id):
            return await self._commit_own(commit)
        return await self.committer.commit(commit)

    def timeouts(self) -> list[tuple[str, Due]]:
        """The timeouts of what runs now, each with the flow that it leads to."""
        return [
            (timeout.to, Due(execution.state, timeout.at, execution.policy))
            for execution in self.leases.executions
            if (timeout := execution.timeout) is not None
        ]

    def committed(self, states: tuple[State, ...]) -> None:
        """What was committed: an execution goes on from its own, and is cancelled if somebody else
        moved its state."""
        by_id = self._by_id
        if not by_id:
            return
        for state in states:
            execution = by_id.get(state.id)
            if execution is None:
                continue
            if execution is _running_here.get():
                execution.state = state
                execution.policy = self.committer.policy
                if state.transition.alarm is not None:
                    self.leases.look_again(execution)
            else:
                execution.scope.cancel()

    def cancel(self) -> None:
        """Cancel every execution; the leases are released when the engine is left."""
        for execution in self.leases.executions:
            self.leases.abandon(execution.state, execution.policy)
            execution.scope.cancel()

    async def wait_for_commits(self, patience_s: float) -> None:
        """Wait for the outcomes of commits that are on their way, and after that many seconds no
        more: the store does not answer."""
        with anyio.move_on_after(patience_s, shield=True):
            while self._shields:
                self._answered = anyio.Event()
                await self._answered.wait()
        self._shields_commits = False
        for scope in self._shields:
            scope.shield = False

    # ------------------------------------------------------------ one execution

    async def _execute(self, execution: Execution) -> State | None:
        """Run one execution; None if it was stopped."""
        id = execution.state.id
        outer = _running_here.set(execution)
        self._by_id[id] = execution
        self.leases.begin(execution)
        try:
            with execution.scope:
                return await self._run(execution)
        finally:
            _running_here.reset(outer)
            self.leases.end(execution)
            if self._by_id.get(id) is execution:
                del self._by_id[id]
            self.ended()
        return None

    async def _run(self, execution: Execution) -> State:
        """Run the flows of an execution, until its state rests or is left to others."""
        try:
            state = await self._steps_and_races(execution)
        except BaseException as error:
            await self._raised(execution, error)
            raise
        if state is None:  # it was moved by someone else, or perhaps by the flow itself
            await self._leave_what_it_holds(execution)
            return await self._newest(execution.at)
        if state.transition.status is _RUNNING:
            return await self._leave(state, execution.policy)
        return state

    async def _steps_and_races(self, execution: Execution) -> State | None:
        """Step after step; a flow whose commit was refused because of other states is run again."""
        races = Races(execution.at)
        while True:
            try:
                return await self._steps(execution)
            except RevMismatchError as error:
                at, held = execution.at, execution.state
                if is_others_move(error, at, held):
                    return None
                if at.id in error.conflicts or not races.lose(at, error):
                    raise
                if execution.has_moved:
                    if execution.is_handed_over or held.transition.status is not _RUNNING:
                        raise
                    execution.at = held
            logger.debug("state %r: its flow lost a race and is run again", execution.at.id)
            await self._pause(races.wait_ms(self.committer.chance()))

    async def _pause(self, wait_ms: int) -> None:
        """Wait before a flow is run again, unless the engine is left meanwhile."""
        clock = self.committer.clock
        end = clock.now() + wait_ms
        with self.leaving.ends_this():
            await anyio.lowlevel.checkpoint()
            while clock.now() < end:
                await clock.wait_until(end)

    async def _steps(self, execution: Execution) -> State | None:
        """Step after step; gives the state once it rests, or RUNNING if it is to be left to other
        engines, or None if it moved in some other way. Raises what flows and commits raise."""
        committer, leaving = self.committer, self.leaving
        clock = committer.clock
        commit = self._commit_own if committer.driver.waits else committer.commit
        flows = self.flows.by_name
        state = execution.at
        steps = 0
        new: State | None
        while (flow := flows.get(state.transition.to)) is not None:
            run = flow.run  # a call of it as a method would look for one first
            command: Command = await run(state, self.context)
            move = MOVES.get(type(command))
            if move is not None:
                new = move(command, clock.now(), execution.policy)
                if new.id != state.id:
                    raise _another(state, command)
            elif type(command) is Commit:
                committed = await commit(command)
                new = committed[0]
                if len(committed) > 1 or new.id != state.id or new is state:
                    new = self._own(state, command, committed)
            else:
                new = self._do_other(execution, command)
            if new is None or new.transition.status is not _RUNNING:
                return new
            execution.at = state = new
            if type(command) is Commit and leaving.has_begun:
                return state
            steps += 1
            if steps == MAX_STEPS_WITHOUT_YIELD:
                steps = 0
                await anyio.lowlevel.checkpoint()
        logger.warning(
            "state %r is at flow %r, which is not registered here; left for an engine that has it",
            state.id,
            state.transition.to,
        )
        return state

    def _own(self, state: State, commit: Commit, committed: tuple[State, ...]) -> State | None:
        """The flow's own state out of what it committed, None if that did not move it; the other
        RUNNING ones are started."""
        own = None
        for command, other in zip(commit.commands, committed, strict=True):
            if type(command) is Require:
                continue  # given back as it was
            if other.id == state.id:
                own = other
            elif other.transition.status is _RUNNING:
                self.fork(other, self.committer.policy)
        return own

    def _do_other(self, execution: Execution, command: Any) -> State | None:
        """Do a command that moves no state, or say what is wrong with what a flow returned. Gives
        what the execution is to go on with: its own state, as a commit of its own has left it."""
        if type(command) is Execute:
            state: State = command.state
            if (state.id, state.rev) == (execution.state.id, execution.state.rev):
                return state
            check_runnable(state)
            self.fork(state, self.committer.policy)
        elif type(command) is not Noop:
            raise FlowReturnError(
                execution.at.transition.to,
                command,
                "a flow returns one command, e.g. Transit(state, 'next'), Commit(End(state)) or "
                "Noop()",
            )
        return None

    async def _commit_own(self, commit: Commit) -> tuple[State, ...]:
        return outcome(commit, await self._store(self.committer.plan(commit)))

    async def _store(self, plan: Plan) -> tuple[State, ...]:
        """The outcome of a write, whatever cancels the execution meanwhile."""
        with self._shield():
            try:
                return await self.committer.store(plan)
            except anyio.get_cancelled_exc_class():
                # asyncio's own cancellation passes every shield: ask what has become of the plan
                if self._shields_commits:
                    await self.committer.store(plan)
                raise

    @contextmanager
    def _shield(self) -> Generator[None]:
        """Nothing cancels what is inside, until leaving has waited long enough for it."""
        with anyio.CancelScope(shield=self._shields_commits) as scope:
            self._shields.add(scope)
            try:
                yield
            finally:
                self._shields.discard(scope)
                if not self._shields:
                    self._answered.set()

    # ------------------------------------------------------------ what ends it

    async def _raised(self, execution: Execution, error: BaseException) -> None:
        """A flow raised, or was cancelled: what is the flow's counts as an attempt."""
        if isinstance(error, EngineClosedError) and self.leaving.has_begun:
            # nothing went wrong: it is given back
            self.leases.abandon(execution.state, execution.policy)
        elif is_flows_own(error):
            await self._failed(execution, error)
        else:
            self.leases.abandon(execution.state, execution.policy)  # nobody runs it now

    async def _failed(self, execution: Execution, error: BaseException) -> None:
        """A flow raised: commit its retry, if the state was ever committed, and say what becomes of
        it."""
        id, flow = execution.at.id, execution.at.transition.to
        policy = execution.policy
        extra = {"flow_of": id}  # by it a program knows what it also gets as an error
        moved: State | None = None
        try:
            moved = await self._commit_failure(execution, error)
        except RevMismatchError:
            return  # someone else moved it: then there is nothing to retry
        except FlowstateError:
            logger.exception("state %r: its retry could not be committed", id)
        if moved is not None and moved.transition.cause is not Cause.GAVE_UP:
            logger.warning("state %r: flow %r raised %s", id, flow, reason(error), extra=extra)
            return
        outcome = "it is not retried" if moved is None else moved.transition.reason
        logger.error("state %r: flow %r: %s", id, flow, outcome, exc_info=error, extra=extra)
        if moved is not None and moved.transition.status is _RUNNING:
            self.fork(moved, policy)

    async def _commit_failure(self, execution: Execution, error: BaseException) -> State | None:
        """Commit what becomes of the version that the flow left; None if nothing does."""
        state = execution.state if execution.has_moved else execution.at
        is_held = state.rev and state.transition.status is _RUNNING
        if not is_held or execution.is_handed_over:
            return None
        plan = self.committer.plan_failure(state, failure_of(error), execution.policy)
        return None if plan is None else (await self._store(plan))[0]

    async def _fire_timeout(self, execution: Execution) -> State | None:
        """Commit that the timeout of what was stopped has come, and give the state; None if
        somebody else was first, who goes on with it."""
        state = execution.state
        timeout = execution.timeout
        assert timeout is not None  # noqa: S101  (it is why it was stopped)
        if timeout.at > self.committer.clock.now():
            return state  # the clock was wrong for a moment: its time is still to come
        firing = self.committer.plan_firing(Due(state, timeout.at, execution.policy))
        if firing is None:
            return state
        try:
            return (await self._store(firing))[0]
        except RevMismatchError:
            return None
        except FlowstateError:
            logger.warning("state %r: its timeout could not be fired", state.id, exc_info=True)
            raise

    async def _leave(self, state: State, policy: RetryPolicy) -> State:
        """Leave a RUNNING state to other engines: its lease is released, when this engine is left
        or else at once. One that came to its flow in memory is committed first."""
        if self.leaving.has_begun:
            self.leases.abandon(state, policy)
            return state
        try:
            with self._shield():
                return await self._store_and_release(state, policy)
        except FlowstateError:
            logger.warning("state %r could not be left to others", state.id, exc_info=True)
            return state

    async def _store_and_release(self, state: State, policy: RetryPolicy) -> State:
        stored = await self.committer.driver.get(state.id)
        if stored is not None and stored.rev != state.rev:
            return stored
        if stored != state:
            try:
                (state,) = await self._store(self.committer.plan_state(state, policy))
            except RevMismatchError:
                return await self._newest(state)
        await self.leases.release(state, policy)
        return state

    async def _leave_what_it_holds(self, execution: Execution) -> None:
        """A flow that moved its own state and neither goes on with it nor has it run elsewhere
        here leaves it to others."""
        held = execution.state
        is_running = held.transition.status is _RUNNING
        if execution.has_moved and is_running and not execution.is_handed_over:
            await self._leave(held, execution.policy)

    async def _newest(self, state: State) -> State:
        return await self.committer.driver.get(state.id) or state


def check_runnable(state: State) -> None:
    """Raise unless the state may be run: ``IllegalTransitionError``, ``InvalidValueError``."""
    status = state.transition.status
    if Execute not in TRANSITIONS[status]:
        check_legal(Execute(state))
    if state.id.startswith(KERNEL_PREFIX):
        raise InvalidValueError(
            f"state {state.id!r}", "is one of the kernel's own: no flow runs it"
        )
    if status is Status.NEW:
        raise InvalidValueError(
            f"state {state.id!r}", "is at no flow yet: do Transit(state, 'first') before running it"
        )


def _moves(commit: Commit, id: str) -> bool:
    """Whether a commit moves that state."""
    commands: tuple[Any, ...] = commit.commands
    return any(type(command) in MOVES and command.state.id == id for command in commands)


def _another(state: State, command: Any) -> FlowReturnError:
    return FlowReturnError(
        state.transition.to,
        command,
        f"it moves state {command.state.id!r} in memory only, but the flow was run for "
        f"{state.id!r}; move other states in a Commit",
    )
