"""Writing plans: a group of them in one transaction, in a fixed number of statements.

The number matters more than it seems: between two statements Python's interpreter lock changes
hands, and a thread that has to win it back for every row waits most of its time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any

from attrs import define

from ...clock import Clock
from ...errors import StoreError, StoreFullError, UnknownOutcomeError
from ...plan import Plan
from ...retention import Compaction, Retention
from ..plans import GroupPlan, Latest, Outcome, ids_of
from ..schema import check_unchanged
from ..threaded import StoreWriter
from .compactor import Compactor
from .errors import translate
from .rows import COLUMNS, VersionRow, delete, labels_of, payloads_of
from .schema import VERSION

CHUNKS = (256, 64, 16, 4, 1)
"""Rows in one INSERT: few sizes, so that each is prepared once."""


@define(eq=False)
class Writer(StoreWriter):
    """Writes on one connection."""

    connection: sqlite3.Connection
    path: str
    clock: Clock

    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        try:
            return self._write_group(plans)
        except StoreFullError as error:
            if len(plans) == 1:
                return [error]
            # it may be one large plan that does not fit
            return [outcome for plan in plans for outcome in self.write([plan])]
        except StoreError as error:
            return [error] * len(plans)

    def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        execute = self.connection.execute
        revs = json.dumps([rev for _, rev in leases])
        with self._transaction():
            current = set(execute(_CURRENT, (revs,)))
            held = json.dumps([rev for id, rev in leases if (id, rev) in current])
            execute(_RENEW, (until, held))
        return frozenset(id for id, rev in leases if (id, rev) not in current)

    def compact(self, retention: Retention, after: int, limit: int) -> Compaction:
        """Remove a batch of what may be removed."""
        with self._transaction():
            return Compactor(retention, self.connection).compact(after, limit)

    def close(self) -> None:
        self.connection.close()

    # ------------------------------------------------------------ one transaction

    @contextmanager
    def _transaction(self) -> Generator[tuple[int, int]]:
        """A transaction that writes: all of it or, if anything is raised, nothing. Gives the head
        and when that was committed (ms).

        Raises ``SchemaVersionError`` if the store was migrated since it was opened.
        """
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            version, head, committed_at = self.connection.execute(_HEAD).fetchone()
            check_unchanged(self.path, version, VERSION)
            yield head or 0, committed_at or 0
            self._commit()
        except BaseException as error:
            self.connection.rollback()
            if isinstance(error, sqlite3.Error):
                raise translate(self.path, error) from error
            raise

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                raise
            raise UnknownOutcomeError(
                self.path, f"the disk failed while committing ({error})"
            ) from error

    def _write_group(self, plans: Sequence[Plan]) -> list[Outcome]:
        with self._transaction() as (head, committed_at):
            now = max(committed_at, self.clock.now())
            group = GroupPlan(head + 1, now, self._latest(ids_of(plans)))
            outcomes = [group.decide(plan, self._next_version) for plan in plans]
            if group.versions:
                self._insert(group)
        return outcomes

    def _latest(self, ids: Sequence[str]) -> dict[str, Latest[str]]:
        """The latest versions of these states, with their labels."""
        rows = self.connection.execute(_LATEST, (json.dumps(ids),))
        return {id: Latest(rev, labels) for id, rev, labels in rows}

    def _next_version(self, id: str, rev: int) -> tuple[int, int, str] | None:
        """For ``Plan.first_outcome``."""
        row: tuple[int, int, str] | None
        row = self.connection.execute(_NEXT_VERSION, (id, rev)).fetchone()
        return row

    def _insert(self, group: GroupPlan[str]) -> None:
        if group.superseded:
            revs = json.dumps([latest.rev for latest in group.superseded])
            self.connection.execute(_SUPERSEDE, (revs,))
        rows = [VersionRow.of(version) for version in group.versions]
        self._insert_rows("versions", rows)
        self._insert_labels(group, rows)
        if group.payloads:
            self._insert_rows("payloads", group.payloads)
        references = [
            (*key, row.rev) for row in rows if row.payloads for key in payloads_of(row.payloads)
        ]
        if references:
            self._insert_rows("payload_references", references)

    def _insert_labels(self, group: GroupPlan[str], rows: Sequence[VersionRow]) -> None:
        superseded = [
            label for latest in group.superseded for label in labels_of(latest.rev, latest.stored)
        ]
        delete(self.connection, "current_labels", superseded)
        labelled = [(row.current, labels_of(row.rev, row.labels)) for row in rows if row.labels]
        if labelled:
            every = [label for _, labels in labelled for label in labels]
            current = [label for is_current, labels in labelled if is_current for label in labels]
            self._insert_rows("labels", every)
            self._insert_rows("current_labels", current)

    def _insert_rows(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        done = 0
        for size in CHUNKS:
            while len(rows) - done >= size:
                values = chain.from_iterable(rows[done : done + size])
                self.connection.execute(_insertion(table, size), tuple(values))
                done += size


@lru_cache
def _insertion(table: str, rows: int) -> str:
    """The statement that inserts so many rows."""
    columns = COLUMNS[table]
    marks = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)}"


# ---------------------------------------------------------------- statements

_HEAD = """
SELECT user_version, rev, committed_at
FROM pragma_user_version LEFT JOIN versions ON rev = (SELECT max(rev) FROM versions)
"""
"""With the schema's version, also of an empty store: as it is within the transaction."""

_LATEST = """
SELECT id, rev, labels FROM versions WHERE rev IN (
    SELECT (SELECT max(rev) FROM versions WHERE id = wanted.value) FROM json_each(?) AS wanted
)
"""

_NEXT_VERSION = """
SELECT rev, committed_at, commit_id FROM versions WHERE id = ? AND rev > ? ORDER BY rev LIMIT 1
"""

_SUPERSEDE = """
UPDATE versions SET current = 0, due = NULL, due_flow = NULL
WHERE rev IN (SELECT value FROM json_each(?))
"""

_CURRENT = """
SELECT id, rev FROM versions WHERE current = 1 AND rev IN (SELECT value FROM json_each(?))
"""

_RENEW = """
UPDATE versions SET due = ? WHERE due IS NOT NULL AND rev IN (SELECT value FROM json_each(?))
"""
