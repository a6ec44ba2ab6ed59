"""The tables of a store, and how an older store becomes a newer one.

They are meant to be read by people, with ``sqlite-utils`` or Datasette: ``versions`` is the log,
the view ``states`` the current version of every state, ``state`` the whole version as JSON text.
"""

# pyright: reportUnknownMemberType=false
# sqlite-utils leaves some parameters untyped

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sqlite_utils import Database

from ...errors import SchemaVersionError, StoreOpenError

APPLICATION_ID = 0x666C6F77
"""'flow', in the header of every store of ours; https://sqlite.org/pragma.html#pragma_application_id"""


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


MIGRATIONS: tuple[Callable[[Database], None], ...] = (_create,)
"""Migration n makes version n + 1 of version n. Only ever add to the end."""

VERSION = len(MIGRATIONS)


def version(connection: sqlite3.Connection, path: str) -> int:
    """The schema's version, 0 for an empty file. Raises ``StoreOpenError`` if it is not ours."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (objects or found):
        raise StoreOpenError(
            path, "is a SQLite database of something else; it was left untouched. Name another file"
        )
    if found > VERSION:
        raise SchemaVersionError(
            path,
            f"has schema version {found}, newer than the {VERSION} that this flowstate knows; it "
            "was left untouched. Upgrade flowstate",
        )
    return int(found)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring a store to the present version, in one transaction."""
    if version(connection, path) == VERSION:
        return
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
