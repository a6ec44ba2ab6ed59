"""Writing plans: a group of them in one transaction, in a fixed number of statements.

The number matters more than it seems: between two statements Python's interpreter lock changes
hands, and a thread that has to win it back for every row waits most of its time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias, TypeVar

from attrs import define, field

from ...clock import Clock
from ...errors import StoreBusyError, StoreError, StoreOpenError, UnknownOutcomeError
from ...leases import Claimed, Held, Renewal
from ...plan import Following, Plan, Record
from ...query import Left, Unreadable
from ...retention import Compaction, Retention
from ..group_commit import Take, Taken
from ..plans import GroupPlan, Latest, Outcome, ids_of, keys_of, reused_by
from ..schema import check_unchanged
from ..threaded import StoreWriter
from .compactor import Compactor
from .connection import File, Identity
from .errors import translate, translated
from .places import Places
from .rows import COLUMNS, STATUSES, VersionRow, among, delete, labels_of, payloads_of
from .schema import VERSION

T = TypeVar("T")
Stored: TypeAlias = Mapping[str, str]
"""What has to be known of a stored version when it is superseded: its labels."""

WAL_PATIENCE_MS = 1_000
"""How long whoever reads older versions may hold up that the WAL is emptied."""
_FAIL_ALL = (StoreBusyError, StoreOpenError, UnknownOutcomeError)
"""Errors that are of the store, and not of one plan: each would meet them again."""
CHUNKS = (256, 64, 16, 4, 1)
"""Rows in one INSERT: few sizes, so that each is prepared once."""


@define(eq=False)
class Writer(StoreWriter):
    """Writes on one connection."""

    connection: sqlite3.Connection
    file: File
    clock: Clock
    identity: Identity
    _synchronous: str = field(init=False)
    """As the connection is set."""
    _wal_is_left: bool = field(default=False, init=False)
    """Whether somebody held it up that the WAL was emptied after something was forgotten."""

    def __attrs_post_init__(self) -> None:
        self._synchronous = self.file.synchronous

    @property
    def _name(self) -> str:
        return self.file.path

    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        try:
            if self._wal_is_left:
                self._empty_wal(patience=0)
            return self._transact(lambda: self._write(plans))
        except _FAIL_ALL as error:
            return [error] * len(plans)
        except StoreError as error:
            if len(plans) == 1:
                return [error]
        # it may be one plan that the store does not take, or that does not fit
        half = len(plans) // 2
        return [*self.write(plans[:half]), *self.write(plans[half:])]

    def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        return self._move(lambda places: places.claim(room, limit, owner, claim, now))

    def take(self, takes: Sequence[Take]) -> Sequence[Taken]:
        return self._move(
            lambda places: [
                places.take(take.versions, take.owner, take.claim, take.now) for take in takes
            ]
        )

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        return self._move(lambda places: places.renew(held, owner, now))

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        self._move(lambda places: places.release(held, owner, now))

    def end_leases(self, owner: str, now: int) -> None:
        self._move(lambda places: places.end_leases(owner, now))

    def compact(self, retention: Retention, after: int, limit: int) -> Compaction:
        """Remove a batch of what may be removed."""
        return self._transact(lambda: Compactor(retention, self.connection).compact(after, limit))

    def forget_records(self, before: int, limit: int) -> int:
        return self._transact(
            lambda: self.connection.execute(_FORGET_RECORDS, (before, limit)).rowcount
        )

    def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        """Has the content in no file any more; if somebody goes on reading what is older, once that
        is over and something else is written here."""
        keys = json.dumps(list(payloads))
        others = self._transact(lambda: self._forget(id, keys))
        self._empty_wal(min(WAL_PATIENCE_MS, self.file.busy_timeout))
        return others

    def close(self) -> None:
        self.connection.close()

    # ------------------------------------------------------------ one transaction

    def _move(self, move: Callable[[Places], T]) -> T:
        """Move places in one transaction, which waits for no disk: what follows on it does."""
        places = Places(self.connection, self._claimed)
        return self._transact(lambda: move(places), "normal")

    def _transact(self, write: Callable[[], T], synchronous: str = "") -> T:
        """Write something in one transaction: all of it or, if anything is raised, nothing. It is
        as durable as the file is to be, unless *synchronous* says less.

        Raises ``SchemaVersionError`` if the store was migrated since it was opened, and
        ``StoreOpenError`` if its file is not there any more.
        """
        try:
            if self.connection.in_transaction:  # one that could not be rolled back
                self.connection.rollback()
            self.identity.check()
            self._synchronize(synchronous or self.file.synchronous)
            self.connection.execute("BEGIN IMMEDIATE")
            # not as a table in another statement: SQLite would prepare it anew each time
            (version,) = self.connection.execute("PRAGMA user_version").fetchone()
            check_unchanged(self._name, version, VERSION)
            written = write()
            self._commit()
        except BaseException as error:
            with suppress(sqlite3.Error):
                self.connection.rollback()
            if isinstance(error, sqlite3.Error):
                raise translate(self._name, error) from error
            raise
        return written

    def _synchronize(self, synchronous: str) -> None:
        if synchronous != self._synchronous:
            self.connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                raise
            raise UnknownOutcomeError(
                self._name, f"the disk failed while committing ({error})"
            ) from error

    def _forget(self, id: str, keys: str) -> int:
        self.connection.execute(_FORGET, (keys,))
        (others,) = self.connection.execute(_OTHERS, (keys, id)).fetchone()
        return int(others)

    def _empty_wal(self, patience: int) -> None:
        with translated(self._name):
            self.connection.execute(f"PRAGMA busy_timeout = {patience}")
            try:
                found = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._wal_is_left = bool(found[0][0])
            finally:
                self.connection.execute(f"PRAGMA busy_timeout = {self.file.busy_timeout}")

    def _write(self, plans: Sequence[Plan]) -> list[Outcome]:
        if reused := reused_by(plans):
            stored = set(self.connection.execute(_STORED, (json.dumps(reused),)))
            plans = [plan.settled(stored) for plan in plans]
        group = self._group(plans)
        outcomes = [group.decide(plan, self._next_version) for plan in plans]
        if group.writes_something:
            self._insert(group)
        return outcomes

    def _group(self, plans: Sequence[Plan]) -> GroupPlan[Stored]:
        """A group to decide these plans in, with what is stored."""
        execute = self.connection.execute
        head, committed_at = execute(_HEAD).fetchone() or (0, 0)
        rows = execute(_LATEST, (json.dumps(ids_of(plans)),))
        latest = {id: _latest(*row) for id, *row in rows}
        records: dict[str, Record] = {}
        if keys := keys_of(plans):
            found = execute(_RECORDS, (json.dumps(keys),))
            records = {id: Record(*record) for id, *record in found}
        return GroupPlan(head + 1, max(committed_at, self.clock.now()), latest, records)

    def _next_version(self, id: str, rev: int) -> Following | None:
        """For ``Plan.first_outcome``."""
        row = self.connection.execute(_NEXT_VERSION, (id, rev)).fetchone()
        if row is None:
            return None
        rev, committed_at, commit_id, state = row
        return Following(rev, committed_at, commit_id, self._readable(rev, id, state))

    def _insert(self, group: GroupPlan[Stored]) -> None:
        if group.superseded:
            revs = json.dumps([latest.rev for latest in group.superseded])
            self.connection.execute(_SUPERSEDE, (revs,))
        rows = [VersionRow.of(version) for version in group.versions]
        self._insert_rows("versions", rows)
        self._insert_labels(group)
        if group.payloads:
            self._insert_rows("payloads", group.payloads)
        references = [
            (*key, row.rev)
            for row in rows
            if row.payload_keys
            for key in payloads_of(row.payload_keys)
        ]
        if references:
            self._insert_rows("payload_references", references)
        records = [
            (id, record.digest, record.commit_id, record.first_rev, record.committed_at)
            for id, record in group.new_records
        ]
        self._insert_rows("records", records)

    def _insert_labels(self, group: GroupPlan[Stored]) -> None:
        superseded = [
            (*label, latest.rev)
            for latest in group.superseded
            for label in (latest.stored or {}).items()
        ]
        delete(self.connection, "current_labels", superseded)
        every: list[tuple[str, str, int]] = []
        current: list[tuple[str, str, int]] = []
        left: list[tuple[str, str, int]] = []
        for version in group.versions:
            state = version.state
            if state.labels:
                labels = [(*label, state.rev) for label in state.labels.items()]
                every += labels
                if version.is_current:
                    current += labels
            if version.left is not None and version.left.labels:
                lost = version.left.labels.items() - state.labels.items()
                left += [(*label, state.rev) for label in lost]
        self._insert_rows("labels", every)
        self._insert_rows("current_labels", current)
        self._insert_rows("left_labels", left)

    def _insert_rows(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        done = 0
        for size in CHUNKS:
            while len(rows) - done >= size:
                values = chain.from_iterable(rows[done : done + size])
                self.connection.execute(_insertion(table, size), tuple(values))
                done += size


def _latest(rev: int, labels: str | None, status: str, flow: str | None) -> Latest[Stored]:
    """A stored version, of these columns."""
    stored = labels_of(labels)
    return Latest(rev, stored, Left(stored, STATUSES.get(status), flow))


@lru_cache
def _insertion(table: str, rows: int) -> str:
    """The statement that inserts so many rows."""
    columns = COLUMNS[table]
    marks = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)}"


# ---------------------------------------------------------------- statements

_HEAD = """
SELECT rev, committed_at FROM versions ORDER BY rev DESC LIMIT 1
"""

_LATEST = """
SELECT id, rev, labels, status, flow FROM versions WHERE rev IN (
    SELECT (SELECT max(rev) FROM versions WHERE id = wanted.value) FROM json_each(?) AS wanted
)
"""

_STORED = f"""
SELECT rev, checksum FROM payloads WHERE {among("payloads")} AND NOT forgotten
"""

_FORGET = f"""
UPDATE payloads SET content = x'', forgotten = 1 WHERE {among("payloads")} AND NOT forgotten
"""

_OTHERS = """
SELECT count(DISTINCT versions.id) FROM json_each(?) AS wanted CROSS JOIN payload_references
ON payload_rev = CAST(wanted.value ->> 0 AS INTEGER)
AND checksum = CAST(wanted.value ->> 1 AS TEXT)
CROSS JOIN versions USING (rev) WHERE versions.id <> ?
"""

_NEXT_VERSION = """
SELECT rev, committed_at, commit_id, CAST(state AS BLOB) FROM versions
WHERE id = ? AND rev > ? ORDER BY rev LIMIT 1
"""

_RECORDS = """
SELECT id, digest, commit_id, rev, committed_at FROM records
WHERE id IN (SELECT value FROM json_each(?))
"""

_FORGET_RECORDS = """
DELETE FROM records WHERE id IN (
    SELECT id FROM records WHERE committed_at < ? ORDER BY committed_at LIMIT ?
)
"""

_SUPERSEDE = """
UPDATE versions SET current = 0, due_at = NULL, policy = NULL, alarm = NULL, lease = NULL,
since = NULL, owner = NULL, claim = NULL, until = NULL
WHERE rev IN (SELECT value FROM json_each(?))
"""
