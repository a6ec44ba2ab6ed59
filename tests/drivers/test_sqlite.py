"""The SQLite driver keeps every law, also between processes and after ``kill -9``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from flowstate import Driver, connect
from flowstate.drivers.sqlite import SQLiteDriver
from flowstate.testing import DriverConformance, DriverMachine, Store, StoredVersion
from flowstate.testing.store import Faults

from .faulty_sqlite import NATIVES, FaultyFile


@define
class SQLiteStore(Store):
    """A file in a directory, read with plain sqlite3."""

    shared = True
    processes = True
    persistent = True

    directory: Path
    _faults: Faults | None = field(default=None, init=False)

    @property
    def path(self) -> Path:
        return self.directory / "store.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def driver(self) -> Driver:
        if self._faults is None:
            return connect(self.url)
        return SQLiteDriver(FaultyFile(str(self.path), faults=self._faults))

    def faults(self) -> Faults:
        self._faults = Faults(NATIVES)
        return self._faults

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
