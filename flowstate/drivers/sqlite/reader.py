"""Reading versions: which index to ask, and pages that look at a bounded number of versions.

Every method runs in a worker thread, on a connection of its own, inside one read transaction: the
head and the rows that a page is made of are of one moment.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

from attrs import define, field
from msgspec.structs import replace

from ...data import DataRef
from ...leases import DuePage, Holding, Place
from ...plan import Record
from ...query import Left, Page, Query, Unreadable
from ...retention import Compaction, Retention
from ...state import State
from ..compaction import Batch
from ..reader import MAX_SCAN, SCAN_PER_VERSION, DueRow, StoreReader
from . import schema
from .candidates import ANY, Candidates, Condition, Span, are, columns
from .compactor import Compactor
from .errors import translated
from .places import IS_HELD, READY_FLOWS
from .rows import ROW, left_of

MAX_REV = 2**63 - 1
FIRST_LOOK = 10
"""Current versions that are looked at first, the newest ones, for most look for one."""


_NEWEST_FIRST = Span(0, MAX_REV, falling=True)


@define(eq=False)
class Reader(StoreReader):
    """Reads on one connection."""

    connection: sqlite3.Connection
    path: str
    _version: int = field(default=0, init=False)
    """The schema's version when it was last asked for: it only ever grows."""
    _candidates: Candidates = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._candidates = Candidates(self.connection)

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
            stored: Iterable[int]
            if query.alternatives or query.id or query.latest:
                offer = self._candidates.offer(query, span, most)
                among, end, stored = are(offer.revs), offer.end, offer.revs
            else:
                end = self._scan(span, floor, most)
                part = span if end is None else span.as_far_as(end)
                among, stored = part.condition, part.revs(floor)
            matching = self._matching(query, among, span, stored)
            found = list(islice(matching, limit))
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
                for entry, _ in self._matching(query, among, _NEWEST_FIRST):
                    return self._newest_of([entry])
        return None

    def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        query = _of_current(query)
        conditions = columns(query)
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

    def owners(self) -> list[str]:
        """Everybody who has taken something."""
        with translated(self.path):
            return [owner for (owner,) in self._rows(_OWNERS)]

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
            offer = self._candidates.offer(query, span, most)
            yield are(offer.revs)
            if offer.end is None:
                break
            span = span.beyond(offer.end)
            most = min(10 * most, MAX_SCAN)

    def _matching(
        self, query: Query, among: Condition, span: Span, stored: Iterable[int] = ()
    ) -> Iterator[tuple[State | Unreadable, Left | None]]:
        """The versions that match, as far as can be told, out of those that a condition leaves, in
        the order of a span; with what their states were before, if the query is for what leaves as
        well. Where the columns decide nothing, also which of the revisions that have to be
        *stored* are missing."""
        row = f"{ROW}, was_labels, was_status, was_flow" if query.leaving else ROW
        conditions = columns(query)
        where = among & conditions
        sql = f"SELECT {row} FROM versions WHERE {where.sql} ORDER BY {span.order}"
        awaited = iter(stored if conditions == ANY else ())
        due = next(awaited, None)
        for rev, id, text, *was in self._rows(sql, *where.values):
            while due is not None and span.is_before(due, rev):
                yield self._missing(due), None
                due = next(awaited, None)
            if due == rev:
                due = next(awaited, None)
            entry = self._entry(rev, id, text)
            left = left_of(entry, *was) if was and isinstance(entry, State) else None
            if query.selects(entry, left):
                yield entry, left
        while due is not None:
            yield self._missing(due), None
            due = next(awaited, None)

    def _missing(self, rev: int) -> Unreadable:
        return Unreadable(self.path, "", rev, "it is not there, and no compaction removed it")

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

_OWNERS = """
WITH RECURSIVE owners (owner) AS (
    SELECT (SELECT owner FROM versions WHERE owner IS NOT NULL ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (
        SELECT owner FROM versions WHERE owner IS NOT NULL AND owner > owners.owner
        ORDER BY owner LIMIT 1
    ) FROM owners WHERE owner IS NOT NULL
)
SELECT owner FROM owners WHERE owner IS NOT NULL
"""
"""From one owner to the next: a step of the index each, however much they have taken."""

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
