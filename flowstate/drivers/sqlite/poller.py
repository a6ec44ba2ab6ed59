"""Looking for what other processes commit to a file: ``PRAGMA data_version``.

The pragma reads a counter in shared memory (https://sqlite.org/pragma.html#pragma_data_version),
so a look costs microseconds and no I/O.
"""

from __future__ import annotations

import sqlite3
import threading

from attrs import define, field

from ..poller import Seen, Source
from . import schema
from .connection import File

INTERVAL_S = 0.004
"""Between two looks: how late another process's commit is noticed, at most."""


@define(eq=False)
class FileSource(Source):
    """A file, looked at again and again."""

    file: File
    _connection: sqlite3.Connection | None = field(default=None, init=False)
    _version: int | None = field(default=None, init=False)
    _woken: threading.Event = field(factory=threading.Event, init=False)

    def look(self) -> Seen | None:
        if self._connection is None:
            self._connection = self.file.connect()
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return None
        (head,) = self._connection.execute("SELECT max(rev) FROM versions").fetchone()
        released = self._released(self._connection)
        self._version = version
        return Seen(head or 0, released)

    def _released(self, connection: sqlite3.Connection) -> int:
        """How often anything was released, or leases were ended. Whatever else changes without a
        new revision, claims and renewals, need wake nobody."""
        (schema_version,) = connection.execute("PRAGMA user_version").fetchone()
        if schema_version < schema.PLACES_SINCE:  # opened to be read only, and as it was
            return 0
        (released,) = connection.execute("SELECT count FROM released").fetchone()
        return int(released)

    def pause(self) -> None:
        if self._woken.wait(INTERVAL_S):
            self._woken.clear()

    def rest(self) -> None:
        """A connection that does nothing costs nothing."""

    def wake(self) -> None:
        self._woken.set()

    def reset(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._version = None

    def close(self) -> None:
        self.reset()
