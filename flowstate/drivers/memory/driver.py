"""A driver in memory: dictionaries, a list, heaps. It is made for speed; the plain store that it is
compared with is ``testing/model.py``.

Nothing here awaits between reading and writing, so every method is atomic on its event loop. It
lives as long as the object; use it from one event loop.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice, takewhile
from typing import ClassVar, Literal

from attrs import define, field

from ...clock import Clock, SystemClock
from ...codec import encode_state
from ...data import DataRef
from ...driver import Driver, Durability
from ...errors import RevMismatchError
from ...leases import Claimed, DuePage, Held, Holding, Place, Renewal
from ...plan import Following, Plan, Record, RecordedError, references
from ...query import Left, Page, Query
from ...retention import Compaction, Retained, Retention
from ...state import State
from ..head import Head
from ..reader import MAX_SCAN, payload_forgotten, payload_not_found
from ..url import StoreUrl
from .places import MAX_BEHIND, History, Places

FEW = 8
"""Current versions with a label are looked through from the first on, though a page begins later,
if there are so many times fewer of them than of versions."""


@define(eq=False)
class MemoryDriver(Driver):
    """Keeps everything in this process, for as long as the object lives."""

    durability: ClassVar[Durability] = Durability.NONE
    waits: ClassVar[bool] = False

    clock: Clock = field(factory=SystemClock, kw_only=True)
    _head: Head = field(factory=Head, init=False)
    _log: list[State] = field(factory=list[State], init=False)
    """Versions in revision order. Above ``_compacted`` none is missing, so a revision tells its
    index."""
    _histories: OrderedDict[str, History] = field(factory=OrderedDict[str, History], init=False)
    """id -> history, in the order of their latest revisions."""
    _labelled: dict[tuple[str, str], list[int]] = field(
        factory=dict[tuple[str, str], list[int]], init=False
    )
    """label -> the revisions that have it."""
    _left_labelled: dict[tuple[str, str], list[int]] = field(
        factory=dict[tuple[str, str], list[int]], init=False
    )
    """label -> the revisions with which a state lost it."""
    _current_labelled: dict[tuple[str, str], OrderedDict[str, None]] = field(
        factory=dict[tuple[str, str], OrderedDict[str, None]], init=False
    )
    """label -> the ids whose current version has it, in revision order."""
    _commit_ids: list[str] = field(factory=list[str], init=False)
    """Index in the log -> id of the commit that wrote the version."""
    _previous: list[State | None] = field(factory=list[State | None], init=False)
    """Index in the log -> the version of the same state before, also when that was removed."""
    _payloads: dict[tuple[int, str], bytes] = field(
        factory=dict[tuple[int, str], bytes], init=False
    )
    _forgotten: set[tuple[int, str]] = field(factory=set[tuple[int, str]], init=False)
    """The payloads whose content was forgotten, for as long as a version refers to them."""
    _referring: dict[tuple[int, str], list[int]] = field(
        factory=dict[tuple[int, str], list[int]], init=False
    )
    """payload -> the revisions that refer to it."""
    _records: dict[str, Record] = field(factory=dict[str, Record], init=False)
    """The records of keyed commits, by the ids of their callers, the oldest first."""
    _places: Places = field(init=False)
    _removed: int = field(default=0, init=False)
    """How many versions compaction has removed."""
    _compacted: int = field(default=0, init=False)
    """The highest revision that compaction has removed; 0 if there is none."""
    _compacted_at: int = field(default=0, init=False)
    """When the version at ``_compacted`` had been committed (ms)."""

    def __attrs_post_init__(self) -> None:
        self._places = Places(self._histories)

    @classmethod
    def from_url(cls, url: StoreUrl) -> MemoryDriver:
        """``memory:``"""
        url.expect(path=False)
        return cls()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close: the driver can be opened again and still has its states."""

    async def commit(self, plan: Plan) -> tuple[State, ...]:  # noqa: C901, PLR0912  (hot)
        log = self._log
        histories = self._histories
        if plan.reused:
            plan = plan.settled(self._payloads)
        if plan.key is not None and (record := self._records.get(plan.key.id)) is not None:
            return self._recorded(plan, record)
        for write in plan.writes:
            state = write.state
            history = histories.get(state.id)
            if (history.latest.rev if history is not None else 0) != state.rev:
                return self._first_outcome(plan)
        if plan.requires and (conflicts := plan.conflicts(self._latest_rev)):
            raise RevMismatchError(conflicts)

        first = len(log) + self._removed + 1
        now = self.clock.now()
        if log and log[-1].committed_at > now:
            now = log[-1].committed_at  # a clock that was set back does not turn time round
        versions = plan.stamp(first, now)
        commit_id, behind = plan.commit_id, self._places.behind
        for write, state in zip(plan.writes, versions):  # noqa: B905  (hot; equal by construction)
            id = state.id
            history = histories.get(id)
            if history is None:
                previous = None
                histories[id] = History(state, [state.rev], write, write.place)
            else:
                previous = history.latest
                history.latest = state
                history.write = write
                history.place = write.place
                history.revs.append(state.rev)
                if previous is not log[-1]:  # else its history is the last already
                    histories.move_to_end(id)
            log.append(state)
            self._commit_ids.append(commit_id)
            self._previous.append(previous)
            if state.labels or (previous is not None and previous.labels):
                self._index_labels(previous, state)
            if state.data or state.stacked:
                for key in _payloads(state):
                    self._referring.setdefault(key, []).append(state.rev)
            behind[id] = None
        if len(behind) > MAX_BEHIND:
            self._places.catch_up()
        if plan.payloads:
            for checksum, content in plan.payloads.items():
                self._payloads[first, checksum] = content
        if plan.key is not None and (keyed := plan.record(first, now)) is not None:
            self._records[keyed[0]] = keyed[1]
        if self._head.waiting:
            self._head.advance(self._newest())
        return versions

    async def record(self, id: str) -> Record | None:
        return self._records.get(id)

    async def forget_records(self, before: int, limit: int) -> int:
        old = takewhile(lambda entry: entry[1].committed_at < before, self._records.items())
        forgotten = [id for id, _ in islice(old, limit)]
        for id in forgotten:
            del self._records[id]
        return len(forgotten)

    async def get(self, id: str, rev: int | None = None) -> State | None:
        if rev is None:
            return self._latest(id)
        index = self._index(rev)
        if not 0 <= index < len(self._log):
            return None
        state = self._log[index]
        return state if state.rev == rev and state.id == id else None

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

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        if query.since_ms and not newest_first:
            after = max(after, self._rev_before(query.since_ms))
        compacted = query.compacted(self._compacted, self._compacted_at)
        leaving = query.leaving and not query.latest
        versions: list[State] = []
        left: dict[int, Left] = {}
        upto = 1 if newest_first else max(self._newest(), after)
        for looked, state in enumerate(self._candidates(query, after, newest_first), 1):
            if newest_first and state.committed_at < query.since_ms:
                break
            was = self._left(state) if leaving else None
            if query.selects(state, was) and (not query.latest or self._is_current(state)):
                versions.append(state)
                if was is not None:
                    left[state.rev] = was
            if len(versions) == limit or looked == MAX_SCAN:
                upto = state.rev
                break
        return Page(tuple(versions), upto, compacted, (), left, newest_first)

    async def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        ids = {
            state.id: state
            for candidates in self._newest_first(query)
            for state in candidates
            if query.matches(state)
        }
        found = (state.transition for state in ids.values())
        return dict(Counter(each.status.value if by == "status" else each.to for each in found))

    async def head(self) -> int:
        return self._newest()

    async def wait(self, after: int) -> int:
        self._head.advance(self._newest())  # commits do so only while somebody waits
        return await self._head.wait(after)

    async def due(self, until: int, limit: int) -> DuePage:
        return self._places.due(until, limit)

    async def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        return self._places.claim(room, limit, owner, claim, now)

    async def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        return self._places.take(versions, owner, claim, now)

    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        return self._places.renew(held, owner, now)

    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        self._places.release(held, owner, now)
        if self._head.waiting:
            self._head.hint()

    async def end_leases(self, owner: str, now: int) -> None:
        self._places.end_leases(owner, now)
        if self._head.waiting:
            self._head.hint()

    async def holdings(self, owner: str | None = None) -> tuple[Holding, ...]:
        return self._places.holdings(owner)

    async def place(self, id: str) -> Place | None:
        history = self._histories.get(id)
        return None if history is None else history.place

    async def line(self) -> Mapping[str, int]:
        return self._places.line()

    async def load(self, ref: DataRef) -> bytes:
        key = ref.rev, ref.checksum
        content = self._payloads.get(key)
        if content is not None:
            return content
        raise payload_forgotten(ref) if key in self._forgotten else payload_not_found(ref)

    async def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        others: set[str] = set()
        for key in payloads:
            if self._payloads.pop(key, None) is not None and key in self._referring:
                self._forgotten.add(key)
            others.update(self._at(rev).id for rev in self._referring.get(key, ()))
        return len(others - {id})

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        start = self._index(after + 1)
        looked = self._log[start : start + limit]
        del looked[bisect_left(looked, retention.before, key=_committed_at) :]
        stop = start + len(looked)
        upto = looked[-1].rev if looked else after
        done = stop >= len(self._log) or not retention.is_old(self._log[stop].committed_at)
        if dry_run:
            removed = [state for state in looked if self._may_remove(state, retention)]
            payloads = self._freed(removed, upto, retention)
        else:
            removed = [state for state in looked if self._removes(state, retention, after)]
            payloads = self._release(removed)
        compaction = self._summary(removed, payloads, upto, done=done)
        if removed and not dry_run:
            for key in payloads:
                self._payloads.pop(key, None)
                self._forgotten.discard(key)
            self._remove(removed, slice(start, stop))
        return compaction

    def stored(self) -> Iterator[tuple[State, str]]:
        """Past the contract, for tests: every version that is there, by rising revision, each with
        the id of its commit."""
        return zip(self._log, self._commit_ids, strict=True)

    def stored_payloads(self) -> Iterator[tuple[int, str]]:
        """Past the contract, for tests: (revision, checksum) of every payload that is there,
        forgotten or not."""
        return chain(self._payloads, self._forgotten)

    def _first_outcome(self, plan: Plan) -> tuple[State, ...]:
        """What the plan wrote when it was committed before. Raises ``RevMismatchError``."""
        versions = plan.first_outcome(self._next_version)
        if versions is None:
            raise RevMismatchError(plan.conflicts(self._latest_rev))
        return versions

    def _recorded(self, plan: Plan, record: Record) -> tuple[State, ...]:
        """What a plan comes to whose key is recorded. Raises ``RecordedError``."""
        outcome = plan.recorded(record, self._next_version)
        if isinstance(outcome, RecordedError):
            raise outcome
        return outcome

    def _next_version(self, id: str, rev: int) -> Following | None:
        """For ``Plan.first_outcome``."""
        following = next(_above(self._revs(id), rev), None)
        if following is None:
            return None
        index = self._index(following)
        state = self._log[index]
        return Following(following, state.committed_at, self._commit_ids[index], state)

    # ------------------------------------------------------------ indexes

    def _latest(self, id: str) -> State | None:
        history = self._histories.get(id)
        return None if history is None else history.latest

    def _latest_rev(self, id: str) -> int:
        history = self._histories.get(id)
        return 0 if history is None else history.latest.rev

    def _is_current(self, state: State) -> bool:
        return self._histories[state.id].latest is state

    def _revs(self, id: str) -> list[int]:
        history = self._histories.get(id)
        return [] if history is None else history.revs

    def _left(self, state: State) -> Left | None:
        """What a state was before a version of it, where that was anything else."""
        previous = self._previous[self._index(state.rev)]
        return None if previous is None else Left.of(previous).before(state)

    def _index_labels(self, previous: State | None, state: State) -> None:
        labels = state.labels
        if previous is not None:
            if previous.labels == labels:  # by far the most frequent
                for label in labels.items():
                    self._labelled[label].append(state.rev)
                    self._current_labelled[label].move_to_end(state.id)
                return
            for label in previous.labels.items():
                self._not_current(label, state.id)
            for label in previous.labels.items() - labels.items():
                self._left_labelled.setdefault(label, []).append(state.rev)
        for label in labels.items():
            self._labelled.setdefault(label, []).append(state.rev)
            self._current_labelled.setdefault(label, OrderedDict())[state.id] = None

    def _not_current(self, label: tuple[str, str], id: str) -> None:
        """The current version of a state has a label no longer."""
        ids = self._current_labelled[label]
        del ids[id]
        if not ids:
            del self._current_labelled[label]

    def _newest_first(self, query: Query) -> Iterator[Iterator[State]]:
        """Candidates for ``find``: for each alternative, by its rarest label."""
        if query.id:
            latest = self._latest(query.id)
            yield iter([] if latest is None else [latest])
        elif not query.alternatives:
            yield (history.latest for history in reversed(self._histories.values()))
        else:
            for labels in query.alternatives:
                ids = self._current_with(labels)
                yield (self._histories[id].latest for id in reversed(ids))

    def _candidates(self, query: Query, start: int, newest_first: bool) -> Iterable[State]:  # noqa: FBT001
        """Versions above a revision that may match, ascending; or below it, falling."""
        beyond = _below if newest_first else _above
        if query.id:
            return map(self._at, beyond(self._revs(query.id), start))
        if not query.alternatives:
            last = len(self._log)
            if newest_first:
                return map(self._log.__getitem__, range(min(self._index(start), last) - 1, -1, -1))
            return map(self._log.__getitem__, range(self._index(start + 1), last))
        lists = [
            revs
            for labels in query.alternatives
            for revs in self._labelled_beyond(labels, start, query, newest_first)
        ]
        if len(lists) == 1:
            return map(self._at, lists[0])
        merged = heapq.merge(*lists, reverse=newest_first)
        return map(self._at, _distinct(merged))

    def _labelled_beyond(
        self,
        labels: Mapping[str, str],
        start: int,
        query: Query,
        newest_first: bool,  # noqa: FBT001
    ) -> Iterable[Iterator[int]]:
        """The revisions above another, ascending, or below it, falling, that have the rarest of
        these labels, and if it is asked for those with which it was lost; of current versions
        alone, if that is asked for and most versions are not current."""
        beyond = _below if newest_first else _above
        indexes = [self._labelled]
        if query.leaving and not query.latest:
            indexes.append(self._left_labelled)
        found = [[index.get(label, []) for index in indexes] for label in labels.items()]
        lists = min(found, key=lambda revs: sum(map(len, revs)))
        if query.latest and len(ids := self._current_with(labels)) * FEW < len(lists[0]):
            latest = [self._histories[id].latest.rev for id in ids]
            return [beyond(latest, start)]
        return [beyond(revs, start) for revs in lists]

    def _current_with(self, labels: Mapping[str, str]) -> OrderedDict[str, None]:
        """The ids whose current versions have the rarest of these labels, in revision order."""
        nothing: OrderedDict[str, None] = OrderedDict()
        return min(
            (self._current_labelled.get(label, nothing) for label in labels.items()), key=len
        )

    # ------------------------------------------------------------ places in the log

    def _newest(self) -> int:
        """The head: revisions begin at 1, and each is in the log or was removed."""
        return len(self._log) + self._removed

    def _index(self, rev: int) -> int:
        """Where a revision is in the log; if it is not, where the next higher is."""
        if rev > self._compacted:
            return rev - 1 - self._removed
        return bisect_left(self._log, rev, key=_rev)

    def _at(self, rev: int) -> State:
        """The version at a revision that is in the log."""
        return self._log[self._index(rev)]

    def _rev_before(self, instant: int) -> int:
        """The newest revision committed before that time; see ``Driver.commit`` on their order."""
        index = bisect_left(self._log, instant, key=_committed_at)
        return self._log[index - 1].rev if index else 0

    # ------------------------------------------------------------ compaction

    def _retained(self, id: str, retention: Retention) -> Retained:
        history = self._histories[id]
        latest, revs = history.latest, history.revs
        return Retained(
            oldest=revs[0],
            latest=latest.rev,
            first_kept=revs[-retention.keep] if len(revs) >= retention.keep else 0,
            whole_goes=retention.removes_state(latest.transition.status, latest.committed_at),
        )

    def _may_remove(self, state: State, retention: Retention) -> bool:
        """Whether a version that is old enough goes in a run that began at 0."""
        return self._retained(state.id, retention).may_remove(state.rev, self._newest())

    def _removes(self, state: State, retention: Retention, after: int) -> bool:
        """Whether a version that is old enough goes in a batch that looks above a revision."""
        return self._retained(state.id, retention).removes(state.rev, self._newest(), after)

    def _freed(
        self, removed: list[State], upto: int, retention: Retention
    ) -> list[tuple[int, str]]:
        """The payloads that a batch removes in a run that began at 0."""
        return [
            key
            for key, revs in self._references(removed).items()
            if revs[-1] <= upto and all(self._may_remove(self._at(rev), retention) for rev in revs)
        ]

    def _summary(
        self, removed: list[State], payloads: list[tuple[int, str]], upto: int, *, done: bool
    ) -> Compaction:
        sizes = {key: len(self._payloads[key]) for key in payloads if key in self._payloads}
        sizes |= dict.fromkeys(self._forgotten.intersection(payloads), 0)
        size = sum(len(encode_state(state)) for state in removed) + sum(sizes.values())
        states = sum(map(self._is_current, removed))
        return Compaction(upto, len(removed), states, len(sizes), size, done)

    def _references(self, states: Iterable[State]) -> dict[tuple[int, str], list[int]]:
        """The payloads that versions refer to, with all the revisions that do."""
        return {key: self._referring[key] for state in states for key in _payloads(state)}

    def _release(self, removed: list[State]) -> list[tuple[int, str]]:
        """Remove the references of these versions; gives the payloads that have none left."""
        revs = {state.rev for state in removed}
        released: list[tuple[int, str]] = []
        for key, referring in self._references(removed).items():
            _discard(referring, removed, revs)
            if not referring:
                del self._referring[key]
                released.append(key)
        return released

    def _remove(self, removed: list[State], looked: slice) -> None:
        """Remove versions from the part of the log that was looked at, and from the indexes."""
        revs = {state.rev for state in removed}
        retained = [
            index for index in range(looked.start, looked.stop) if self._log[index].rev not in revs
        ]
        lost = {
            label
            for state in removed
            if (previous := self._previous[self._index(state.rev)]) is not None
            for label in previous.labels.items() - state.labels.items()
        }
        self._commit_ids[looked] = [self._commit_ids[index] for index in retained]
        self._previous[looked] = [self._previous[index] for index in retained]
        self._log[looked] = [self._log[index] for index in retained]
        self._removed += len(removed)
        if removed[-1].rev > self._compacted:
            self._compacted, self._compacted_at = removed[-1].rev, removed[-1].committed_at
        had = {label for state in removed for label in state.labels.items()}
        for index, labels in ((self._labelled, had), (self._left_labelled, lost)):
            for label in labels:
                labelled = index[label]
                _discard(labelled, removed, revs)
                if not labelled:
                    del index[label]
        for id in {state.id for state in removed}:
            history = self._histories[id]
            _discard(history.revs, removed, revs)
            if not history.revs:
                self._forget(history.latest)

    def _forget(self, state: State) -> None:
        """Remove a state of which no version is left from the indexes of current versions."""
        self._places.forget(state.id)
        del self._histories[state.id]
        for label in state.labels.items():
            self._not_current(label, state.id)


def _above(revs: list[int], after: int) -> Iterator[int]:
    # islice(revs, start, None) would step over everything before the start
    return map(revs.__getitem__, range(bisect_right(revs, after), len(revs)))


def _below(revs: list[int], before: int) -> Iterator[int]:
    return map(revs.__getitem__, range(bisect_left(revs, before) - 1, -1, -1))


def _distinct(revs: Iterable[int]) -> Iterator[int]:
    last = 0
    for rev in revs:
        if rev != last:
            yield rev
        last = rev


def _discard(indexed: list[int], removed: list[State], revs: set[int]) -> None:
    """Remove the revisions of versions from an entry of an index. Looks only at the part between
    the first and the last of them."""
    start = bisect_left(indexed, removed[0].rev)
    stop = bisect_right(indexed, removed[-1].rev, start)
    indexed[start:stop] = [rev for rev in indexed[start:stop] if rev not in revs]


def _payloads(state: State) -> set[tuple[int, str]]:
    """The keys of the payloads that a version refers to."""
    return {(ref.rev, ref.checksum) for ref in references(state)}


def _rev(state: State) -> int:
    return state.rev


def _committed_at(state: State) -> int:
    return state.committed_at
