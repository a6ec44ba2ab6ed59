"""How a service of an engine looks, sleeps and goes on after an error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.abc
from attrs import define, field

from flowstate import Clock, Engine

logger = logging.getLogger("flowstate.recovery")

BACKOFF_MS = 200
"""The wait after an error of the store. It doubles with each further error."""
MAX_BACKOFF_MS = 10_000
"""The longest wait after an error of the store."""
MIN_INTERVAL_MS = 5
"""Between two looks, however many commits there are."""


async def pause(clock: Clock, wait_ms: int) -> None:
    """Sleep for so long, by a clock that may be wrong when this begins."""
    end = clock.now() + wait_ms
    while (now := clock.now()) < end:
        await clock.wait_until(min(end, now + wait_ms))


async def look_and_sleep(
    engine: Engine,
    look: Callable[[], Awaitable[int]],
    also: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Look, and then sleep until the instant (ms) that it gives, or until the store changes, or
    *also* returns. What happens from before the look on wakes it; how soon is spread by chance, so
    that many who look at the same store do not do so at once."""
    clock, timers = engine.clock, engine.timers
    began = clock.now()
    head = await timers.head()
    news = anyio.Event()

    async def wait(
        what: Callable[[], Awaitable[None]], *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        task_status.started()
        await what()
        news.set()

    async with anyio.create_task_group() as tasks:
        await tasks.start(wait, partial(timers.wait_for_change, head))
        if also is not None:
            await tasks.start(wait, also)
        until = await look()
        if until > clock.now():
            await clock.wait_until(until, news)
        tasks.cancel_scope.cancel()
    # from now on, at most: the clock may have been wrong when it looked
    spread = round(engine.chance() * MIN_INTERVAL_MS)
    await clock.wait_until(min(began, clock.now()) + MIN_INTERVAL_MS + spread)


@define
class Backoff:
    """The waits after errors in a row."""

    clock: Clock
    what: str
    """What goes on after them, for the log."""
    _wait_ms: int = field(default=BACKOFF_MS, init=False)

    def succeeded(self) -> None:
        self._wait_ms = BACKOFF_MS

    async def failed(self, error: Exception) -> None:
        """Say it, and wait."""
        logger.warning("%s goes on in %d ms", self.what, self._wait_ms, exc_info=error)
        wait_ms, self._wait_ms = self._wait_ms, min(2 * self._wait_ms, MAX_BACKOFF_MS)
        await pause(self.clock, wait_ms)
