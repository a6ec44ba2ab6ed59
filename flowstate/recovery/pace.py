"""How a service of an engine looks, sleeps and goes on after an error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
from attrs import define, field

from flowstate import Engine

logger = logging.getLogger("flowstate.recovery")

BACKOFF_MS = 200
"""The wait after an error of the store. It doubles with each further error."""
MAX_BACKOFF_MS = 10_000
"""The longest wait after an error of the store."""
MIN_INTERVAL_MS = 5
"""Between two looks, however many commits there are."""


@define(eq=False)
class Lookout:
    """Looks at the store of an engine again and again: as soon as the store changes or *also*
    returns, and when the last look said so, by an instant (ms).

    What happens from before a look on leads to the next; how soon is spread by chance, so that many
    who look at the same store do not do so at once.
    """

    engine: Engine
    look: Callable[[], Awaitable[int]]
    also: Callable[[], Awaitable[None]] | None = None
    _news: anyio.Event = field(factory=anyio.Event, init=False)
    """Something has happened since the last look began."""
    _deaf: int = field(default=0, init=False)
    """How many of those who wait for something have to be told to do so again."""
    _told: anyio.Event = field(factory=anyio.Event, init=False)
    _listening: anyio.Event = field(factory=anyio.Event, init=False)

    async def keep_looking(self, backoff: Backoff) -> None:
        """Look until something is raised, which may be in a group."""
        clock, timers = self.engine.clock, self.engine.timers
        heard = await timers.head()

        async def change() -> None:
            nonlocal heard
            heard = await timers.wait_for_change(heard)

        waits = [change] if self.also is None else [change, self.also]
        self._deaf, self._told = len(waits), anyio.Event()
        async with anyio.create_task_group() as tasks:
            for wait in waits:
                tasks.start_soon(self._listen, wait)
            while True:
                began = clock.now()
                await self._have_all_listen()
                until = await self.look()
                # from now on, at most: the clock may have been wrong when it looked
                until = min(until, clock.now() + max(0, until - began))
                if until > clock.now():
                    await clock.wait_until(until, self._news)
                spread = round(self.engine.chance() * MIN_INTERVAL_MS)
                earliest = min(began, clock.now()) + MIN_INTERVAL_MS + spread
                if earliest > clock.now():
                    await clock.wait_until(earliest)
                backoff.succeeded()

    async def _have_all_listen(self) -> None:
        self._news = anyio.Event()
        while self._deaf:
            self._listening = anyio.Event()
            told, self._told = self._told, anyio.Event()
            told.set()
            await self._listening.wait()

    async def _listen(self, wait: Callable[[], Awaitable[None]]) -> None:
        while True:
            self._deaf -= 1
            self._listening.set()
            await wait()
            self._deaf += 1
            self._news.set()
            await self._told.wait()


@define
class Backoff:
    """The waits after errors in a row."""

    engine: Engine
    what: str
    """What goes on after them, for the log."""
    _wait_ms: int = field(default=BACKOFF_MS, init=False)

    def succeeded(self) -> None:
        self._wait_ms = BACKOFF_MS

    async def failed(self, error: Exception) -> None:
        """Say it, and wait."""
        logger.warning("%s goes on in %d ms", self.what, self._wait_ms, exc_info=error)
        wait_ms, self._wait_ms = self._wait_ms, min(2 * self._wait_ms, MAX_BACKOFF_MS)
        await self.engine.timers.pause(wait_ms)
