"""Reading versions: which index to ask, and pages that look at a bounded number of versions.

Every method runs in a worker thread, on a connection of its own, inside one read transaction: the
head and the rows that a page is made of are of one moment.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, TypeAlias

from attrs import define, field, frozen
from msgspec.structs import replace

from ...data import DataRef
from ...leases import DuePage, Holding, Place
from ...plan import Record
from ...query import Left, Page, Query, Unreadable
from ...retention import Compaction, Retention
from ...state import State, Status
from ..compaction import Batch
from ..reader import MAX_SCAN, SCAN_PER_VERSION, DueRow, StoreReader
from . import schema
from .compactor import Compactor
from .errors import translated
from .places import IS_HELD, READY_FLOWS
from .rows import ROW, left_of

MAX_REV = 2**63 - 1
FEW_IDS = 1_000
"""States that are looked up one by one, by a prefix of their ids, at most."""
FIRST_LOOK = 10
"""Current versions that are looked at first, the newest ones, for most look for one."""


@frozen
class Condition:
    """A piece of a WHERE clause with the values for its marks."""

    sql: str
    values: tuple[Any, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        return Condition(f"{self.sql} AND {other.sql}", self.values + other.values)

    def __or__(self, other: Condition) -> Condition:
        return Condition(f"({self.sql} OR {other.sql})", self.values + other.values)


Source: TypeAlias = Condition
"""Where revisions are to be found: a table, WHERE and a condition."""
Group: TypeAlias = Sequence[Source]
"""Sources that have everything between them."""


@frozen
class Span:
    """The revisions between two others, these not counted, upwards or downwards."""

    low: int
    high: int
    falling: bool = False

    @property
    def is_empty(self) -> bool:
        return self.high - self.low <= 1

    @property
    def order(self) -> str:
        """For ORDER BY."""
        return "rev DESC" if self.falling else "rev"

    @property
    def condition(self) -> Condition:
        return Condition("rev > ? AND rev < ?", (self.low, self.high))

    def beyond(self, rev: int) -> Span:
        """What comes after a revision."""
        return Span(self.low, rev, falling=True) if self.falling else Span(rev, self.high)

    def as_far_as(self, rev: int) -> Span:
        """What comes up to a revision, that one counted."""
        if self.falling:
            return Span(rev - 1, self.high, falling=True)
        return Span(self.low, rev + 1)

    def has(self, rev: int) -> bool:
        return self.low < rev < self.high


@frozen
class Offer:
    """Revisions that an index offers, in the order of a span."""

    revs: Collection[int]
    end: int | None
    """As far as it they are all there are; None: to the end of the span."""


@define(eq=False)
class Reader(StoreReader):
    """Reads on one connection."""

    connection: sqlite3.Connection
    path: str
    _version: int = field(default=0, init=False)
    """The schema's version when it was last asked for: it only ever grows."""

    @property
    def _name(self) -> str:
        return self.path

    @property
    def is_usable(self) -> bool:
        return not self.connection.in_transaction

    def close(self) -> None:
        self.connection.close()

    def head(self) -> int:
        with self._snapshot():
            return self._head()

    def get(self, id: str, rev: int | None) -> State | None:
        with self._snapshot():
            row = self._one(_LATEST, id) if rev is None else self._one(_VERSION, rev, id)
            return None if row is None else self._newest_of([self._entry(*row)])

    def record(self, id: str) -> Record | None:
        with self._snapshot():
            if not self._has(schema.PLACES_SINCE):
                return None
            row = self._one(_RECORD, id)
            return None if row is None else Record(*row)

    def read(self, query: Query, after: int, limit: int, newest_first: bool) -> Page:  # noqa: FBT001
        if query.latest:
            query = _of_current(query)
        with self._snapshot():
            head = self._head()
            floor, removed_at = self._compacted()
            compacted = query.compacted(floor, removed_at)
            low = self._rev_before(query.since_ms, head) if query.since_ms else 0
            if newest_first:
                span, upto = Span(low, min(after, head + 1), falling=True), 1
            else:
                span, upto = Span(max(after, low), head + 1), max(after, head)
            if span.is_empty:
                return Page((), upto, compacted, newest_first=newest_first)
            most = min(MAX_SCAN, SCAN_PER_VERSION * limit)
            if query.alternatives or query.id or query.latest:
                offer = self._candidates(query, span, most)
                among, end = _are(offer.revs), offer.end
            else:
                end = self._scan(span, floor, most)
                among = (span if end is None else span.as_far_as(end)).condition
            found = list(islice(self._matching(query, among, span.order), limit))
            if len(found) == limit:
                end = found[-1][0].rev
            left = {entry.rev: left for entry, left in found if left is not None}
            return Page.of(
                [entry for entry, _ in found],
                upto if end is None else end,
                compacted,
                left,
                newest_first=newest_first,
            )

    def find(self, query: Query) -> State | None:
        query = _of_current(query)
        with self._snapshot():
            for among in self._current(query):
                for entry, _ in self._matching(query, among, "rev DESC"):
                    return self._newest_of([entry])
        return None

    def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        query = _of_current(query)
        conditions = _columns(query)
        counts = Counter[str]()
        with self._snapshot():
            for among in self._current(query):
                where = among & conditions
                sql = f"SELECT {_BY[by]}, count(*) FROM versions WHERE {where.sql} GROUP BY 1"
                counts.update(dict(self._rows(sql, *where.values)))
        return dict(counts)

    def due(self, until: int, limit: int) -> DuePage:
        with self._snapshot():
            return self._due_page(limit, lambda most: self._soonest(until, most))

    def may_claim(self, room: Mapping[str, int], owner: str, claim: str, now: int) -> bool:
        with self._snapshot():
            if self._one(IS_HELD, owner, claim) is not None:
                return True
            flows = [flow for (flow,) in self._rows(READY_FLOWS) if room.get(flow, 0) > 0]
            return bool(flows) and self._one(_IS_READY, json.dumps(flows), now) is not None

    def holdings(self, owner: str | None) -> tuple[Holding, ...]:
        with self._snapshot():
            rows = self._rows(_HOLDINGS) if owner is None else self._rows(_HOLDINGS_OF, owner)
            return tuple(
                [Holding(id, rev, flow, Place(None, *place)) for id, rev, flow, *place in rows]
            )

    def place(self, id: str) -> Place | None:
        with self._snapshot():
            row = self._one(_PLACE, id)
        if row is None:
            return None
        since, owner, claim, until = row
        return Place(since) if owner is None else Place(None, owner, claim, until)

    def line(self) -> Mapping[str, int]:
        with self._snapshot():
            return dict(self._rows(_LINE).fetchall())

    def dry_run(self, retention: Retention, after: int, limit: int) -> Compaction:
        with self._snapshot():
            schema.check_current(self.connection, self.path)
            return Compactor(retention, self.connection).dry_run(after, limit)

    def decide(self, retention: Retention, after: int, limit: int) -> Batch:
        """What a batch of compaction is about to remove."""
        with self._snapshot():
            schema.check_current(self.connection, self.path)
            return Compactor(retention, self.connection).decide(after, limit, begun_at=after)

    def _soonest(self, until: int, most: int) -> tuple[list[DueRow], int | None]:
        """For ``_due_page``."""
        rows = [DueRow(*row) for row in self._rows(_DUE, until, most)]
        following = self._one(_NEXT_DUE, until) if len(rows) < most else None
        return rows, None if following is None else following[0]

    # ------------------------------------------------------------ candidates

    def _scan(self, span: Span, floor: int, most: int) -> int | None:
        """As far as which revision a page looks at every version; None: to the end."""
        end: int | None
        if span.falling:
            end = span.high - MAX_SCAN
            if floor and end <= floor:  # the log has gaps there
                (end,) = self._one(_FIRST_OF, span.high, most) or (None,)
        else:
            end = span.low + MAX_SCAN
            if span.low < floor:
                (end,) = self._one(_LAST_OF, span.low, most) or (None,)
        return end if end is not None and not span.beyond(end).is_empty else None

    def _current(self, query: Query) -> Iterator[Condition]:
        """Where current versions that may match are to be found, part by part, the newest first:
        few at first, as most callers look for one."""
        low = self._rev_before(query.since_ms, self._head()) if query.since_ms else 0
        span = Span(low, MAX_REV, falling=True)
        most = FIRST_LOOK
        while True:
            offer = self._candidates(query, span, most)
            yield _are(offer.revs)
            if offer.end is None:
                break
            span = span.beyond(offer.end)
            most = min(10 * most, MAX_SCAN)

    def _candidates(self, query: Query, span: Span, most: int) -> Offer:
        """Revisions that indexes offer: of each alternative those that the fewest have."""
        offers = [
            min(
                (self._offered(group, span, most) for group in groups),
                key=lambda offer: _cost(offer, span),
            )
            for groups in self._groups(query, most)
        ]
        return _merged(offers, span)

    def _groups(self, query: Query, most: int) -> list[list[Group]]:
        """Where versions that may match are, for each alternative: any of the groups will do."""
        if query.id:
            return [[[Source(_OF_ID_CURRENT if query.latest else _OF_ID, (query.id,))]]]
        of_current = list(self._groups_of_current(query, most)) if query.latest else []
        if not query.alternatives:
            return [of_current or [[Source(_CURRENT)]]]
        tables = ["current_labels"] if query.latest else ["labels"]
        if query.leaving:
            tables.append("left_labels")
        return [
            [*([_with(table, label) for table in tables] for label in labels.items()), *of_current]
            for labels in query.alternatives
        ]

    def _groups_of_current(self, query: Query, most: int) -> Iterator[Group]:
        """The same, of current versions, whatever their labels."""
        if query.id_prefix:
            few = min(most, FEW_IDS)
            prefix = {"prefix": query.id_prefix, "length": len(query.id_prefix), "most": few + 1}
            revs = [rev for (rev,) in self.connection.execute(_WITH_PREFIX, prefix)]
            if len(revs) <= few:
                yield [Source(_GIVEN, (json.dumps(revs),))]
        if query.statuses and Status.RUNNING not in query.statuses:
            yield [Source(_RESTING, (status.value,)) for status in query.statuses]

    def _offered(self, group: Group, span: Span, most: int) -> Offer:
        return _merged([self._revs(source, span, most) for source in group], span)

    def _revs(self, source: Source, span: Span, most: int) -> Offer:
        where = source & span.condition
        sql = f"SELECT rev FROM {where.sql} ORDER BY {span.order} LIMIT ?"
        revs = [rev for (rev,) in self._rows(sql, *where.values, most)]
        return Offer(revs, revs[-1] if len(revs) == most else None)

    def _matching(
        self, query: Query, among: Condition, order: str
    ) -> Iterator[tuple[State | Unreadable, Left | None]]:
        """The versions that match, as far as can be told, out of those that a condition leaves;
        with what their states were before, if the query is for what leaves as well."""
        row = f"{ROW}, was_labels, was_status, was_flow" if query.leaving else ROW
        where = among & _columns(query)
        sql = f"SELECT {row} FROM versions WHERE {where.sql} ORDER BY {order}"
        for rev, id, text, *was in self._rows(sql, *where.values):
            entry = self._entry(rev, id, text)
            left = left_of(entry, *was) if was and isinstance(entry, State) else None
            if query.selects(entry, left):
                yield entry, left

    # ------------------------------------------------------------ rows

    def _payload(self, ref: DataRef) -> tuple[bytes | None] | None:
        with self._snapshot():
            row: tuple[bytes | None] | None = self.connection.execute(
                _PAYLOAD, (ref.rev, ref.checksum)
            ).fetchone()
            return row

    @contextmanager
    def _snapshot(self) -> Generator[None]:
        with translated(self.path):
            self.connection.execute("BEGIN")
            try:
                if self._version < schema.VERSION:
                    (self._version,) = self._one("PRAGMA user_version") or (0,)
                    schema.show_as_present(self.connection, self._version)
                yield
            finally:
                self.connection.rollback()

    def _head(self) -> int:
        row = self._one(_HEAD)
        head: int | None = row[0] if row else None
        return head or 0

    def _compacted(self) -> tuple[int, int]:
        """The newest version that was removed: its revision, and when it was committed."""
        if not self._has(schema.COMPACTED_SINCE):
            return 0, 0
        floor, committed_at = self._one(_COMPACTED) or (0, 0)
        return floor, committed_at

    def _has(self, version: int) -> bool:
        """Whether the schema is at that version, or a later one."""
        return self._version >= version

    def _rev_before(self, instant: int, head: int) -> int:
        """The newest revision committed before that time; see ``Driver.commit`` on their order."""
        low, high = 0, head
        while low < high:
            middle = (low + high) // 2
            row = self._one(_NEXT_TIME, middle)
            if row is not None and row[1] < instant:
                low = row[0]
            else:
                high = middle
        return low

    def _one(self, sql: str, *parameters: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self.connection.execute(sql, parameters).fetchone()
        return row

    def _rows(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return self.connection.execute(sql, parameters)


def _of_current(query: Query) -> Query:
    """The query for current versions alone, among which nothing leaves."""
    return replace(query, latest=True, leaving=False, after=0, from_now=False)


def _with(table: str, label: tuple[str, str]) -> Source:
    return Source(f"{table} WHERE key = ? AND value = ?", label)


def _are(revs: Collection[int]) -> Condition:
    """That a version is one of these."""
    return Condition("rev IN (SELECT value FROM json_each(?))", (json.dumps(list(revs)),))


def _cost(offer: Offer, span: Span) -> tuple[bool, int]:
    """What it costs to look at an offer: little if it is all there is and few; else the less, the
    further it goes."""
    if offer.end is None:
        return False, len(offer.revs)
    return True, offer.end if span.falling else -offer.end


def _merged(offers: Sequence[Offer], span: Span) -> Offer:
    """What several offer together, each revision once."""
    if len(offers) == 1:
        return offers[0]
    ends = [offer.end for offer in offers if offer.end is not None]
    end = (max if span.falling else min)(ends, default=None)
    if end is not None:
        span = span.as_far_as(end)
    merged = heapq.merge(*(offer.revs for offer in offers), reverse=span.falling)
    return Offer(dict.fromkeys(filter(span.has, merged)), end)


def _columns(query: Query) -> Condition:
    """What the columns can tell; the rest is decided by ``query.selects``."""
    where = _at(query, "status", "flow")
    if query.leaving and (query.statuses or query.flows):
        where |= _at(query, "coalesce(was_status, status)", "coalesce(was_flow, flow)")
    if query.latest and query.alternatives:
        where &= Condition(_HAS_LABELS, (_pairs(query.alternatives),))
    if query.id_prefix:
        prefix = query.id_prefix
        where &= Condition("substr(id, 1, ?) = ?", (len(prefix), prefix))
    return where


def _at(query: Query, status: str, flow: str) -> Condition:
    """That these are the status and the flow that are asked for."""
    where = Condition("1")
    if query.statuses:
        where &= _in(status, [each.value for each in query.statuses])
    if query.flows:
        # it is not known of what could not be read already when it was migrated
        where &= _in(flow, query.flows) | Condition(f"{flow} IS NULL")
    return where


def _in(what: str, values: Collection[str]) -> Condition:
    return Condition(f"{what} IN ({','.join('?' * len(values))})", tuple(values))


def _pairs(alternatives: Collection[Mapping[str, str]]) -> str:
    """Labels as JSON: for each alternative an array of pairs."""
    return json.dumps([list(labels.items()) for labels in alternatives])


# ---------------------------------------------------------------- statements

_HEAD = """
SELECT max(rev) FROM versions
"""

_LATEST = f"""
SELECT {ROW} FROM versions WHERE id = ? ORDER BY rev DESC LIMIT 1
"""

_VERSION = f"""
SELECT {ROW} FROM versions WHERE rev = ? AND id = ?
"""

_RECORD = """
SELECT digest, commit_id, rev, committed_at FROM records WHERE id = ?
"""

_OF_ID = "versions WHERE id = ?"
_OF_ID_CURRENT = "versions WHERE rev = (SELECT max(rev) FROM versions WHERE id = ?)"
_CURRENT = "versions WHERE current = 1"
_RESTING = "versions WHERE current = 1 AND status <> 'running' AND status = ?"
_GIVEN = "(SELECT value AS rev FROM json_each(?)) WHERE 1"

_WITH_PREFIX = """
WITH RECURSIVE ids (id) AS (
    SELECT (SELECT id FROM versions WHERE id >= :prefix ORDER BY id LIMIT 1)
    UNION ALL
    SELECT (SELECT id FROM versions WHERE id > ids.id ORDER BY id LIMIT 1) FROM ids
    WHERE substr(ids.id, 1, :length) = :prefix LIMIT :most
)
SELECT (SELECT max(rev) FROM versions WHERE id = ids.id) FROM ids
WHERE substr(ids.id, 1, :length) = :prefix
"""
"""From one id to the next: a step of the index each, whatever versions there are."""

_HAS_LABELS = """
EXISTS (
    SELECT 1 FROM json_each(?) AS labels WHERE NOT EXISTS (
        SELECT 1 FROM json_each(labels.value) AS label WHERE NOT EXISTS (
            SELECT 1 FROM current_labels AS has WHERE has.key = CAST(label.value ->> 0 AS TEXT)
            AND has.value = CAST(label.value ->> 1 AS TEXT) AND has.rev = versions.rev
        )
    )
)
"""

_BY: Mapping[str, str] = {"status": "status", "flow": "coalesce(flow, '')"}
"""What is counted by."""

_FIRST_OF = """
SELECT min(rev) FROM (SELECT rev FROM versions WHERE rev < ? ORDER BY rev DESC LIMIT ?)
"""
"""The first of the last so many revisions."""

_LAST_OF = """
SELECT max(rev) FROM (SELECT rev FROM versions WHERE rev > ? ORDER BY rev LIMIT ?)
"""
"""The last of the next so many revisions."""

_NEXT_TIME = """
SELECT rev, committed_at FROM versions WHERE rev > ? ORDER BY rev LIMIT 1
"""

_COMPACTED = """
SELECT rev, committed_at FROM compacted
"""

_DUE = f"""
SELECT due_at, {ROW}, policy FROM versions
WHERE due_at <= ? AND due_at IS NOT NULL ORDER BY due_at, rev LIMIT ?
"""

_NEXT_DUE = """
SELECT due_at FROM versions WHERE due_at > ? AND due_at IS NOT NULL ORDER BY due_at LIMIT 1
"""

_IS_READY = """
SELECT 1 FROM json_each(?) AS wanted WHERE EXISTS (
    SELECT 1 FROM versions WHERE flow = wanted.value AND since IS NOT NULL
    AND (alarm IS NULL OR alarm > ?)
) LIMIT 1
"""

_LINE = f"""
SELECT flow, (
    SELECT since FROM versions WHERE flow = ready.flow AND since IS NOT NULL
    ORDER BY since LIMIT 1
) FROM ({READY_FLOWS}) AS ready
"""

_HOLDINGS = """
SELECT id, rev, flow, owner, claim, until FROM versions WHERE owner IS NOT NULL
"""

_HOLDINGS_OF = """
SELECT id, rev, flow, owner, claim, until FROM versions WHERE owner = ?
"""

_PLACE = """
SELECT since, owner, claim, until FROM versions WHERE rev = (
    SELECT max(rev) FROM versions WHERE id = ?
) AND (since IS NOT NULL OR owner IS NOT NULL)
"""

_PAYLOAD = """
SELECT iif(forgotten, NULL, content) FROM payloads WHERE rev = ? AND checksum = ?
"""
