"""Stores in memory, and what Python itself needs for as much."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import anyio
from attrs import frozen

from .site import ID, STATE, RawLimit, Site

BATCH = 1_000
"""Rows between two looks at the clock."""


class MemorySite(Site):
    """A new driver is a new store."""

    def check(self) -> None:
        """It is empty."""

    @contextmanager
    def fresh(self) -> Generator[str]:
        yield self.url.original

    @property
    def raw(self) -> RawLimit:
        return _BareLoop()


@frozen
class _BareLoop:
    about: str = "a coroutine call, a dict write and a list append for each row; nothing is synced"

    def insert(self, a_sync: int, seconds: float) -> float:  # noqa: ARG002  (nothing is synced)
        latest: dict[str, int] = {}
        log: list[int] = []

        async def step(number: int) -> None:
            latest[ID] = number
            log.append(number)

        async def batch() -> None:
            for number in range(BATCH):
                await step(number)

        return _rate(batch, seconds)

    def payload(self, size: int, seconds: float) -> None:
        """Only a reference is kept."""

    def lookup(self, rows: int, seconds: float) -> float:
        stored = {f"order-{number}": STATE for number in range(rows)}
        ids = [f"order-{number % rows}" for number in range(BATCH)]

        async def get(id: str) -> str:
            return stored[id]

        async def batch() -> None:
            for id in ids:
                await get(id)

        return _rate(batch, seconds)


def _rate(batch: Callable[[], Awaitable[None]], seconds: float) -> float:
    """Rows a second if a batch is repeated for so long."""

    async def repeat() -> float:
        batches = 0
        start = now = time.perf_counter()
        while not batches or now < start + seconds:
            await batch()
            batches += 1
            now = time.perf_counter()
        return batches * BATCH / (now - start)

    return anyio.run(repeat)
