"""A run of compaction: batch after batch, leaving room for commits in between."""

from __future__ import annotations

from typing import Self

import anyio.lowlevel
from attrs import define, field

from .clock import Clock
from .driver import Driver
from .query import Query
from .retention import Compaction, Retention

TARGET_MS = 20
"""What a batch should take: commits wait for it."""
FIRST_LIMIT = 100
"""Versions that the first batch looks at; how many the next ones do is told by how long the last
one took."""
MIN_LIMIT, MAX_LIMIT = 10, 500
"""The least and the most versions that a batch looks at."""


@define(eq=False)
class CompactionRun:
    """What ``engine.compact`` gives: an async iterator that does a batch and gives what the run has
    come to so far.

    It ends at the head as it was when it began, or at the first version that is young enough to
    stay. After each batch that removed something it rests for as long as that took, so that others
    get at the store. A run that is left half-way has done what it told of; another one goes on.
    """

    _driver: Driver
    _clock: Clock
    retention: Retention
    forget_before: int
    """Records of commits before that time (ms) are forgotten."""
    dry_run: bool = field(default=False, kw_only=True)
    total: Compaction = field(default=Compaction(0), init=False)
    """What was removed so far, up to where; ``done`` once it has ended."""
    end: int = field(default=-1, init=False)
    """The revision at which it ends; -1 before the first batch."""
    _limit: int = field(default=FIRST_LIMIT, init=False)
    _has_forgotten: bool = field(default=False, init=False)
    """Whether there is no more to forget."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Compaction:
        if self.total.done:
            raise StopAsyncIteration
        await anyio.lowlevel.checkpoint()  # a driver in memory would not let others run
        if self.end < 0:
            await self._begin()
        began = self._clock.now()
        batch = await self._driver.compact(
            self.retention, self.total.upto, self._limit, dry_run=self.dry_run
        )
        if not self.dry_run and not self._has_forgotten:
            forgotten = await self._driver.forget_records(self.forget_before, self._limit)
            self._has_forgotten = forgotten < self._limit
        took = self._clock.now() - began
        self._add(batch)
        if took > TARGET_MS:
            self._limit = max(MIN_LIMIT, self._limit // 2)
        elif took < TARGET_MS / 4:  # the next may well be slower
            self._limit = min(MAX_LIMIT, self._limit * 2)
        if batch.versions and took and not self.dry_run and not self.total.done:
            await self._clock.wait_until(self._clock.now() + took)
        return self.total

    async def finish(self) -> Compaction:
        """Do all the batches, and give what they came to."""
        async for _ in self:
            pass
        return self.total

    async def _begin(self) -> None:
        head = await self._driver.head()
        young = await self._driver.read(Query(since=self.retention.before), 0, 1)
        self.end = min(head, young.versions[0].rev - 1) if young.versions else head

    def _add(self, batch: Compaction) -> None:
        total = self.total
        self.total = Compaction(
            batch.upto,
            total.versions + batch.versions,
            total.states + batch.states,
            total.payloads + batch.payloads,
            total.size + batch.size,
            (batch.done or batch.upto >= self.end) and (self.dry_run or self._has_forgotten),
        )
