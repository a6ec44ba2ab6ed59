"""What is due when: an index in memory."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from typing import TypeAlias

from attrs import define, field

from ..state import RetryPolicy

MAX_BEHIND = 2_000
"""Ids whose new due times may be left out of the heaps."""
MIN_REBUILD = 1_000
"""Entries in the heaps below which stale ones may stay."""

_Entry: TypeAlias = tuple[int, int, str, str, RetryPolicy | None]
"""due (ms), revision, id, flow, policy. One version has one policy, so they are never compared."""


@define
class DueTimes:
    """At most one due time for each id, soonest first for each flow.

    A heap for each flow. A stale entry, one that was replaced, stays until it surfaces, or until
    stale entries are the larger part; so setting a due time costs the same however many there are.
    What is set goes to the heaps only when somebody asks, or when it has become much: a state that
    moves on before that never enters them.
    """

    _set: dict[str, _Entry | None] = field(factory=dict[str, _Entry | None])
    """id -> its new entry, which is not in a heap yet; None for no due time."""
    _due: dict[str, _Entry] = field(factory=dict[str, _Entry])
    """id -> its entry in the heaps that is not stale."""
    _heaps: dict[str, list[_Entry]] = field(factory=dict[str, list[_Entry]])
    """flow -> heap of entries."""
    _entries: int = 0

    def set(
        self, id: str, rev: int, due: int | None, flow: str, policy: RetryPolicy | None
    ) -> None:
        self._set[id] = None if due is None else (due, rev, id, flow, policy)
        if len(self._set) > MAX_BEHIND:
            self._catch_up()

    def move(self, id: str, due: int) -> None:
        entry = self._set[id] if id in self._set else self._due.get(id)
        if entry is not None:
            self.set(id, entry[1], due, *entry[3:])

    def page(
        self, until: int, flows: Collection[str], limit: int
    ) -> tuple[list[tuple[str, int, RetryPolicy | None]], int | None]:
        """What is due, soonest first: ids, with their due times and policies; and the soonest due
        time of what the page does not hold."""
        self._catch_up()
        found: list[_Entry] = []
        others: list[int] = []
        for flow in flows:
            heap = self._heaps.get(flow, [])
            taken: list[_Entry] = []
            while (entry := self._first(heap)) is not None:
                if entry[0] > until or len(taken) == limit:
                    others.append(entry[0])
                    break
                taken.append(heapq.heappop(heap))
            for entry in taken:
                heapq.heappush(heap, entry)
            found.extend(taken)
        found.sort()
        others.extend(due for due, *_ in found[limit : limit + 1])
        page = [(id, due, policy) for due, _, id, _, policy in found[:limit]]
        return page, min(others, default=None)

    def flows(self) -> tuple[str, ...]:
        """Every flow that something is due for, now or later."""
        self._catch_up()
        return tuple(sorted(flow for flow, heap in self._heaps.items() if self._first(heap)))

    def _first(self, heap: list[_Entry]) -> _Entry | None:
        """The first entry of a heap that is not stale."""
        while heap and self._due.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
            self._entries -= 1
        return heap[0] if heap else None

    def _catch_up(self) -> None:
        for id, entry in self._set.items():
            if entry is None:
                self._due.pop(id, None)
                continue
            self._due[id] = entry
            heap = self._heaps.get(entry[3])
            if heap is None:
                heap = self._heaps[entry[3]] = []
            heapq.heappush(heap, entry)
            self._entries += 1
        self._set.clear()
        if self._entries > MIN_REBUILD and self._entries > 2 * len(self._due):
            self._rebuild()

    def _rebuild(self) -> None:
        self._heaps = {}
        for entry in self._due.values():
            self._heaps.setdefault(entry[3], []).append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._entries = len(self._due)
