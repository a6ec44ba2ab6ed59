"""Stores in files beside the one that is named, so that the same disk is measured."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from attrs import define, field, frozen

from flowstate import StoreOpenError
from flowstate.drivers.url import StoreUrl

from ..errors import BenchError
from ..machine import IN_MEMORY, file_system
from .site import COMMIT_ID, ID, INSTANT_MS, STATE, RawLimit, Site, head_of

MADE_FOR = {"mode": "rwc"}
"""Options that a store that is made here has, whatever the URL says."""


@define(eq=False)
class SQLiteSite(Site):
    """A directory beside the file that the URL names. The file itself is never made or changed."""

    _directory: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False)
    _numbers: count[int] = field(factory=count, init=False)

    @property
    def shown(self) -> str:
        return self.url.original

    def check(self) -> None:
        if self._named.exists():
            head = head_of(_url(self._named, {"mode": "ro"}))
            if head:
                raise BenchError(
                    f"{self.shown}: has states already (revision {head:,}). Measuring would not "
                    "touch it, but would load its disk. Name a file that does not exist, e.g. "
                    f"{_shown(self._named.with_name('bench.db'))}, on the disk to be measured"
                )

    def __enter__(self) -> Self:
        parent = self._named.parent
        try:
            self._directory = tempfile.TemporaryDirectory(prefix=".flowstate-bench-", dir=parent)
        except OSError as error:
            raise StoreOpenError(str(parent), f"cannot be written to: {error.strerror}") from error
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._directory is not None:
            self._directory.cleanup()

    @contextmanager
    def fresh(self) -> Generator[str]:
        with self.path() as path:
            yield _url(path, self.url.options | MADE_FOR)

    @contextmanager
    def path(self) -> Generator[Path]:
        """A file that does not exist, and is removed with what SQLite keeps beside it."""
        if self._directory is None:
            raise BenchError("the site is not open; use it inside `with`")
        path = Path(self._directory.name) / f"{next(self._numbers)}.db"
        try:
            yield path
        finally:
            for made in path.parent.glob(f"{path.name}*"):
                made.unlink()

    @property
    def raw(self) -> RawLimit:
        return _BareTable(self, self.synchronous)

    @property
    def synchronous(self) -> str:
        return self.url.options.get("synchronous", "full").lower()

    def size(self, url: str) -> int | None:
        path = Path(StoreUrl.parse(url).path)
        files = path, path.with_name(f"{path.name}-wal")
        return sum(file.stat().st_size for file in files if file.exists())

    def facts(self) -> Mapping[str, str]:
        facts = {"SQLite": sqlite3.sqlite_version, "synchronous": self.synchronous}
        if kind := file_system(self._named.parent):
            facts["file system"] = kind
        return facts

    def notes(self) -> tuple[str, ...]:
        kind = file_system(self._named.parent)
        if kind not in IN_MEMORY:
            return ()
        return (f"its directory is in memory ({kind}): a sync costs nothing, and saves nothing",)

    @property
    def _named(self) -> Path:
        return Path(self.url.path).resolve()


@frozen(eq=False)
class _BareTable:
    """One table of the columns of ``versions``, without an index besides its key."""

    site: SQLiteSite
    synchronous: str

    @property
    def about(self) -> str:
        sync = "sync" if self.synchronous == "full" else "transaction"
        return (
            "sqlite3 alone: executemany into one table with the same columns and no index, in WAL "
            f"mode with synchronous={self.synchronous}, as many rows a {sync} as flows commit at "
            "a time"
        )

    def insert(self, a_sync: int, seconds: float) -> float:
        def transaction(connection: sqlite3.Connection, first: int) -> None:
            connection.executemany(_INSERT, [_row(rev) for rev in range(first, first + a_sync)])

        return a_sync * self._transactions(transaction, a_sync, seconds)

    def payload(self, size: int, seconds: float) -> float:
        content = bytes(size)

        def transaction(connection: sqlite3.Connection, rev: int) -> None:
            connection.execute(_INSERT, _row(rev))
            connection.execute("INSERT INTO payloads VALUES (?, ?, ?)", (rev, STATE, content))

        return size * self._transactions(transaction, 1, seconds)

    def _transactions(
        self, transaction: Callable[[sqlite3.Connection, int], None], rows: int, seconds: float
    ) -> float:
        """Transactions a second, each of so many rows."""
        with self._connection() as connection:
            done = 0
            start = now = time.perf_counter()
            while not done or now < start + seconds:
                connection.execute("BEGIN IMMEDIATE")
                transaction(connection, done * rows)
                connection.execute("COMMIT")
                done += 1
                now = time.perf_counter()
            return done / (now - start)

    def lookup(self, rows: int, seconds: float) -> float:
        with self._connection() as connection:
            connection.execute("BEGIN")
            connection.executemany(_INSERT, [_row(rev, f"order-{rev}") for rev in range(rows)])
            connection.execute("COMMIT")
            connection.execute("CREATE INDEX versions_id ON versions (id)")
            done = 0
            start = now = time.perf_counter()
            while not done or now < start + seconds:
                connection.execute(
                    "SELECT state, rev FROM versions WHERE id = ? ORDER BY rev DESC LIMIT 1",
                    (f"order-{done * 7919 % rows}",),  # a prime: all over the table
                ).fetchone()
                done += 1
                now = time.perf_counter()
            return done / (now - start)

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        with (
            self.site.path() as path,
            closing(sqlite3.connect(path, isolation_level=None)) as connection,
        ):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute(
                "CREATE TABLE versions (rev INTEGER PRIMARY KEY, id TEXT, status TEXT, "
                "labels TEXT, committed_at INTEGER, commit_id TEXT, current INTEGER, "
                "state TEXT, payload_keys TEXT, due_at INTEGER, policy TEXT, alarm INTEGER, "
                "flow TEXT, lease INTEGER, since INTEGER, owner TEXT, claim TEXT, "
                "until INTEGER)"
            )
            connection.execute("CREATE TABLE payloads (rev INTEGER, checksum TEXT, content BLOB)")
            yield connection


_INSERT = "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _row(rev: int, id: str = ID) -> tuple[object, ...]:
    """A version that is taken."""
    columns = (rev, id, "running", None, INSTANT_MS, COMMIT_ID, 1, STATE, None)
    place = (INSTANT_MS, "{}", None, "step", 30_000, None, "owner", "", INSTANT_MS)
    return (*columns, *place)


def _url(path: Path, options: Mapping[str, str]) -> str:
    return f"{_shown(path)}?{urlencode(options)}"


def _shown(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"
