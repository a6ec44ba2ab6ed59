"""The driver: a writer thread, readers beside it, and a poller for what other processes commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from ...clock import Clock, SystemClock
from ...data import DataRef
from ...driver import Driver, Durability
from ...errors import StoreClosedError, StoreReadOnlyError
from ...leases import DuePage
from ...plan import Plan
from ...query import Page, Query
from ...retention import Compaction, Retention
from ...state import State
from ..group_commit import GroupCommitter
from ..head import Head
from ..poller import Poller
from ..pool import Pool
from ..url import StoreUrl
from . import schema
from .connection import File
from .errors import translated
from .poller import FileSource
from .reader import Reader
from .writer import Writer

T = TypeVar("T")

MAX_READERS = 4
"""Reads at the same time; each has a thread and a connection."""


@define(eq=False)
class SQLiteDriver(Driver):
    """A store in one file, for any number of processes of one machine.

    WAL; one writer thread that commits in groups; readers that never wait for it. POWER durable
    unless the file is opened with ``synchronous="normal"``.
    """

    file: File
    clock: Clock = field(factory=SystemClock, kw_only=True)
    _readers: Pool[Reader] = field(init=False)
    _writer: Writer = field(init=False)
    _group: GroupCommitter = field(init=False)
    _head: Head = field(init=False)
    _poller: Poller = field(init=False)
    _is_open: bool = field(default=False, init=False)

    @classmethod
    def from_url(cls, url: StoreUrl) -> SQLiteDriver:
        """``sqlite:///path?synchronous=full|normal&busy_timeout=MS&mode=rwc|rw|ro``"""
        return cls(File.from_url(url))

    @property
    def durability(self) -> Durability:  # type: ignore[override]
        return Durability.PROCESS if self.file.synchronous == "normal" else Durability.POWER

    async def open(self) -> None:
        connection = await anyio.to_thread.run_sync(self._prepare)
        self._readers = Pool(self._reader, MAX_READERS)
        self._writer = Writer(connection, self.file.path, self.clock)
        self._group = GroupCommitter(self._writer.write, f"flowstate writer {self.file.path}")
        self._group.open()
        self._head = Head()
        name = f"flowstate poller {self.file.path}"
        self._poller = Poller(FileSource(self.file), self._head, name)
        self._is_open = True

    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with anyio.CancelScope(shield=True):
            await self._group.close()
            await anyio.to_thread.run_sync(self._poller.close)
            await anyio.to_thread.run_sync(self._close_connections)

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        self._check_open()
        self._check_writable()
        versions = await self._group.commit(plan)
        if versions:
            self._head.advance(versions[-1].rev)
        return versions

    async def get(self, id: str, rev: int | None = None) -> State | None:
        return await self._read(lambda reader: reader.get(id, rev))

    async def find(self, query: Query) -> State | None:
        return await self._read(lambda reader: reader.find(query))

    async def read(self, query: Query, after: int, limit: int) -> Page:
        return await self._read(lambda reader: reader.read(query, after, limit))

    async def head(self) -> int:
        return await self._read(Reader.head)

    async def wait(self, after: int) -> None:
        self._check_open()
        with self._poller.watching():
            await self._head.wait(after)

    async def due(self, until: int, flows: Collection[str], limit: int) -> DuePage:
        return await self._read(lambda reader: reader.due(until, flows, limit))

    async def due_flows(self) -> tuple[str, ...]:
        return await self._read(lambda reader: reader.due_flows())

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        self._check_open()
        moved = await self._group.run(partial(self._writer.renew, leases, until))
        self._head.hint()
        return moved

    async def load(self, ref: DataRef) -> bytes:
        return await self._read(lambda reader: reader.load(ref))

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        """Waits for the writer only if there is something to remove."""
        if dry_run:
            return await self._read(lambda reader: reader.dry_run(retention, after, limit))
        found = await self._read(lambda reader: reader.decide(retention, after, limit))
        if not found.removed:
            return found.summary(())
        self._check_writable()
        return await self._group.run(partial(self._writer.compact, retention, after, limit))

    # ------------------------------------------------------------ inside

    def _prepare(self) -> sqlite3.Connection:
        """The writer's connection to a store that is ready. In a worker thread."""
        self.file.check()
        with translated(self.file.path):
            connection = self.file.connect()
            try:
                if self.file.mode != "ro":
                    schema.version(connection, self.file.path)  # before anything is changed
                    connection.execute("PRAGMA journal_mode = WAL")
                    schema.migrate(connection, self.file.path)
                else:
                    schema.version(connection, self.file.path)
            except BaseException:
                connection.close()
                raise
        return connection

    async def _read(self, read: Callable[[Reader], T]) -> T:
        self._check_open()
        return await self._readers.run(read)

    def _reader(self) -> Reader:
        with translated(self.file.path):
            return Reader(self.file.connect(), self.file.path)

    def _close_connections(self) -> None:
        self._readers.close()
        self._writer.connection.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreClosedError(self.file.path, "is not open; use it inside `async with`")

    def _check_writable(self) -> None:
        if self.file.mode == "ro":
            raise StoreReadOnlyError(self.file.path, "was opened with ?mode=ro")
