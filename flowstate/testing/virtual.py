"""A clock that tests move: a day of retries runs in a second, and always in the same way."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import anyio.lowlevel
from attrs import define, field

from ..leases import NEVER

START_MS = 1_700_000_000_000
"""Where a virtual clock begins: in November 2023."""


@define(eq=False)
class VirtualClock:
    """Time stands still until it is moved, by ``advance`` or by ``running``."""

    _now: int = START_MS
    _sleepers: list[tuple[int, int, anyio.Event]] = field(factory=list, init=False)
    _order: count[int] = field(factory=count, init=False)

    def now(self) -> int:
        return self._now

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        if instant <= self._now:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event() if event is None else event
        entry = (instant, next(self._order), woken)
        heapq.heappush(self._sleepers, entry)
        try:
            await woken.wait()
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time on, waking every sleeper at its instant, in order."""
        end = self._now + round(seconds * 1000)
        await anyio.wait_all_tasks_blocked()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._step()
            await anyio.wait_all_tasks_blocked()
        self._now = end

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Move on by itself whenever every task waits, to the next instant that one waits for."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            yield
            tasks.cancel_scope.cancel()

    async def _run(self) -> None:
        while True:
            await anyio.wait_all_tasks_blocked()
            if self._sleepers and self._sleepers[0][0] < NEVER:
                self._step()
            else:
                await anyio.sleep(0.001)  # nobody waits for time: for a thread or a process, then

    def _step(self) -> None:
        instant, _, woken = heapq.heappop(self._sleepers)
        self._now = max(self._now, instant)
        woken.set()
