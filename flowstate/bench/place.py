"""Where one measurement is made: an empty store, and how much to do there."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from attrs import frozen

from flowstate import Commit, Engine, Flows, Pause, RetryPolicy, State, connect

from .sites import Site
from .values import Effort

LEAST = 3
"""Times that something is repeated, however short the time."""
BATCH = 1_000
"""States that are made in one commit, where making them is not what is measured."""


@frozen
class Place:
    """A store with nothing in it that a workload would see.

    ``prefix`` begins every id, label value and flow that a workload makes up: a store that cannot
    be made afresh holds what earlier measurements left.
    """

    site: Site
    url: str
    effort: Effort
    prefix: str = ""

    @property
    def seconds(self) -> float:
        return self.effort.seconds

    @property
    def states(self) -> int:
        return self.effort.states

    @asynccontextmanager
    async def engine(
        self, flows: Flows | None = None, retry: RetryPolicy | None = None
    ) -> AsyncGenerator[Engine]:
        """An engine on the store. A store in memory is gone when it is left."""
        async with (
            connect(self.url) as driver,
            Engine(driver, flows or Flows(), retry=retry or RetryPolicy()) as engine,
        ):
            yield engine

    def repeat(self) -> Iterator[int]:
        """Counts, for as long as a measurement lasts."""
        number = 0
        until = time.perf_counter() + self.seconds
        while number < LEAST or time.perf_counter() < until:
            yield number
            number += 1

    def ids(self, count: int) -> list[str]:
        return [f"{self.prefix}order-{number}" for number in range(count)]


async def fill(
    engine: Engine,
    ids: Iterable[str],
    labels: Callable[[int], Mapping[str, str]] = lambda _: {},
) -> None:
    """Make a paused state of each id, the first of them with ``labels(0)``."""
    batch: list[Pause] = []
    for number, id in enumerate(ids):
        batch.append(Pause(State(id, labels=labels(number)), "work"))
        if len(batch) == BATCH:
            await engine.do(Commit(*batch))
            batch.clear()
    if batch:
        await engine.do(Commit(*batch))
