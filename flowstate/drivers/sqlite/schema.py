"""The tables of a store, and how an older store becomes a newer one.

They are meant to be read by people, with ``sqlite-utils`` or Datasette: ``versions`` is the log,
the view ``states`` the current version of every state, ``state`` the whole version as JSON text.
"""

# pyright: reportUnknownMemberType=false
# sqlite-utils leaves some parameters untyped

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ...clock import MAX_INSTANT_MS
from ...codec import decode
from ...errors import DecodeError, StoreOpenError
from ...state import RetryPolicy, State
from ..schema import check_known, check_unchanged
from .rows import labels_json, labels_of, payloads_json

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x666C6F77
"""'flow', in the header of every store of ours; https://sqlite.org/pragma.html#pragma_application_id"""

BACKFILL = 1_000
"""Versions that a migration reads at a time."""


def _create(db: Database) -> None:
    db.table("versions").create(
        {
            "rev": int,
            "id": str,
            "status": str,
            "labels": str,
            "committed_at": int,
            "commit_id": str,
            "current": int,
            "due": int,
            "due_flow": str,
            "state": str,
        },
        pk="rev",
        not_null={"id", "status", "committed_at", "commit_id", "current", "state"},
    )
    db.table("versions").create_index(["id"], "versions_id")  # an index holds the rev as well
    db.execute("CREATE INDEX versions_current ON versions (rev) WHERE current = 1")
    db.execute("CREATE INDEX versions_due ON versions (due_flow, due) WHERE due IS NOT NULL")
    for table in ("labels", "current_labels"):
        db.execute(
            f"CREATE TABLE {table} (key TEXT, value TEXT, rev INTEGER, "
            "PRIMARY KEY (key, value, rev)) WITHOUT ROWID"
        )
    db.table("payloads").create(
        {"rev": int, "checksum": str, "content": bytes},
        pk=("rev", "checksum"),
        not_null={"content"},
    )
    db.create_view(
        "states",
        "SELECT id, rev, status, state ->> '$.transition.to' AS flow, labels, "
        "datetime(committed_at / 1000, 'unixepoch') AS committed, "
        "datetime(due / 1000, 'unixepoch') AS due, state "
        "FROM versions WHERE current = 1",
    )


def _add_references(db: Database) -> None:
    """Which versions refer to which payloads, so that compaction knows the last reference to each;
    and how far compaction has come."""
    db.execute("ALTER TABLE versions ADD COLUMN payloads TEXT")
    db.execute(
        "CREATE TABLE payload_references (payload_rev INTEGER, checksum TEXT, rev INTEGER, "
        "PRIMARY KEY (payload_rev, checksum, rev)) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE compacted (rev INTEGER NOT NULL, committed_at INTEGER NOT NULL)")
    db.execute("INSERT INTO compacted VALUES (0, 0)")
    following = (
        "SELECT rev, state FROM versions WHERE rev > ? AND state LIKE '%\"stored\"%' "
        f"ORDER BY rev LIMIT {BACKFILL}"
    )
    rows = db.execute(following, (0,)).fetchall()
    while rows:
        for rev, text in rows:
            with suppress(DecodeError):  # of what is damaged nobody can tell what it refers to
                payloads = payloads_json(decode(text, State))
                db.execute("UPDATE versions SET payloads = ? WHERE rev = ?", (payloads, rev))
        rows = db.execute(following, (rows[-1][0],)).fetchall()
    db.execute(
        "INSERT INTO payload_references SELECT reference.value ->> 0, reference.value ->> 1, "
        "versions.rev FROM versions, json_each(versions.payloads) AS reference"
    )


def _add_places(db: Database) -> None:
    """Beside each current version its alarm, and if it is RUNNING where it stands, how long whoever
    takes it has it for (ms) and the policy that it goes by (JSON text); how often anything was
    released; what is recorded of commits under ids of their callers' own.

    Flowstate 0.1 does not ask for the version when it writes, and a process that runs it may have
    the store open. With columns renamed its renewals and its compaction fail as well as its
    commits, and what it reads of the log it still can.
    """
    db.execute("DROP VIEW states")
    db.execute("DROP INDEX versions_due")
    for column in (
        "policy TEXT",
        "alarm INTEGER",
        "lease INTEGER",
        "since INTEGER",
        "owner TEXT",
        "claim TEXT",
        "until INTEGER",
    ):
        db.execute(f"ALTER TABLE versions ADD COLUMN {column}")
    older = {new: old for old, new in RENAMED.items()}
    places = ", ".join(f"{older.get(name, name)} = {sql}" for name, sql in OLDER_PLACES.items())
    db.execute(
        f"UPDATE versions SET {places} "
        "WHERE current = 1 AND (due IS NOT NULL OR status = 'running')"
    )
    for old, new in RENAMED.items():
        db.execute(f"ALTER TABLE versions RENAME COLUMN {old} TO {new}")
    db.execute("CREATE INDEX versions_due ON versions (due_at) WHERE due_at IS NOT NULL")
    # with all that a claim asks for, so that it looks at no row that it does not take
    db.execute(
        "CREATE INDEX versions_ready ON versions (flow, since, rev, alarm) WHERE since IS NOT NULL"
    )
    db.execute("CREATE INDEX versions_taken ON versions (owner, claim) WHERE owner IS NOT NULL")
    db.execute("CREATE TABLE released (count INTEGER NOT NULL)")
    db.execute("INSERT INTO released VALUES (0)")
    db.execute(
        "CREATE TABLE records (id TEXT PRIMARY KEY, digest TEXT NOT NULL, commit_id TEXT NOT NULL, "
        "rev INTEGER NOT NULL, committed_at INTEGER NOT NULL) WITHOUT ROWID"
    )
    db.execute("CREATE INDEX records_committed ON records (committed_at)")
    db.create_view(
        "states",
        "SELECT id, rev, status, state ->> '$.transition.to' AS flow, labels, "
        "datetime(committed_at / 1000, 'unixepoch') AS committed, "
        "datetime(due_at / 1000, 'unixepoch') AS due, "
        "datetime(since / 1000, 'unixepoch') AS since, owner, "
        "datetime(until / 1000, 'unixepoch') AS until, state "
        "FROM versions WHERE current = 1",
    )


def _add_left(db: Database) -> None:
    """Of every version the flow that it is at, and what its state was before: of an older one as
    far as the version before is there. Which payloads were forgotten. Where current versions at
    rest are, by status.

    A payload that was forgotten is told by a column of its own: for its content to become NULL all
    payloads would have to be copied here, and copies would be left on the disk.
    """
    for column in ("was_labels TEXT", "was_status TEXT", "was_flow TEXT"):
        db.execute(f"ALTER TABLE versions ADD COLUMN {column}")
    db.execute("ALTER TABLE payloads ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0")
    db.execute(
        "CREATE TABLE left_labels (key TEXT, value TEXT, rev INTEGER, "
        "PRIMARY KEY (key, value, rev)) WITHOUT ROWID"
    )
    db.execute(f"UPDATE versions SET flow = {_FLOW.format('versions')} WHERE flow IS NULL")
    db.execute(
        "UPDATE versions SET was_status = nullif(before.status, versions.status), "
        "was_flow = nullif(before.flow, versions.flow) "
        f"FROM versions AS before WHERE before.rev = {_PREVIOUS}"
    )
    following = (
        "SELECT versions.rev, versions.labels, before.labels "
        f"FROM versions CROSS JOIN versions AS before ON before.rev = {_PREVIOUS} "
        f"WHERE versions.rev > ? AND versions.labels IS NOT before.labels "
        f"ORDER BY versions.rev LIMIT {BACKFILL}"
    )
    rows = db.execute(following, (0,)).fetchall()
    while rows:
        for rev, *labels in rows:
            _add_left_labels(db, rev, *map(labels_of, labels))
        rows = db.execute(following, (rows[-1][0],)).fetchall()
    db.execute(
        "CREATE INDEX versions_resting ON versions (status, rev) "
        "WHERE current = 1 AND status <> 'running'"
    )


def _add_left_labels(
    db: Database, rev: int, labels: Mapping[str, str], was: Mapping[str, str]
) -> None:
    if was != labels:
        db.execute("UPDATE versions SET was_labels = ? WHERE rev = ?", (labels_json(was), rev))
        for label in was.items() - labels.items():
            db.execute("INSERT INTO left_labels VALUES (?, ?, ?)", (*label, rev))


UNKNOWN_OWNER = "0.1"
"""Who has taken what flowstate 0.1 had leased: it stored no owners."""

RENAMED: Mapping[str, str] = {"due": "due_at", "due_flow": "flow", "payloads": "payload_keys"}
"""Columns of flowstate 0.1 -> their names since."""

_RUNNING = "(current = 1 AND status = 'running')"
_READY = f"({_RUNNING} AND coalesce(due, 0) < 0)"
"""What was released had a due time that was so far below zero."""
_TAKEN = f"({_RUNNING} AND coalesce(due, 0) >= 0)"
_STATE = "CASE WHEN json_valid(state) THEN state END"
_FLOW = "CASE WHEN json_valid({0}.state) THEN coalesce({0}.state ->> '$.transition.to', '') END"
_PREVIOUS = "(SELECT max(rev) FROM versions AS p WHERE p.id = versions.id AND p.rev < versions.rev)"
_ALARM = f"iif({_RUNNING}, {_STATE} ->> '$.transition.alarm.at', due)"
_SECONDS = f"coalesce({_STATE} ->> '$.retry.lease', {RetryPolicy().lease})"
"""The length of the lease, if there is one. The policy of the engine that committed it was not
stored."""

OLDER_PLACES: Mapping[str, str] = {
    "due_at": f"iif({_READY}, {_ALARM}, due)",
    "flow": f"iif({_RUNNING}, coalesce({_STATE} ->> '$.transition.to', due_flow), NULL)",
    "alarm": _ALARM,
    "lease": f"iif({_RUNNING}, iif(due IS NULL, 0, CAST({_SECONDS} * 1000 AS INTEGER)), NULL)",
    "since": f"iif({_READY}, due + {MAX_INSTANT_MS + 1}, NULL)",
    "owner": f"iif({_TAKEN}, '{UNKNOWN_OWNER}', NULL)",
    "claim": f"iif({_TAKEN}, '', NULL)",
    "until": f"iif({_TAKEN}, due, NULL)",
}
"""What the columns for places have to be for a version that flowstate 0.1 stored, by its columns.
"""

MIGRATIONS: tuple[Callable[[Database], None], ...] = (
    _create,
    _add_references,
    _add_places,
    _add_left,
)
"""Migration n makes version n + 1 of version n. Only ever add to the end."""

VERSION = len(MIGRATIONS)
COMPACTED_SINCE = 2
"""The first version that knows of compaction. Who may only read finds an older one as it is."""
PLACES_SINCE = 3
"""The first version that has places beside versions, and records of commits."""
LEFT_SINCE = 4
"""The first version that has what states were before, and payloads that were forgotten."""


_WITH_PLACES = f"""
SELECT v.*, NULL AS policy,
{", ".join(f"{sql} AS {name}" for name, sql in OLDER_PLACES.items())} FROM main.versions AS v
"""

_OLDER_VERSIONS = f"""
CREATE TEMP VIEW versions AS
SELECT v.rev, v.id, v.status, v.labels, v.committed_at, v.commit_id, v.current, v.state,
    v.due_at, v.policy, v.alarm, v.lease, v.since, v.owner, v.claim, v.until,
    coalesce(v.flow, {_FLOW.format("v")}) AS flow,
    iif(
        before.rev IS NOT NULL AND before.labels IS NOT v.labels,
        coalesce(before.labels, json_object()), NULL
    ) AS was_labels,
    nullif(before.status, v.status) AS was_status,
    nullif({_FLOW.format("before")}, {_FLOW.format("v")}) AS was_flow
FROM {{}} AS v LEFT JOIN main.versions AS before
ON before.rev = (SELECT max(rev) FROM main.versions AS p WHERE p.id = v.id AND p.rev < v.rev)
"""

_OLDER_LEFT_LABELS = """
CREATE TEMP VIEW left_labels AS SELECT had.key, had.value, v.rev
FROM main.labels AS had CROSS JOIN main.versions AS before USING (rev)
CROSS JOIN main.versions AS v ON v.rev = (
    SELECT min(rev) FROM main.versions AS n WHERE n.id = before.id AND n.rev > before.rev
) WHERE NOT EXISTS (
    SELECT 1 FROM main.labels AS has
    WHERE has.key = had.key AND has.value = had.value AND has.rev = v.rev
)
"""

_OLDER_PAYLOADS = """
CREATE TEMP VIEW payloads AS SELECT rev, checksum, content, 0 AS forgotten FROM main.payloads
"""


def version(connection: sqlite3.Connection, path: str) -> int:
    """The schema's version, 0 for an empty file. Raises ``StoreOpenError`` if it is not ours."""
    # in one statement, so of one moment: another process may be making the store
    found, application, objects = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
        "FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if application != APPLICATION_ID and (objects or found):
        raise StoreOpenError(
            path, "is a SQLite database of something else; it was left untouched. Name another file"
        )
    check_known(path, found, VERSION)
    return int(found)


def show_as_present(connection: sqlite3.Connection, version: int) -> None:
    """Have an older store, one that was opened to be read only and so is as it was, show what
    reading asks for, to this connection until its transaction ends."""
    if 0 < version < LEFT_SINCE:
        places = "main.versions" if version >= PLACES_SINCE else f"({_WITH_PLACES})"
        connection.execute(_OLDER_VERSIONS.format(places))
        connection.execute(_OLDER_LEFT_LABELS)
        connection.execute(_OLDER_PAYLOADS)


def check_current(connection: sqlite3.Connection, path: str) -> None:
    """Raise ``StoreOpenError`` for an older store, which was opened read-only and so is as it was;
    ``SchemaVersionError`` for a store that was migrated since it was opened.

    What can be read without the present version does not ask.
    """
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found < VERSION:
        raise StoreOpenError(
            path,
            f"has schema version {found}, and this takes {VERSION}; open it once without ?mode=ro "
            "to bring it there",
        )
    check_unchanged(path, found, VERSION)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring a store to the present version, in one transaction."""
    if version(connection, path) == VERSION:
        return
    # only a new or an older store needs it, and importing it takes longer than opening the store
    from sqlite_utils import Database  # noqa: PLC0415

    connection.execute("BEGIN IMMEDIATE")
    try:
        db = Database(connection, recursive_triggers=False)
        # again, now that nobody else can: two processes may have started at once
        for step in MIGRATIONS[version(connection, path) :]:
            step(db)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
