"""SQLite files as older releases made them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from flowstate.drivers.sqlite import schema

_FLOW = "iif(current = 1 AND status = 'running', flow, NULL)"
"""Once only what is RUNNING had its flow beside it."""


def make_older(path: Path, like: Path, version: int) -> None:
    """A file with the schema of that version, and the rows of a newer one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        for migration in schema.MIGRATIONS[:version]:
            migration(Database(old))
        old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        old.execute(f"PRAGMA user_version = {version}")
        old.execute("ATTACH ? AS newer", (str(like),))
        tables = old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            names = [row[1] for row in old.execute(f"PRAGMA main.table_info({table})")]
            newer = [_newer(name) if table == "versions" else name for name in names]
            old.execute(f"DELETE FROM {table}")  # noqa: S608
            old.execute(f"INSERT INTO {table} SELECT {', '.join(newer)} FROM newer.{table}")  # noqa: S608


def _newer(column: str) -> str:
    name = schema.RENAMED.get(column, column)
    return _FLOW if name == "flow" else name
