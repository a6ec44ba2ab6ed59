"""Running in the background: so many states at a time, and leaving in good order.

A slot runs one state, then what waits for a slot. A flow that makes states RUNNING never waits for
one itself: were all slots held by executions that wait for a slot, nothing would ever move again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
from attrs import define, field

from .clock import milliseconds
from .committer import Committer
from .errors import EngineClosedError
from .executor import (
    MAX_STEPS_WITHOUT_YIELD,
    Executor,
    check_runnable,
    forget_flow,
    hand_over,
    runs_flow,
)
from .flows import Flows
from .state import RetryPolicy, State

COMMIT_TIMEOUT_S = 5.0
"""How long commits that are on their way are waited for once the grace period is over."""


@define(eq=False)
class Background:
    """The tasks of one engine. Open on one event loop.

    ``context`` is what a flow is given beside its state. ``slots`` is how many states may run in
    the background at a time.
    """

    committer: Committer
    flows: Flows
    context: Any
    slots: int
    executor: Executor = field(init=False)
    _tasks: anyio.abc.TaskGroup = field(init=False)
    _free: anyio.Semaphore = field(init=False)
    """Its value is the number of free slots."""
    _backlog: deque[tuple[State, RetryPolicy]] = field(
        factory=deque[tuple[State, RetryPolicy]], init=False
    )
    """What waits for a slot, with the policy of the engine that committed it."""
    _idle: anyio.Event | None = field(default=None, init=False)
    """Set once nothing runs; there is one only while somebody waits for that."""

    async def open(self) -> None:
        self._free = anyio.Semaphore(self.slots)
        self.executor = Executor(
            self.committer, self.flows, self.context, fork=self.fork, ended=self._tell_if_idle
        )
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.executor.leases.run)

    async def close(self, grace: float) -> None:
        """Take no more work, let what runs finish for *grace* seconds, cancel the rest, and release
        the leases of what was left RUNNING."""
        executor = self.executor
        executor.leaving.begin()
        while self._backlog:
            executor.leases.abandon(*self._backlog.popleft())
        try:
            await self._grace(grace)
        finally:
            executor.cancel()
            self._tasks.cancel_scope.cancel()
            await executor.wait_for_commits(COMMIT_TIMEOUT_S)
            try:
                await self._tasks.__aexit__(None, None, None)
            finally:
                await executor.leases.release_abandoned()
                executor.close()

    async def start(self, state: State) -> None:
        """Run a state when a slot is free; waits for that, unless a flow asks."""
        check_runnable(state)
        if runs_flow():
            hand_over(state)
            self.fork(state, self.committer.policy)
            return
        self.executor.check_takes_work()
        await self._free.acquire()
        try:
            self.executor.check_takes_work()  # it may have been closed while this waited
        except EngineClosedError:
            self._free.release()
            raise
        self._tasks.start_soon(self._work, state, self.committer.policy)

    def fork(self, state: State, policy: RetryPolicy) -> None:
        """Run a state when a slot is free, and do not wait for that. *policy* is that of the engine
        which committed it."""
        if self.executor.leaving.has_begun:
            self.executor.leases.abandon(state, policy)
            return
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            self._backlog.append((state, policy))
        else:
            self._tasks.start_soon(self._work, state, policy)

    async def idle(self) -> None:
        """Return once nothing is running and nothing waits for a slot."""
        while not self._is_idle():
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    # ------------------------------------------------------------ inside

    async def _grace(self, grace: float) -> None:
        """Wait until nothing runs, for so many seconds at most."""
        clock = self.committer.clock

        async def give_up(scope: anyio.CancelScope) -> None:
            end = clock.now() + milliseconds(grace)
            while clock.now() < end:
                await clock.wait_until(end)
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up, tasks.cancel_scope)
            await self.idle()
            tasks.cancel_scope.cancel()

    async def _work(self, state: State, policy: RetryPolicy) -> None:
        """A slot: runs one state, then what waits for a slot."""
        forget_flow()
        try:
            await self._work_off(state, policy)
        finally:
            self._free.release()
            self._tell_if_idle()

    async def _work_off(self, state: State, policy: RetryPolicy) -> None:
        runs = 0
        while True:
            await self._run(state, policy)
            runs += 1
            if runs == MAX_STEPS_WITHOUT_YIELD:
                runs = 0
                await anyio.lowlevel.checkpoint()
            if not self._backlog:
                return
            state, policy = self._backlog.popleft()

    async def _run(self, state: State, policy: RetryPolicy) -> None:
        if self.executor.leaving.has_begun:
            self.executor.leases.abandon(state, policy)
            return
        await self.executor.run(state, policy)

    def _is_idle(self) -> bool:
        return not self.executor.leases.executions and self._free.value == self.slots

    def _tell_if_idle(self) -> None:
        if self._idle is not None and self._is_idle():
            self._idle.set()
            self._idle = None
