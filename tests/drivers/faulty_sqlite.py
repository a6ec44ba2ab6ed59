"""SQLite whose statements fail when they are told to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from flowstate.drivers.sqlite.connection import File
from flowstate.testing.store import Faults


class FaultyConnection(sqlite3.Connection):
    """A connection whose statements may fail."""

    faults: Faults

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.faults.meet(sql, parameters)
        return super().execute(sql, parameters)

    def rollback(self) -> None:
        self.faults.meet("ROLLBACK")
        super().rollback()


def native(kind: type[sqlite3.Error], code: int, message: str) -> Callable[[], sqlite3.Error]:
    """Makes an error as SQLite raises it."""

    def make() -> sqlite3.Error:
        error = kind(message)
        error.sqlite_errorcode, error.sqlite_errorname = code, message
        return error

    return make


NATIVES = (
    native(sqlite3.OperationalError, sqlite3.SQLITE_BUSY, "SQLITE_BUSY"),
    native(sqlite3.OperationalError, sqlite3.SQLITE_IOERR, "SQLITE_IOERR"),
    native(sqlite3.OperationalError, sqlite3.SQLITE_FULL, "SQLITE_FULL"),
    native(sqlite3.DatabaseError, sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"),
    native(sqlite3.DataError, sqlite3.SQLITE_TOOBIG, "SQLITE_TOOBIG"),
)


@frozen
class FaultyFile(File):
    """A file that is opened with such connections."""

    faults: Faults = field(factory=lambda: Faults(NATIVES))

    def connect(self, *, creates: bool = False) -> sqlite3.Connection:  # noqa: ARG002
        self.faults.meet("open")
        connection = sqlite3.connect(
            self.location,
            timeout=self.busy_timeout / 1000,
            isolation_level=None,
            check_same_thread=False,
            factory=FaultyConnection,
        )
        assert isinstance(connection, FaultyConnection)
        connection.faults = self.faults
        return connection
