"""Reading versions: which index to ask, and pages that look at a bounded number of versions.

Every method runs in a worker thread, on a connection of its own, inside one read transaction: the
head and the rows that a page is made of are of one moment.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from attrs import define, field, frozen

from ...data import DataRef
from ...leases import DuePage, Holding, Place
from ...plan import Record
from ...query import Page, Query, Unreadable
from ...retention import Compaction, Retention
from ...state import State
from ..compaction import Batch
from ..reader import MAX_SCAN, SCAN_PER_VERSION, DueRow, StoreReader
from . import schema
from .compactor import Compactor
from .errors import translated
from .places import IS_HELD, READY_FLOWS
from .rows import ROW


@frozen
class Condition:
    """A piece of a WHERE clause with the values for its marks."""

    sql: str
    values: tuple[Any, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        return Condition(f"{self.sql} AND {other.sql}", self.values + other.values)


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

    def read(self, query: Query, after: int, limit: int) -> Page:
        with self._snapshot():
            head = self._head()
            floor, removed_at = self._compacted()
            compacted = query.compacted(floor, removed_at)
            if query.since_ms:
                after = max(after, self._rev_before(query.since_ms, head))
            if after >= head:
                return Page((), max(after, head), compacted)
            if query.alternatives or query.id or query.latest:
                revs, upto = self._candidates(query, after, head, limit)
                among = Condition("rev IN (SELECT value FROM json_each(?))", (json.dumps(revs),))
            else:
                upto = self._scan(after, floor, head, limit)
                among = Condition("rev > ? AND rev <= ?", (after, upto))
            entries = list(islice(self._matching(query, among, "rev"), limit))
            if len(entries) == limit:
                upto = entries[-1].rev
            return Page.of(entries, upto, compacted)

    def find(self, query: Query) -> State | None:
        with self._snapshot():
            newest = [
                next(self._matching(query, among, "rev DESC", table), None)
                for table, among in self._current(query)
            ]
            return self._newest_of(filter(None, newest))

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

    def _scan(self, after: int, floor: int, head: int, limit: int) -> int:
        """Up to where a page looks at every version."""
        if after >= floor:  # there the log is whole
            return min(head, after + MAX_SCAN)
        row = self._one(_LAST_OF, after, min(MAX_SCAN, SCAN_PER_VERSION * limit))
        return row[0] if row and row[0] is not None else head

    def _candidates(self, query: Query, after: int, head: int, limit: int) -> tuple[list[int], int]:
        """Revisions that an index offers, ascending, and up to where they are all there are."""
        most = min(MAX_SCAN, SCAN_PER_VERSION * limit)
        if query.id:
            lists = [self._revs("versions", {"id": query.id}, after, most)]
        elif query.alternatives:
            table = "current_labels" if query.latest else "labels"
            lists = [self._rarest(table, labels, after, most) for labels in query.alternatives]
        else:
            lists = [self._revs("versions", {"current": 1}, after, most)]
        upto = min([revs[-1] for revs in lists if len(revs) == most], default=head)
        merged = dict.fromkeys(rev for rev in heapq.merge(*lists) if rev <= upto)
        return list(merged), upto

    def _rarest(self, table: str, labels: Mapping[str, str], after: int, most: int) -> list[int]:
        """The revisions with whichever of the labels the fewest have; of two that have as many
        as were asked for, the one that gets further."""
        lists = (
            self._revs(table, {"key": key, "value": value}, after, most)
            for key, value in labels.items()
        )
        return min(lists, key=lambda revs: (len(revs), -revs[-1] if revs else 0))

    def _revs(self, table: str, equal: Mapping[str, Any], after: int, most: int) -> list[int]:
        where = " AND ".join(f"{column} = ?" for column in equal)
        rows = self.connection.execute(
            f"SELECT rev FROM {table} WHERE {where} AND rev > ? ORDER BY rev LIMIT ?",
            (*equal.values(), after, most),
        )
        return [rev for (rev,) in rows]

    def _current(self, query: Query) -> Iterator[tuple[str, Condition]]:
        """Where current versions that may match are to be found, newest first at no cost: a table
        and a condition for each alternative."""
        if query.id:
            yield "versions", Condition("id = ? AND current = 1", (query.id,))
        elif not query.alternatives:
            yield "versions", Condition("current = 1")
        for labels in () if query.id else query.alternatives:
            label = self._rarest_current(labels)
            # CROSS JOIN keeps SQLite from collecting all of them first
            table = "current_labels CROSS JOIN versions USING (rev)"
            yield table, Condition("key = ? AND value = ?", label)

    def _rarest_current(self, labels: Mapping[str, str]) -> tuple[str, str]:
        """The label that the fewest current versions have. Counts no further than it must."""
        found, *others = labels.items()
        most = 10
        while others and most <= MAX_SCAN:
            counts = {
                (key, value): len(
                    self._revs("current_labels", {"key": key, "value": value}, 0, most)
                )
                for key, value in labels.items()
            }
            found = min(counts, key=lambda label: counts[label])
            if counts[found] < most:
                break
            most *= 10
        return found

    def _matching(
        self, query: Query, among: Condition, order: str, table: str = "versions"
    ) -> Iterator[State | Unreadable]:
        """The versions that match, as far as can be told, out of those that a condition leaves."""
        where = among & _columns(query)
        rows = self.connection.execute(
            f"SELECT {ROW} FROM {table} WHERE {where.sql} ORDER BY {order}", where.values
        )
        return filter(query.may_match, (self._entry(*row) for row in rows))

    # ------------------------------------------------------------ rows

    def _payload(self, ref: DataRef) -> bytes | None:
        with self._snapshot():
            row = self._one(_PAYLOAD, ref.rev, ref.checksum)
            return row[0] if row else None

    @contextmanager
    def _snapshot(self) -> Generator[None]:
        with translated(self.path):
            self.connection.execute("BEGIN")
            try:
                if self._version < schema.VERSION:
                    (self._version,) = self._one("PRAGMA user_version") or (0,)
                    schema.show_places(self.connection, self._version)
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


def _columns(query: Query) -> Condition:
    """What the columns can tell; the rest is decided by ``query.matches``."""
    where = Condition("current = 1") if query.latest else Condition("1")
    if query.statuses:
        marks = ",".join("?" * len(query.statuses))
        where &= Condition(f"status IN ({marks})", tuple(s.value for s in query.statuses))
    if query.id_prefix:
        prefix = query.id_prefix
        where &= Condition("substr(id, 1, ?) = ?", (len(prefix), prefix))
    return where


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
SELECT content FROM payloads WHERE rev = ? AND checksum = ?
"""
