"""Writing plans: a group of them in one transaction, in a fixed number of statements.

The number matters more than it seems: between two statements Python's interpreter lock changes
hands, and a thread that has to win it back for every row waits most of its time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from attrs import define

from ...clock import Clock
from ...codec import encode_state
from ...errors import StoreFullError, UnknownOutcomeError
from ...plan import Plan
from ...retention import Compaction, Retention
from ..plans import GroupPlan, Latest, Outcome, Version, ids_of
from ..threaded import StoreWriter
from .compactor import Compactor
from .errors import translate
from .rows import delete, labels_of, payloads_json, payloads_of

CHUNKS = (256, 64, 16, 4, 1)
"""Rows in one INSERT: few sizes, so that each is prepared once."""

_Row: TypeAlias = tuple[Any, ...]


@define(eq=False)
class Writer(StoreWriter):
    """Writes on one connection."""

    connection: sqlite3.Connection
    path: str
    clock: Clock

    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        try:
            return self._transact(plans)
        except sqlite3.Error as error:
            self.connection.rollback()
            failure = translate(self.path, error)
            failure.__cause__ = error
            if isinstance(failure, StoreFullError) and len(plans) > 1:
                # it may be one large plan that does not fit
                return [outcome for plan in plans for outcome in self.write([plan])]
            return [failure] * len(plans)
        except UnknownOutcomeError as error:
            return [error] * len(plans)

    def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        execute = self.connection.execute
        revs = json.dumps([rev for _, rev in leases])
        execute("BEGIN IMMEDIATE")
        try:
            rows = execute(
                "SELECT id, rev FROM versions WHERE current = 1 "
                "AND rev IN (SELECT value FROM json_each(?))",
                (revs,),
            )
            current = {(id, rev) for id, rev in rows}
            execute(
                "UPDATE versions SET due = ? WHERE due IS NOT NULL "
                "AND rev IN (SELECT value FROM json_each(?))",
                (until, json.dumps([rev for id, rev in leases if (id, rev) in current])),
            )
            execute("COMMIT")
        except sqlite3.Error as error:
            self.connection.rollback()
            raise translate(self.path, error) from error
        return frozenset(id for id, rev in leases if (id, rev) not in current)

    def compact(self, retention: Retention, after: int, limit: int) -> Compaction:
        """Remove a batch of what may go."""
        execute = self.connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            compaction = Compactor(retention, self.connection).compact(after, limit)
            execute("COMMIT")
        except sqlite3.Error as error:
            self.connection.rollback()
            raise translate(self.path, error) from error
        return compaction

    def close(self) -> None:
        self.connection.close()

    # ------------------------------------------------------------ one transaction

    def _transact(self, plans: Sequence[Plan]) -> list[Outcome]:
        self.connection.execute("BEGIN IMMEDIATE")
        group = self._begin(plans)
        outcomes = [group.decide(plan, self._next_version) for plan in plans]
        if not group.versions:
            self.connection.rollback()
            return outcomes
        self._insert(group)
        try:
            self.connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                raise
            self.connection.rollback()
            raise UnknownOutcomeError(
                self.path, f"the disk failed while committing ({error})"
            ) from error
        return outcomes

    def _begin(self, plans: Sequence[Plan]) -> GroupPlan[str]:
        newest = self.connection.execute(
            "SELECT rev, committed_at FROM versions ORDER BY rev DESC LIMIT 1"
        ).fetchone()
        head, committed_at = newest or (0, 0)
        rows = self.connection.execute(
            "SELECT id, rev, labels FROM versions WHERE rev IN ("
            "SELECT (SELECT max(rev) FROM versions WHERE id = wanted.value) "
            "FROM json_each(?) AS wanted)",
            (json.dumps(ids_of(plans)),),
        )
        latest = {id: Latest(rev, labels) for id, rev, labels in rows}
        return GroupPlan(head + 1, max(committed_at, self.clock.now()), latest)

    def _next_version(self, id: str, rev: int) -> tuple[int, int, str] | None:
        """For ``Plan.first_outcome``."""
        row: tuple[int, int, str] | None = self.connection.execute(
            "SELECT rev, committed_at, commit_id FROM versions WHERE id = ? AND rev > ? "
            "ORDER BY rev LIMIT 1",
            (id, rev),
        ).fetchone()
        return row

    def _insert(self, group: GroupPlan[str]) -> None:
        execute = self.connection.execute
        if group.superseded:
            revs = json.dumps([latest.rev for latest in group.superseded])
            execute(
                "UPDATE versions SET current = 0, due = NULL, due_flow = NULL "
                "WHERE rev IN (SELECT value FROM json_each(?))",
                (revs,),
            )
        rows = [_row(version, group.now) for version in group.versions]
        self._insert_rows("versions", rows)
        self._insert_labels(group, rows)
        if group.payloads:
            self._insert_rows("payloads", group.payloads)
        references = [(*key, row[0]) for row in rows if row[10] for key in payloads_of(row[10])]
        if references:
            self._insert_rows("payload_references", references)

    def _insert_labels(self, group: GroupPlan[str], versions: Sequence[_Row]) -> None:
        superseded = [
            pair for latest in group.superseded for pair in labels_of(latest.rev, latest.stored)
        ]
        delete(self.connection, "current_labels", superseded)
        rows = [pair for row in versions for pair in labels_of(row[0], row[3])]
        if rows:
            self._insert_rows("labels", rows)
            current = [pair for row in versions if row[6] for pair in labels_of(row[0], row[3])]
            self._insert_rows("current_labels", current)

    def _insert_rows(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        done = 0
        for size in CHUNKS:
            while len(rows) - done >= size:
                chunk = rows[done : done + size]
                marks = f"({','.join('?' * len(chunk[0]))})"
                self.connection.execute(
                    f"INSERT INTO {table} VALUES {','.join([marks] * size)}",
                    [value for row in chunk for value in row],
                )
                done += size


def _row(version: Version, now: int) -> _Row:
    """A version as the table has it."""
    state = version.state
    due = version.write.due if version.is_current else None
    return (
        state.rev,
        state.id,
        state.transition.status.value,
        json.dumps(dict(state.labels), ensure_ascii=False) if state.labels else None,
        now,
        version.commit_id,
        int(version.is_current),
        due,
        version.write.flow if due is not None else None,
        encode_state(state).decode(),
        payloads_json(state) if state.data or state.stacked else None,
    )
