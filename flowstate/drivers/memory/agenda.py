"""Which ids come first: an index in memory, by an instant."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeAlias

from attrs import define, field

MIN_REBUILD = 1_000
"""Entries in the heaps below which stale ones may stay."""

_Entry: TypeAlias = tuple[int, int, str, str]
"""instant (ms), revision, id, key"""


@define
class Agenda:
    """At most one instant for each id, soonest first for each key; then by revision.

    A heap for each key. A stale entry, one that was replaced, stays until it surfaces, or until
    stale entries are the larger part; so setting an instant costs the same however many there are.
    """

    _entries: dict[str, _Entry] = field(factory=dict[str, _Entry])
    """id -> its entry in the heaps that is not stale."""
    _heaps: dict[str, list[_Entry]] = field(factory=dict[str, list[_Entry]])
    """key -> heap of entries."""
    _size: int = 0
    """Of all heaps."""

    def set(self, id: str, rev: int, at: int, key: str = "") -> None:
        entry = self._entries[id] = (at, rev, id, key)
        heapq.heappush(self._heaps.setdefault(key, []), entry)
        self._size += 1
        if self._size > MIN_REBUILD and self._size > 2 * len(self._entries):
            self._rebuild()

    def remove(self, id: str) -> None:
        """Forget an id; one that is not here is no error."""
        self._entries.pop(id, None)

    def first(
        self,
        limit: int,
        key: str = "",
        until: int | None = None,
        wanted: Callable[[str], bool] | None = None,
    ) -> tuple[list[tuple[int, int, str]], int | None]:
        """The first of a key, as (instant, revision, id): at most *limit*, none after *until*, and
        only ids that are *wanted*; and the instant of the next one."""
        heap = self._heaps.get(key, [])
        looked: list[_Entry] = []
        found: list[tuple[int, int, str]] = []
        following = None
        while (entry := self._first(heap)) is not None:
            if len(found) == limit or (until is not None and entry[0] > until):
                following = entry[0]
                break
            looked.append(heapq.heappop(heap))
            if wanted is None or wanted(entry[2]):
                found.append(entry[:3])
        for entry in looked:
            heapq.heappush(heap, entry)
        return found, following

    def soonest(self) -> dict[str, int]:
        """Every key that has an id, with the soonest instant."""
        soonest = {key: self._first(heap) for key, heap in self._heaps.items()}
        for key, entry in soonest.items():
            if entry is None:
                del self._heaps[key]
        return {key: entry[0] for key, entry in soonest.items() if entry is not None}

    def _first(self, heap: list[_Entry]) -> _Entry | None:
        """The first entry of a heap that is not stale."""
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
            self._size -= 1
        return heap[0] if heap else None

    def _rebuild(self) -> None:
        self._heaps = {}
        for entry in self._entries.values():
            self._heaps.setdefault(entry[3], []).append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._size = len(self._entries)
