"""Running a state: the loop that every transition goes through.

It calls the flow that the state is at, does the command that the flow returns, and goes on while
the state is RUNNING. It logs nothing below WARNING, copies nothing and takes no lock. What runs in
the background, and how much of it at a time, is ``background.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define, field

from .commands import Commit, Execute, Noop, Require
from .committer import Committer
from .errors import (
    EngineClosedError,
    FlowReturnError,
    FlowstateError,
    InvalidValueError,
    RevMismatchError,
)
from .flows import Flows
from .leases import Execution, LeaseKeeper
from .state import State, Status
from .transitions import MOVES, TRANSITIONS, check_legal

logger = logging.getLogger("flowstate")

_RUNNING = Status.RUNNING  # Python 3.11 takes as long to find a member of an enum as to call

MAX_STEPS_WITHOUT_YIELD = 250
"""Transitions that one execution does before other tasks get a turn."""
MAX_REASON = 1_000
"""Characters of an error that are kept as a reason."""

_running_here: ContextVar[Execution | None] = ContextVar("flowstate.execution", default=None)
"""The execution whose flow the present task runs. It decides three things: what a flow starts does
not wait for a slot (``Background.start``), an engine that is being left still does what its flows
ask for (``Executor.check_takes_work``), and a flow that moves its own state is not cancelled for it
(``Executor.committed``)."""


def runs_flow() -> bool:
    """Whether the present task runs a flow."""
    return _running_here.get() is not None


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
    fork: Callable[[State], None]
    ended: Callable[[], None]
    """Called after each execution."""
    leases: LeaseKeeper = field(init=False)
    is_closing: bool = field(default=False, init=False)
    _by_id: dict[str, Execution] = field(factory=dict[str, Execution], init=False)

    def __attrs_post_init__(self) -> None:
        committer = self.committer
        self.leases = LeaseKeeper(committer.driver.renew, committer.clock, committer.policy)
        committer.listeners.append(self.committed)

    def check_takes_work(self) -> None:
        """Raise ``EngineClosedError`` if the engine is being left, unless a flow asks."""
        if self.is_closing and _running_here.get() is None:
            raise EngineClosedError("the engine is closing and takes no new work")

    async def execute(self, state: State) -> State:
        """Run a state here and now, until it rests, and give it as it is then."""
        check_runnable(state)
        self.check_takes_work()
        if state.transition.status is not _RUNNING:
            return state
        execution = Execution(state, state)
        outer = _running_here.set(execution)
        self._by_id[state.id] = execution
        self.leases.begin(execution)
        try:
            with execution.scope:
                return await self._run(execution)
        except BaseException as error:
            if not isinstance(error, Exception):  # cancelled from outside: nobody runs it now
                self.leases.abandon(execution.state)
            raise
        finally:
            _running_here.reset(outer)
            self.leases.end(execution)
            if self._by_id.get(state.id) is execution:
                del self._by_id[state.id]
            self.ended()
        # the scope was cancelled: the state was moved by someone else, or time was up
        if self.is_closing:
            raise EngineClosedError(f"the engine was left before state {state.id!r} came to rest")
        return await self._newest(state)

    def executing(self) -> list[State]:
        """What runs now, as it was last committed, in the order in which it began."""
        return [execution.state for execution in self.leases.executions if execution.state.rev]

    def committed(self, states: tuple[State, ...]) -> None:
        """Cancel the executions of states that somebody else has committed."""
        by_id = self._by_id
        if not by_id:
            return
        for state in states:
            execution = by_id.get(state.id)
            if execution is not None and execution is not _running_here.get():
                execution.scope.cancel()

    def cancel(self) -> None:
        """Cancel every execution; the leases are released when the engine is left."""
        for execution in self.leases.executions:
            self.leases.abandon(execution.state)
            execution.scope.cancel()

    # ------------------------------------------------------------ one execution

    async def _run(self, execution: Execution) -> State:
        try:
            state = await self._steps(execution)
        except RevMismatchError as error:
            if execution.at.id not in error.conflicts:
                await self._failed(execution.at, error)
                raise
            state = None
        except Exception as error:
            await self._failed(execution.at, error)
            raise
        if state is None:  # it was moved by someone else, or perhaps by the flow itself
            return await self._newest(execution.at)
        if state.transition.status is _RUNNING:
            await self._leave(state)
        return state

    async def _steps(self, execution: Execution) -> State | None:
        """Step after step; gives the state once it rests, or RUNNING if it is to be left to other
        engines, or None if it moved in some other way. Raises what flows and commits raise."""
        committer = self.committer
        clock = committer.clock
        runs = self.flows.runs
        state = execution.state
        steps = 0
        new: State | None
        while (run := runs.get(state.transition.to)) is not None:
            command = await run(state, self.context)
            move = MOVES.get(type(command))
            if move is not None:
                new = move(command, clock.now())
                if new.id != state.id:
                    raise _another(state, command)
            elif type(command) is Commit:
                committed = await committer.commit(command)
                new = committed[0]
                if len(committed) > 1 or new.id != state.id or new is state:
                    new = self._own(state, command, committed)
            else:
                self._do_other(state, command)
                new = None
            if new is None or new.transition.status is not _RUNNING:
                return new
            execution.at = state = new
            if type(command) is Commit:
                execution.state = state
                if self.is_closing:
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
                self.fork(other)
        return own

    def _do_other(self, state: State, command: Any) -> None:
        """Do a command that moves no state, or say what is wrong with what a flow returned."""
        if type(command) is Execute:
            check_runnable(command.state)
            self.fork(command.state)
        elif type(command) is not Noop:
            raise FlowReturnError(
                state.transition.to,
                command,
                "a flow returns one command, e.g. Transit(state, 'next'), Commit(End(state)) or "
                "Noop()",
            )

    async def _failed(self, state: State, error: Exception) -> None:
        """A flow raised: commit its retry, if the state was ever committed."""
        if not state.rev:
            return
        try:
            await self.committer.commit_retry(state, reason(error))
        except RevMismatchError:
            pass  # someone else moved it: then there is nothing to retry
        except FlowstateError:
            logger.exception("state %r: its retry could not be committed", state.id)

    async def _leave(self, state: State) -> None:
        """Leave a RUNNING state to other engines: its lease is released, when this engine is left
        or else at once. Not if it came to its flow in memory only: what is stored can be run here.
        """
        if self.is_closing:
            self.leases.abandon(state)
            return
        stored = await self._newest(state)
        if (stored.rev, stored.transition) == (state.rev, state.transition):
            await self.leases.release(state)

    async def _newest(self, state: State) -> State:
        return await self.committer.driver.get(state.id) or state


def check_runnable(state: State) -> None:
    """Raise unless the state may be run: ``IllegalTransitionError``, ``InvalidValueError``."""
    status = state.transition.status
    if Execute not in TRANSITIONS[status]:
        check_legal(Execute(state))
    if status is Status.NEW:
        raise InvalidValueError(
            f"state {state.id!r}", "is at no flow yet: do Transit(state, 'first') before running it"
        )


def reason(error: Exception) -> str:
    """An error as it is kept in a transition: text that every store can keep, cut to length."""
    text = f"{type(error).__name__}: {error}"
    # what no store could keep may well be in an error, e.g. in the name of a file
    text = text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def _another(state: State, command: Any) -> FlowReturnError:
    return FlowReturnError(
        state.transition.to,
        command,
        f"it moves state {command.state.id!r} in memory only, but the flow was run for "
        f"{state.id!r}; move other states in a Commit",
    )
