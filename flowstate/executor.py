"""Running flows: the loop that every transition goes through, in the foreground and background.

The loop calls the flow that a state is at, does the command that it returns, and goes on while
the state is RUNNING. It logs nothing below WARNING, copies nothing and takes no lock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.lowlevel
from attrs import define, field

from .clock import milliseconds
from .commands import Commit, Execute, Noop, Require
from .driver import RELEASED
from .errors import (
    EngineClosedError,
    FlowReturnError,
    FlowstateError,
    InvalidValueError,
    RevMismatchError,
)
from .leases import Execution, LeaseKeeper
from .state import State, Status
from .transitions import MOVES, check_legal

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("flowstate")

_RUNNING = Status.RUNNING  # Python 3.11 takes as long to find a member of an enum as to call

MAX_STEPS_WITHOUT_YIELD = 250
"""Transitions that one execution does before other tasks get a turn."""
RELEASE_TIMEOUT_S = 5.0
"""How long giving up leases may take when the engine is left."""


_current: ContextVar[Execution | None] = ContextVar("flowstate.execution", default=None)


@define(eq=False)
class Executor:
    """The executions of one engine."""

    engine: Engine
    max_background: int
    _tasks: anyio.abc.TaskGroup = field(init=False)
    _leases: LeaseKeeper = field(init=False)
    _slots: anyio.Semaphore = field(init=False)
    _backlog: deque[State] = field(factory=deque[State], init=False)
    """Forks that wait for a slot. An execution never waits for one itself: were all slots held by
    executions that wait for a slot, nothing would ever move again."""
    _active: dict[Execution, None] = field(factory=dict[Execution, None], init=False)
    """A dictionary, because it keeps them in order."""
    _by_id: dict[str, Execution] = field(factory=dict[str, Execution], init=False)
    _closing: bool = field(default=False, init=False)
    _quiet: anyio.Event | None = field(default=None, init=False)
    """Set once nothing is running; there is one only while somebody waits for that."""
    _unfinished: dict[str, int] = field(factory=dict[str, int], init=False)
    """id -> revision of what was left RUNNING because the engine is closing."""

    async def open(self) -> None:
        self._tasks = anyio.create_task_group()
        self._slots = anyio.Semaphore(self.max_background)
        self._leases = LeaseKeeper(self.engine, self._active)
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._leases.run)

    async def close(self, grace: float) -> None:
        """Let executions finish for *grace* seconds, cancel what is left, give up the leases."""
        self._closing = True
        while self._backlog:
            self._leave(self._backlog.popleft())
        try:
            await self._grace(grace)
        finally:
            for execution in self._active:
                self._leave(execution.state)
                execution.scope.cancel()
            self._tasks.cancel_scope.cancel()
            try:
                await self._tasks.__aexit__(None, None, None)
            finally:
                await self._release()

    async def _grace(self, grace: float) -> None:
        """Wait until nothing runs, for so many seconds at most."""
        clock = self.engine.clock

        async def give_up(scope: anyio.CancelScope) -> None:
            end = clock.now() + milliseconds(grace)
            while clock.now() < end:
                await clock.wait_until(end)
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up, tasks.cancel_scope)
            await self.idle()
            tasks.cancel_scope.cancel()

    async def start(self, state: State) -> None:
        """Run a state in the background, when a slot is free."""
        _check_runnable(state)
        if _current.get() is not None:
            self._fork(state)
        elif self._closing:
            raise EngineClosedError("the engine is closing and takes no new work")
        else:
            await self._slots.acquire()
            if self._closing:  # it was closed while this waited
                self._slots.release()
                raise EngineClosedError("the engine is closing and takes no new work")
            self._tasks.start_soon(self._work, state)

    async def execute(self, state: State) -> State:
        """Run a state here and now, until it rests."""
        _check_runnable(state)
        if self._closing and _current.get() is None:
            raise EngineClosedError("the engine is closing and takes no new work")
        if state.transition.status is not Status.RUNNING:
            return state
        if self._unfinished:
            self._unfinished.pop(state.id, None)
        execution = Execution(state)
        outer = _current.set(execution)
        self._active[execution] = None
        self._by_id[state.id] = execution
        self._leases.watch(execution)
        try:
            with execution.scope:
                return await self._run(execution)
        except BaseException as error:
            if not isinstance(error, Exception):  # cancelled from outside: nobody runs it now
                self._leave(execution.state)
            raise
        finally:
            _current.reset(outer)
            del self._active[execution]
            if self._by_id.get(state.id) is execution:
                del self._by_id[state.id]
            self._tell_if_quiet()
        # the scope was cancelled: the state was moved by someone else, or time was up
        if self._closing:
            raise EngineClosedError(f"the engine was left before state {state.id!r} came to rest")
        return await self._newest(state)

    def executing(self) -> list[State]:
        """What runs now, as it was last committed, in the order in which it began."""
        return [execution.state for execution in self._active if execution.state.rev]

    async def idle(self) -> None:
        """Return once nothing is running and nothing waits for a slot."""
        while self._active or self._slots.value < self.max_background:
            if self._quiet is None:
                self._quiet = anyio.Event()
            await self._quiet.wait()

    def moved(self, states: tuple[State, ...]) -> None:
        """Cancel the executions of states that somebody else has committed."""
        by_id = self._by_id
        if not by_id:
            return
        for state in states:
            execution = by_id.get(state.id)
            if execution is not None and execution is not _current.get():
                execution.scope.cancel()

    # ------------------------------------------------------------ inside

    async def _run(self, execution: Execution) -> State:  # noqa: C901, PLR0912  (one loop: it is hot)
        engine = self.engine
        runs = engine.flows.runs
        state = execution.state
        steps = 0
        new: State | None
        while True:
            run = runs.get(state.transition.to)
            if run is None:
                logger.warning(
                    "state %r is at flow %r, which is not registered here; left for an engine "
                    "that has it", state.id, state.transition.to,
                )  # fmt: skip
                await self._hand_over(state)
                return state
            try:
                command = await run(state, engine)
                move = MOVES.get(type(command))
                if move is not None:
                    new = move(command, engine.clock.now())
                    if new.id != state.id:
                        raise _another(state, command)  # noqa: TRY301  (as if the flow had)
                elif type(command) is Commit:
                    committed = await engine.commit(command)
                    new = committed[0]
                    if len(committed) > 1 or new.id != state.id or new is state:
                        new = self._own(state, command, committed)
                else:
                    await self._do_other(state, command)
                    new = None
            except RevMismatchError as error:
                if state.id in error.conflicts:
                    return await self._newest(state)
                await self._failed(state, error)
                raise
            except Exception as error:
                await self._failed(state, error)
                raise
            if new is None:  # perhaps the flow itself moved it
                return await self._newest(state)
            state = new
            if state.transition.status is not _RUNNING:
                return state
            if type(command) is Commit:
                if self._closing:
                    self._leave(state)
                    return state
                execution.state = state
            steps += 1
            if steps == MAX_STEPS_WITHOUT_YIELD:
                steps = 0
                await anyio.lowlevel.checkpoint()

    def _own(self, state: State, commit: Commit, committed: tuple[State, ...]) -> State | None:
        """The flow's own state out of what it committed, None if that did not move it; the other
        RUNNING ones are started."""
        own = None
        for command, other in zip(commit.commands, committed, strict=True):
            if type(command) is Require:
                continue  # given back as it was
            if other.id == state.id:
                own = other
            elif other.transition.status is Status.RUNNING:
                self._fork(other)
        return own

    async def _do_other(self, state: State, command: Any) -> None:
        """Do a command that moves no state, or say what is wrong with what a flow returned."""
        if type(command) is Execute:
            await self.start(command.state)
        elif type(command) is not Noop:
            raise FlowReturnError(
                state.transition.to,
                command,
                "a flow returns one command, e.g. Transit(state, 'next'), Commit(End(state)) or "
                "Noop()",
            )

    def _fork(self, state: State) -> None:
        if self._closing:
            self._leave(state)
            return
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            self._backlog.append(state)
        else:
            self._tasks.start_soon(self._work, state)

    async def _work(self, state: State) -> None:
        """A slot in the background: runs one state, then what waits for a slot."""
        _current.set(None)  # a task begins with the context of whoever started it
        try:
            await self._work_off(state)
        finally:
            self._slots.release()
            self._tell_if_quiet()

    async def _work_off(self, state: State) -> None:
        runs = 0
        while True:
            if self._closing:
                self._leave(state)
            else:
                try:
                    await self.execute(state)
                except EngineClosedError:
                    pass  # left for another engine; its lease is given up
                except Exception:
                    logger.exception(
                        "state %r failed in the background, in flow %r",
                        state.id,
                        state.transition.to,
                    )
            runs += 1
            if runs == MAX_STEPS_WITHOUT_YIELD:
                runs = 0
                await anyio.lowlevel.checkpoint()
            if not self._backlog:
                return
            state = self._backlog.popleft()

    def _tell_if_quiet(self) -> None:
        if (
            self._quiet is not None
            and not self._active
            and self._slots.value == self.max_background
        ):
            self._quiet.set()
            self._quiet = None

    async def _failed(self, state: State, error: Exception) -> None:
        """A flow raised: commit its retry, if the state was ever committed."""
        if not state.rev:
            return
        try:
            await self.engine.commit_retry(state, _told(error))
        except RevMismatchError:
            pass  # someone else moved it: then there is nothing to retry
        except FlowstateError:
            logger.exception("state %r: its retry could not be committed", state.id)

    async def _newest(self, state: State) -> State:
        return await self.engine.driver.get(state.id) or state

    async def _hand_over(self, state: State) -> None:
        """Give up the lease of a state that cannot be run here, so that another engine goes on
        with it at once. Not if it came here in memory only: what is stored can be run here."""
        stored = await self._newest(state)
        is_stored = (stored.rev, stored.transition) == (state.rev, state.transition)
        if not is_stored or not self._is_leased(state):
            return
        try:
            await self._give_up([(state.id, state.rev)])
        except FlowstateError:
            logger.warning("state %r: its lease could not be given up", state.id, exc_info=True)

    def _leave(self, state: State) -> None:
        if self._is_leased(state):
            self._unfinished[state.id] = state.rev

    def _is_leased(self, state: State) -> bool:
        """A state that is never retried has no lease, and a timeout is not its executor's."""
        return state.rev > 0 and (state.retry or self.engine.retry).enabled

    async def _give_up(self, leases: Collection[tuple[str, int]]) -> None:
        await self.engine.driver.renew(leases, self.engine.clock.now() - RELEASED)

    async def _release(self) -> None:
        """Give up the leases of what was left RUNNING."""
        if not self._unfinished:
            return
        with anyio.move_on_after(RELEASE_TIMEOUT_S, shield=True):
            try:
                await self._give_up(self._unfinished.items())
            except FlowstateError:
                logger.warning("leases could not be given up; they will run out", exc_info=True)


def _check_runnable(state: State) -> None:
    check_legal(Execute(state))
    if state.transition.status is Status.NEW:
        raise InvalidValueError(
            f"state {state.id!r}", "is at no flow yet: do Transit(state, 'first') before running it"
        )


def _another(state: State, command: Any) -> FlowReturnError:
    return FlowReturnError(
        state.transition.to,
        command,
        f"it moves state {command.state.id!r} in memory only, but the flow was run for "
        f"{state.id!r}; move other states in a Commit",
    )


def _told(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    # what no store could keep may well be in an error, e.g. in the name of a file
    text = text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


MAX_REASON = 1_000
"""Characters of an error that are kept as a reason."""
