"""The SQLite driver keeps every law, also between processes and after ``kill -9``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from flowstate import Driver, connect
from flowstate.testing import DriverConformance, DriverMachine, Store, StoredVersion


@frozen
class SQLiteStore(Store):
    """A file in a directory, read with plain sqlite3."""

    shared = True
    processes = True
    persistent = True

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "store.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def driver(self) -> Driver:
        return connect(self.url)

    def raw_versions(self) -> list[StoredVersion]:
        rows = self._rows("SELECT rev, id, commit_id FROM versions ORDER BY rev")
        return [StoredVersion(*row) for row in rows]

    def raw_payloads(self) -> list[tuple[int, str]]:
        return self._rows("SELECT rev, checksum FROM payloads ORDER BY rev, checksum")

    @contextmanager
    def locked(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def _rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()


class TestSQLiteDriver(DriverConformance):
    def new_store(self, tmp_path: Path) -> Store:
        return SQLiteStore(tmp_path)


class SQLiteMachine(DriverMachine):
    def new_store(self, path: Path) -> Store:
        return SQLiteStore(path)


TestSQLiteMachine = SQLiteMachine.TestCase
