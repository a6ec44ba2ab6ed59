"""A clock that tests move: a day of retries takes a second, and always goes the same way.

Give it to everything that takes a clock, the driver included::

    clock = VirtualClock()
    async with clock.running(), MemoryDriver(clock=clock) as driver, Engine(driver, clock=clock):
        ...

Time moves only while every task waits. A thread is no task: what works in threads says so, so that
no time goes by meanwhile. Put a driver such as SQLite into a ``TimedDriver``, and tell the clock of
other threads: ``clock.stand_still_while(lambda: engine.threads.borrowed_tokens > 0)`` for plain
``def`` flows.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
from attrs import define, field

from ..clock import MAX_INSTANT_MS
from .wrapper import WrapperDriver

R = TypeVar("R")

START_MS = 1_700_000_000_000
"""Where a virtual clock begins: in November 2023."""
POLL_S = 0.0005
"""Seconds of real time between two looks at threads and processes, which do not say when they are
done."""

_Sleeper: TypeAlias = tuple[int, int, anyio.CancelScope]
"""The instant (ms) at which a task wakes, the order in which it went to sleep, what wakes it."""


@define(eq=False)
class VirtualClock:
    """Time stands still until it is moved, by ``advance`` or by ``running``.

    Sleepers wake one by one: the soonest first, of several at one instant the one that went to
    sleep first; everything that follows from it happens before the next one wakes. So on asyncio,
    whose tasks take turns in order, a run always repeats itself. Trio shuffles tasks that are
    ready at the same moment.
    """

    _now: int = START_MS
    _sleepers: list[_Sleeper] = field(factory=list[_Sleeper], init=False)
    """A heap of the sleepers. One that its event has woken stays there until its instant."""
    _order: count[int] = field(factory=count, init=False)
    _awake: set[int] = field(factory=set[int], init=False)
    """The order of each sleeper in the heap that no longer sleeps."""
    _held: int = field(default=0, init=False)
    _released: anyio.Event = field(factory=anyio.Event, init=False)
    _busy: list[Callable[[], bool]] = field(factory=list[Callable[[], bool]], init=False)
    """Functions that each say whether a thread or another process is at work."""
    _is_moving: bool = field(default=False, init=False)

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self._now

    @property
    def sleepers(self) -> int:
        """How many tasks wait for a time."""
        return len(self._sleepers) - len(self._awake)

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        """Return at that instant (ms), or as soon as the event is set."""
        if instant <= self._now:
            await anyio.lowlevel.checkpoint()
            return
        order = next(self._order)
        with anyio.CancelScope() as scope:
            heapq.heappush(self._sleepers, (instant, order, scope))
            try:
                await (event.wait() if event is not None else anyio.sleep_forever())
            finally:
                if not scope.cancel_called:
                    self._awake.add(order)

    @contextmanager
    def held(self) -> Generator[None]:
        """No time goes by inside, except by ``advance``, while a thread or a process works."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._released.set()

    def stand_still_while(self, busy: Callable[[], bool]) -> None:
        """From now on ``running`` does not move time while *busy* says that a thread, or another
        process, is at work."""
        self._busy.append(busy)

    async def advance(self, seconds: float) -> None:
        """Move time on, waking every sleeper at its instant, in order.

        What sleepers do in threads is not waited for: use ``running`` for that.
        """
        with self._moving():
            end = self._now + round(seconds * 1000)
            await all_blocked()
            while (instant := self._soonest()) is not None and instant <= end:
                self._step()
                await all_blocked()
            self._now = max(self._now, end)
            await all_blocked()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Time moves by itself inside: whenever every task waits, to the next instant that a task
        waits for.

        It stands still inside ``held``, and while one of the functions that ``stand_still_while``
        was given says so.
        """
        with self._moving():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()

    # ------------------------------------------------------------ inside

    @contextmanager
    def _moving(self) -> Generator[None]:
        if self._is_moving:  # each would wait for the other to be blocked
            raise RuntimeError("this clock is being moved already: use `advance` or one `running`")
        self._is_moving = True
        try:
            yield
        finally:
            self._is_moving = False

    async def _run(self) -> None:
        while True:
            await all_blocked()
            instant = self._soonest()
            if self._held:
                self._released = anyio.Event()
                await self._released.wait()
            elif instant is not None and instant < MAX_INSTANT_MS and not self._is_busy():
                self._step()
            else:  # no task waits for time, so they wait for a thread or a process
                await anyio.sleep(POLL_S)

    def _is_busy(self) -> bool:
        return any(busy() for busy in self._busy)

    def _soonest(self) -> int | None:
        """The next instant that a task waits for."""
        while self._sleepers and self._sleepers[0][1] in self._awake:
            self._awake.remove(heapq.heappop(self._sleepers)[1])
        return self._sleepers[0][0] if self._sleepers else None

    def _step(self) -> None:
        instant, _, scope = heapq.heappop(self._sleepers)
        self._now = max(self._now, instant)
        scope.cancel()


@define(eq=False)
class TimedDriver(WrapperDriver):
    """A driver in whose calls no virtual time goes by, though it works in threads; the calls are
    counted.

    ``wait`` is no work: time goes on while a task waits for a commit.
    """

    clock: VirtualClock
    calls: Counter[str] = field(factory=Counter[str], init=False)
    """method -> how often it was called"""

    async def around(self, name: str, call: Callable[[], Awaitable[R]]) -> R:
        """Count the call, and hold the time while it lasts."""
        self.calls[name] += 1
        if name == "wait":
            return await call()
        with self.clock.held():
            return await call()


async def all_blocked() -> None:
    """Return once every other task of this event loop waits for something.

    ``anyio.wait_all_tasks_blocked`` does the same, but on asyncio it looks only every 100 ms and
    does not see callbacks that have yet to run.
    """
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    ready: deque[Any] | None = getattr(loop, "_ready", None)  # what asyncio is about to run
    if ready is None:
        await anyio.wait_all_tasks_blocked()
        return
    await anyio.lowlevel.checkpoint()
    while ready:
        await anyio.lowlevel.checkpoint()
