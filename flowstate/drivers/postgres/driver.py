"""The driver: a writer thread, readers beside it, a listener for what other processes commit."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
import psycopg
from attrs import define, field

from ...clock import Clock
from ...data import DataRef
from ...driver import Driver, Durability
from ...errors import StoreClosedError, StoreReadOnlyError, StoreUnreachableError
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
from .connection import Connection, Target, pauses
from .errors import translate, translated
from .listener import ServerSource
from .reader import Reader
from .writer import Writer

T = TypeVar("T")

MAX_READERS = 4
"""Reads at the same time; each has a thread and a connection."""


@define(eq=False)
class PostgresDriver(Driver):
    """A store in a schema of a database, for any number of processes on any number of machines.

    One writer thread that commits in groups, readers that never wait for it, one connection that
    listens: at most six connections. A server that goes away is waited for. ``clock`` is the
    store's; None: that of the server.
    """

    target: Target
    clock: Clock | None = field(default=None, kw_only=True)
    _durability: Durability = field(init=False)
    _readers: Pool[Reader] = field(init=False)
    _writer: Writer = field(init=False)
    _group: GroupCommitter = field(init=False)
    _head: Head = field(init=False)
    _poller: Poller = field(init=False)
    _is_open: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        asynchronous = self.target.synchronous == "off"
        self._durability = Durability.PROCESS if asynchronous else Durability.POWER

    @classmethod
    def from_url(cls, url: StoreUrl) -> PostgresDriver:
        """``postgresql://user:password@host:port/database?schema=NAME&notify=on|off&prepare=on|off
        &synchronous=on|off|local|remote_write|remote_apply&reconnect=SECONDS&mode=rwc|rw|ro``, and
        whatever libpq takes.
        """
        return cls(Target.from_url(url))

    @property
    def durability(self) -> Durability:  # type: ignore[override]
        """What the server's settings come to; before it is open, what the URL asks for."""
        return self._durability

    async def open(self) -> None:
        connection = await anyio.to_thread.run_sync(self._prepare)
        name = self.target.schema
        self._writer = Writer(self.target, connection, self.clock)
        self._group = GroupCommitter(
            self._writer.write, f"flowstate writer {name}", answered=self._writer.notify
        )
        self._group.open()
        self._readers = Pool(self._reader, MAX_READERS)
        self._head = Head()
        source = ServerSource(self.target, self._writer.written)
        self._poller = Poller(source, self._head, f"flowstate listener {name}")
        self._is_open = True

    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._writer.stop_retrying()
        with anyio.CancelScope(shield=True):
            await self._group.close()
            await anyio.to_thread.run_sync(self._poller.close)
            await anyio.to_thread.run_sync(self._close_connections)

    async def commit(self, plan: Plan) -> tuple[State, ...]:
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
        self._check_writable()
        if not leases:
            return frozenset()
        moved = await self._group.run(partial(self._writer.renew, leases, until))
        self._head.hint()
        return moved

    async def load(self, ref: DataRef) -> bytes:
        return await self._read(lambda reader: reader.load(ref))

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        """Holds up commits only while it removes what was decided before."""
        if dry_run:
            return await self._read(lambda reader: reader.dry_run(retention, after, limit))
        while True:
            removal = await self._read(lambda reader: reader.removal(retention, after, limit))
            if not removal.batch.removed:
                return removal.batch.summary(())
            self._check_writable()
            done = await self._group.run(partial(self._writer.compact, removal))
            if done is not None:
                return done

    # ------------------------------------------------------------ inside

    def _prepare(self) -> Connection:
        """The writer's connection to a store that is ready. In a worker thread."""
        try:
            connection = self.target.connect()
        except psycopg.Error as error:
            raise translate(self.target, error) from error
        try:
            schema.prepare(connection, self.target)
            self._durability = schema.durability(connection, self.target)
        except BaseException:
            connection.close()
            raise
        return connection

    def _reader(self) -> Reader:
        with translated(self.target):
            return Reader(self.target, self.target.connect())

    async def _read(self, read: Callable[[Reader], T]) -> T:
        """Read; if the server has gone away, wait for it: reading twice is no harm."""
        self._check_open()
        for pause in pauses(self.target.reconnect):
            try:
                return await self._readers.run(read)
            except StoreUnreachableError:
                # its other connections are lost as well
                await anyio.to_thread.run_sync(self._readers.clear)
                await anyio.sleep(pause)
                self._check_open()
        return await self._readers.run(read)

    def _close_connections(self) -> None:
        self._readers.close()
        self._writer.connection.close()

    def _check_writable(self) -> None:
        self._check_open()
        if self.target.mode == "ro":
            raise StoreReadOnlyError(self.target.url, "was opened with mode=ro")

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreClosedError(self.target.url, "is not open; use it inside `async with`")
