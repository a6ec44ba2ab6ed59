"""Running in the background: so many states at a time, and leaving in good order.

A flow that makes states RUNNING never waits for a place: were all places held by executions that
wait for one, nothing would ever move again. What finds no place is in line, in the store, where any
process may take it; this one does as soon as it has room.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import anyio
import anyio.abc
from attrs import define, field

from .clock import milliseconds, pause
from .commands import Commit
from .committer import Committer
from .errors import EngineClosedError
from .executions import (
    PAUSE_AFTER_ERROR_MS,
    Execution,
    check_not_held,
    forget_flow,
    runs_flow,
)
from .executor import Executor, check_runnable
from .failures import is_flows_own
from .flows import Flows
from .holds import Holds
from .leases import Claimed
from .plan import CommitKey
from .query import Unreadable
from .room import Room
from .state import State, Status

logger = logging.getLogger("flowstate")

Ended: TypeAlias = Callable[[State | None], None]
"""Called once an execution is over, with what was committed because its flow raised, if it did."""

COMMIT_TIMEOUT_S = 5.0
"""How long writes that are on their way are waited for once the grace period is over."""
MAX_LOOKED = 1_000
"""States of this engine's own line that are looked through for some that there is room for."""
MAX_TAKEN = 100
"""States of this engine's own line that are taken in one call."""


@define(eq=False)
class Background:
    """The tasks of one engine. Open on one event loop.

    ``context`` is what a flow is given beside its state. ``places`` is how many states may run in
    the background at a time.
    """

    committer: Committer
    flows: Flows
    context: Any
    places: int
    executor: Executor = field(init=False)
    room: Room = field(init=False)
    _tasks: anyio.abc.TaskGroup = field(init=False)
    _line: deque[State] = field(factory=deque[State], init=False)
    """What this engine has put in line, and is to take itself once there is room."""
    _serves_line: bool = field(default=False, init=False)
    _holds: Holds = field(init=False)
    _knows_holds: bool = field(default=False, init=False)
    _idle: anyio.Event | None = field(default=None, init=False)
    """Set once nothing runs; there is one only while somebody waits for that."""

    async def open(self) -> None:
        self.room = Room(self.places, self.flows.limits)
        self.executor = Executor(
            self.committer,
            self.flows,
            self.room,
            self.context,
            begin=self.begin,
            line_up=self.line_up,
            ended=self._tell_if_idle,
        )
        self._holds = Holds(self.committer)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.executor.keeper.run)

    async def close(self, grace: float) -> None:
        """Take no more work, let what runs finish for *grace* seconds, cancel the rest, and give
        back what was left RUNNING."""
        executor = self.executor
        executor.leaving.begin()
        self._line.clear()  # it is in line for everybody
        try:
            await self._grace(grace)
        finally:
            executor.cancel()
            self._tasks.cancel_scope.cancel()
            await executor.writes.wait(COMMIT_TIMEOUT_S)
            try:
                await self._tasks.__aexit__(None, None, None)
            finally:
                await executor.keeper.release_abandoned()
                executor.close()

    # ------------------------------------------------------------ beginning

    async def start(self, state: State) -> None:
        """Run a state when there is a place; waits for that, unless a flow asks. What somebody else
        has is left to them."""
        check_runnable(state)
        check_not_held(state.id)
        flow = state.transition.to
        if state.transition.status is not Status.RUNNING:
            return
        if flow not in self.flows:
            if not state.rev or await self.executor.claims.rests_where_it_was(state):
                await self.executor.claims.hand_on(state)
            return
        if runs_flow():
            self.line_up(state)
            return
        await self._place()
        self.room.give_back("")
        if self.room.take(flow):
            await self._take([state])
        else:
            self.line_up(state)

    async def start_commit(self, commit: Commit, key: CommitKey | None = None) -> None:
        """Commit, and run in the background what it leaves RUNNING; the first state as ``start``
        does."""
        has_place = self.room.take("") if runs_flow() else await self._place()
        execution = None
        try:
            _, execution = await self.executor.begin_commit(commit, key, takes_first=has_place)
        finally:
            if has_place and execution is None:
                self.room.give_back("")
                self._tell_if_idle()
        if execution is not None:
            self.begin(execution)

    async def go_on(self, committed: tuple[State, ...]) -> None:
        """Run the first state of what was committed before from its newest version on."""
        newest = await self.executor.claims.newest(committed[0])
        if newest.transition.status is Status.RUNNING:
            await self.start(newest)

    def begin(self, execution: Execution, ended: Ended | None = None) -> None:
        """Run what was taken and has a place. The keeper minds it from now on: were it to do so
        only once its task runs, it could take it for something that nobody runs."""
        self.executor.keeper.begin(execution)
        self._tasks.start_soon(self._work, execution, ended)

    async def claim(self, room: Mapping[str, int], limit: int, ended: Ended) -> int:
        """Take what is ready, *limit* states at most, and run it; gives how many states that are.
        *ended* is called at the end of each.

        The places are reserved before: what is claimed can begin. Which flows are held is read at
        the same time, the first time before; what was taken although it is held is given back.
        """
        if not self._knows_holds:
            self.room.hold(await self._holds.read())
            self._knows_holds = True
        committer, claim = self.committer, self.committer.new_id()
        reserved, places = self.room.reserve(room, limit)
        asked_at = 0
        given: tuple[Claimed, ...] = ()
        begun: list[Claimed] = []

        def ask() -> Awaitable[tuple[Claimed | Unreadable, ...]]:
            nonlocal asked_at
            asked_at = committer.clock.now()  # no earlier: the lease begins with it
            return committer.driver.claim(reserved, places, committer.owner, claim, asked_at)

        holds_read = anyio.Event()
        self._tasks.start_soon(self._read_holds, holds_read)
        with self.executor.writes.shield():  # until it is run, it is not to seem astray
            try:
                if places and reserved:
                    given = await self.executor.writes.claim(claim, ask)
                await holds_read.wait()
            finally:
                begun = [each for each in given if each.state.transition.to not in self.room.held]
                self.room.settle(reserved, places, [each.state.transition.to for each in begun])
                self._tell_if_idle()
                for each in begun:
                    state, flow = each.state, each.state.transition.to
                    execution = Execution(
                        state, state, claim, each.policy, flow, renewed_at=asked_at
                    )
                    self.begin(execution, ended)
            if len(begun) < len(given):
                ids = {each.state.id for each in begun}
                states = [each.state for each in given if each.state.id not in ids]
                await self.executor.keeper.release(
                    [(state.id, state.rev, claim) for state in states]
                )
        return len(begun)

    async def _read_holds(self, read: anyio.Event) -> None:
        try:
            self.room.hold(await self._holds.read())
        except Exception:
            logger.warning(
                "the flows that are held could not be read; those known before count",
                exc_info=True,
            )
        finally:
            read.set()

    def line_up(self, state: State) -> None:
        """Run a state once there is a place for it, if nobody else has taken it by then."""
        if self.executor.leaving.has_begun:
            return  # it is in line for everybody
        self._line.append(state)
        if not self._serves_line:
            self._serves_line = True
            self._tasks.start_soon(self._serve_line)

    async def idle(self) -> None:
        """Return once nothing is running and nothing of this engine's own waits for a place."""
        while not self._is_idle():
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    # ------------------------------------------------------------ inside

    async def _place(self) -> bool:
        """Wait for a place, and reserve it. Raises ``EngineClosedError`` once the engine is being
        left."""
        self.executor.check_takes_work()
        while not self.room.take(""):
            await self.room.freed()
            self.executor.check_takes_work()
        return True

    async def _serve_line(self) -> None:
        """Take what is in this engine's line as places come free, until it is empty."""
        forget_flow()
        clock = self.committer.clock
        try:
            while self._line:
                states = self._with_room()
                try:
                    if states:
                        await self._take(states)
                    else:
                        await self.room.freed()
                except Exception:
                    logger.warning("states could not be taken; trying again", exc_info=True)
                    self._line.extendleft(reversed(states))
                    await clock.wait_until(clock.now() + PAUSE_AFTER_ERROR_MS)
        finally:
            self._serves_line = False
            self._tell_if_idle()

    def _with_room(self) -> list[State]:
        """The next of this engine's line that there are places for, which are reserved."""
        states: list[State] = []
        waiting: list[State] = []
        while self._line and len(waiting) < MAX_LOOKED and len(states) < MAX_TAKEN:
            state = self._line.popleft()
            (states if self.room.take(state.transition.to) else waiting).append(state)
        self._line.extendleft(reversed(waiting))
        return states

    async def _take(self, states: list[State]) -> None:
        """Run those of these states that nobody else has, in places that are reserved for them."""
        begun: set[str] = set()
        try:
            for execution in await self.executor.claims.take(states):
                begun.add(execution.given.id)
                self.begin(execution)
        finally:
            for state in states:
                if state.id not in begun:
                    self.room.give_back(state.transition.to)
            self._tell_if_idle()

    async def _work(self, execution: Execution, ended: Ended | None) -> None:
        """Run an execution for nobody who waits for it. What came out of its flow was logged, and
        what follows from it was committed, so it is not raised, whatever it is."""
        forget_flow()
        try:
            if self.executor.leaving.has_begun:
                self.executor.abandon(execution)
                self.executor.keeper.end(execution)
            else:
                await self.executor.run(execution)
        except EngineClosedError:
            pass  # left for another engine
        except BaseException as error:
            if not is_flows_own(error):
                raise
        finally:
            if ended is not None:
                ended(execution.failed)
            self.room.give_back(execution.flow)
            self._tell_if_idle()

    async def _grace(self, grace: float) -> None:
        """Wait until nothing runs, for so many seconds at most."""
        clock = self.committer.clock

        async def give_up(scope: anyio.CancelScope) -> None:
            await pause(clock, milliseconds(grace))
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up, tasks.cancel_scope)
            await self.idle()
            tasks.cancel_scope.cancel()

    def _is_idle(self) -> bool:
        return not self.executor.keeper.executions and self.room.is_empty and not self._line

    def _tell_if_idle(self) -> None:
        if self._idle is not None and self._is_idle():
            self._idle.set()
            self._idle = None
