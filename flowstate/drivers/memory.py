"""The reference driver: plain dictionaries, a list, a heap.

Nothing here awaits between reading and writing, so every method is atomic on its event loop. It
lives as long as the object; use it from one event loop.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from typing import ClassVar, TypeAlias

from attrs import define, field

from ..clock import Clock, SystemClock
from ..data import DataRef
from ..driver import Driver, Due, Durability, Page, Plan, Query
from ..errors import DataNotFoundError, RevMismatchError
from ..state import State
from .head import Head
from .url import StoreUrl

MAX_SCAN = 10_000
"""Versions that one read looks at."""

MIN_REBUILD = 1_000
"""Entries of due times below which those that were overtaken may stay."""

_Entry: TypeAlias = tuple[int, int, str, str]
"""due (ms), revision, id, flow"""


@define(eq=False)
class MemoryDriver(Driver):
    """Keeps everything in this process: fast, and gone with it."""

    durability: ClassVar[Durability] = Durability.NONE

    clock: Clock = field(factory=SystemClock, kw_only=True)
    _head: Head = field(factory=Head, init=False)
    _log: list[State] = field(factory=list[State], init=False)
    """Revision r is at index r - 1."""
    _current: OrderedDict[str, State] = field(factory=OrderedDict[str, State], init=False)
    """id -> latest version, in revision order."""
    _history: dict[str, list[int]] = field(factory=dict[str, list[int]], init=False)
    """id -> its revisions."""
    _labelled: dict[tuple[str, str], list[int]] = field(
        factory=dict[tuple[str, str], list[int]], init=False
    )
    """label -> the revisions that have it."""
    _current_labelled: dict[tuple[str, str], OrderedDict[str, None]] = field(
        factory=dict[tuple[str, str], OrderedDict[str, None]], init=False
    )
    """label -> the ids whose current version has it, in revision order."""
    _commit_ids: list[str] = field(factory=list[str], init=False)
    """Beside the log: which commit wrote the revision."""
    _payloads: dict[tuple[int, str], bytes] = field(
        factory=dict[tuple[int, str], bytes], init=False
    )
    _due: _DueTimes = field(factory=lambda: _DueTimes(), init=False)  # noqa: PLW0108  (it is below)

    @classmethod
    def from_url(cls, url: StoreUrl) -> MemoryDriver:
        """``memory:``"""
        url.expect(path=False)
        return cls()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close: the driver can be opened again and still has its states."""

    async def commit(self, plan: Plan) -> tuple[State, ...]:  # noqa: C901  (hot)
        log = self._log
        current = self._current
        for write in plan.writes:
            state = write.state
            latest = current.get(state.id)
            if (latest.rev if latest is not None else 0) != state.rev:
                return self._first_outcome(plan)
        if plan.requires and (conflicts := self._conflicts(plan)):
            raise RevMismatchError(conflicts)

        first = len(log) + 1
        now = self.clock.now()
        if log and log[-1].committed_at > now:
            now = log[-1].committed_at  # a clock that was set back does not turn time round
        versions = plan.stamp(first, now)
        commit_id = plan.commit_id
        for write, state in zip(plan.writes, versions):  # noqa: B905  (hot; equal by construction)
            id = state.id
            log.append(state)
            self._commit_ids.append(commit_id)
            previous = current.get(id)
            if previous is None:
                self._history[id] = [state.rev]
            else:
                self._history[id].append(state.rev)
            current[id] = state
            current.move_to_end(id)
            if state.labels or (previous is not None and previous.labels):
                self._index_labels(previous, state)
            self._due.set(id, state.rev, write.due, write.flow)
        if plan.payloads:
            for checksum, content in plan.payloads.items():
                self._payloads[first, checksum] = content
        if self._head.waiting:
            self._head.advance(len(log))
        return versions

    async def get(self, id: str, rev: int | None = None) -> State | None:
        if rev is None:
            return self._current.get(id)
        if not 0 < rev <= len(self._log):
            return None
        state = self._log[rev - 1]
        return state if state.id == id else None

    async def find(self, query: Query) -> State | None:
        found: State | None = None
        for candidates in self._newest_first(query):
            for state in candidates:
                if found is not None and state.rev < found.rev:
                    break
                if query.matches(state):
                    found = state
                    break
        return found

    async def read(self, query: Query, after: int, limit: int) -> Page:
        head = len(self._log)
        if query.since_ms:
            after = max(after, self._rev_before(query.since_ms))
        versions: list[State] = []
        for looked, rev in enumerate(self._candidates(query, after), 1):
            state = self._log[rev - 1]
            if query.matches(state) and not (query.latest and self._current[state.id] is not state):
                versions.append(state)
            if len(versions) == limit or looked == MAX_SCAN:
                return Page(tuple(versions), rev)
        return Page(tuple(versions), max(head, after))

    async def head(self) -> int:
        return len(self._log)

    async def wait(self, after: int) -> None:
        self._head.advance(len(self._log))  # commits tell it only while somebody waits
        await self._head.wait(after)

    async def due(self, until: int, flows: Collection[str], limit: int) -> tuple[Due, ...]:
        entries = self._due.until(until, flows, limit)
        return tuple(Due(self._current[id], due) for due, _, id, _ in entries)

    async def next_due(self, flows: Collection[str]) -> int | None:
        return self._due.soonest(flows)

    async def due_flows(self) -> tuple[str, ...]:
        return self._due.flows()

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        gone: set[str] = set()
        for id, rev in leases:
            state = self._current.get(id)
            if state is None or state.rev != rev:
                gone.add(id)
            else:
                self._due.move(id, until)
        if self._head.waiting:
            self._head.hint()
        return frozenset(gone)

    async def load(self, ref: DataRef) -> bytes:
        try:
            return self._payloads[ref.rev, ref.checksum]
        except KeyError:
            raise DataNotFoundError(
                f"payload {ref.checksum} stored at revision {ref.rev}"
            ) from None

    def _first_outcome(self, plan: Plan) -> tuple[State, ...]:
        """What the plan wrote when it was committed before, or else the conflicts it has."""
        for write in plan.writes:
            for rev in _above(self._history.get(write.state.id, []), write.state.rev):
                if self._commit_ids[rev - 1] == plan.commit_id:
                    first = rev - plan.writes.index(write)
                    return tuple(self._log[first - 1 : first - 1 + len(plan.writes)])
                break  # only the very next version can be of a plan that expected this revision
        raise RevMismatchError(self._conflicts(plan))

    def _conflicts(self, plan: Plan) -> dict[str, tuple[int, int]]:
        conflicts: dict[str, tuple[int, int]] = {}
        for id, expected in plan.expectations():
            latest = self._current.get(id)
            found = 0 if latest is None else latest.rev
            if found != expected:
                conflicts[id] = (expected, found)
        return conflicts

    # ------------------------------------------------------------ indexes

    def _index_labels(self, previous: State | None, state: State) -> None:
        if previous is not None:
            for label in previous.labels.items():
                ids = self._current_labelled[label]
                del ids[state.id]
                if not ids:
                    del self._current_labelled[label]
        for label in state.labels.items():
            self._labelled.setdefault(label, []).append(state.rev)
            self._current_labelled.setdefault(label, OrderedDict())[state.id] = None

    def _newest_first(self, query: Query) -> Iterator[Iterator[State]]:
        """Candidates for ``find``: for each alternative, by its rarest label."""
        if query.id:
            yield iter([self._current[query.id]] if query.id in self._current else [])
        elif not query.alternatives:
            yield iter(reversed(self._current.values()))
        else:
            nothing: OrderedDict[str, None] = OrderedDict()
            for labels in query.alternatives:
                ids = min(
                    (self._current_labelled.get(label, nothing) for label in labels.items()),
                    key=len,
                )
                yield (self._current[id] for id in reversed(ids))

    def _candidates(self, query: Query, after: int) -> Iterable[int]:
        """Revisions above *after* that may match, ascending."""
        if query.id:
            return _above(self._history.get(query.id, []), after)
        if not query.alternatives:
            return range(after + 1, len(self._log) + 1)
        rarest = [
            min((self._labelled.get(label, []) for label in labels.items()), key=len)
            for labels in query.alternatives
        ]
        if len(rarest) == 1:
            return _above(rarest[0], after)
        return _distinct(heapq.merge(*(_above(revs, after) for revs in rarest)))

    def _rev_before(self, instant: int) -> int:
        """The newest revision committed before that time: times ascend with revisions."""
        low, high = 0, len(self._log)
        while low < high:
            middle = (low + high) // 2
            if self._log[middle].committed_at < instant:
                low = middle + 1
            else:
                high = middle
        return low


@define
class _DueTimes:
    """At most one due time an id, soonest first for each flow.

    A heap a flow. An entry that was overtaken stays until it surfaces, or until such entries are
    the larger part; so setting a due time costs the same however many there are.
    """

    _due: dict[str, _Entry] = field(factory=dict[str, _Entry])
    """id -> the entry that counts."""
    _heaps: dict[str, list[_Entry]] = field(factory=dict[str, list[_Entry]])
    """flow -> heap of entries."""
    _entries: int = 0

    def set(self, id: str, rev: int, due: int | None, flow: str) -> None:
        if due is None:
            self._due.pop(id, None)
            return
        entry = (due, rev, id, flow)
        self._due[id] = entry
        heap = self._heaps.get(flow)
        if heap is None:
            heap = self._heaps[flow] = []
        heapq.heappush(heap, entry)
        self._entries += 1
        if self._entries > MIN_REBUILD and self._entries > 2 * len(self._due):
            self._rebuild()

    def move(self, id: str, due: int) -> None:
        entry = self._due.get(id)
        if entry is not None:
            self.set(id, entry[1], due, entry[3])

    def until(self, until: int, flows: Collection[str], limit: int) -> list[_Entry]:
        """What is due, soonest first."""
        found: list[_Entry] = []
        for flow in flows:
            heap = self._heaps.get(flow, [])
            taken: list[_Entry] = []
            while heap and heap[0][0] <= until and len(taken) < limit:
                entry = heapq.heappop(heap)
                if self._due.get(entry[2]) is entry:
                    taken.append(entry)
                else:
                    self._entries -= 1
            for entry in taken:
                heapq.heappush(heap, entry)
            found.extend(taken)
        return sorted(found)[:limit]

    def flows(self) -> tuple[str, ...]:
        """Every flow that something is due for, now or later."""
        return tuple(sorted(flow for flow in self._heaps if self.soonest([flow]) is not None))

    def soonest(self, flows: Collection[str]) -> int | None:
        """The soonest due time for one of the flows."""
        times: list[int] = []
        for flow in flows:
            heap = self._heaps.get(flow, [])
            while heap and self._due.get(heap[0][2]) is not heap[0]:
                heapq.heappop(heap)
                self._entries -= 1
            if heap:
                times.append(heap[0][0])
        return min(times, default=None)

    def _rebuild(self) -> None:
        self._heaps = {}
        for entry in self._due.values():
            self._heaps.setdefault(entry[3], []).append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._entries = len(self._due)


def _above(revs: list[int], after: int) -> Iterator[int]:
    # islice(revs, start, None) would step over everything before the start
    return map(revs.__getitem__, range(bisect_right(revs, after), len(revs)))


def _distinct(ascending: Iterable[int]) -> Iterator[int]:
    last = 0
    for rev in ascending:
        if rev != last:
            yield rev
        last = rev
