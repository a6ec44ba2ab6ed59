"""The driver: a schema of a database, and what the connections to it are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from ...clock import Clock
from ...driver import Durability
from ...errors import StoreUnreachableError
from ...plan import Record
from ...retention import Compaction, Retention
from ..threaded import ThreadedDriver
from ..url import StoreUrl
from . import schema
from .connection import Target, pauses
from .errors import is_starting, translated
from .listener import ServerSource
from .reader import Reader
from .writer import Writer

T = TypeVar("T")


@define(eq=False)
class PostgresDriver(ThreadedDriver[Reader, Writer]):
    """A store in a schema of a database, for any number of processes on any number of machines.

    One writer thread that commits in groups, readers that never wait for it, one connection that
    listens: at most six connections. A server that goes away is waited for. ``clock`` is the
    store's; None: that of the server.
    """

    target: Target
    clock: Clock | None = field(default=None, kw_only=True)
    _durability: Durability = field(init=False)
    _closing: threading.Event = field(factory=threading.Event, init=False)
    """Set once it is being closed."""

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
        """Waits for a server that is starting, and for one of several to be the primary. One that
        is not there is an error at once: its name may be wrong."""
        for pause in pauses(self.target.reconnect):
            try:
                return await super().open()
            except StoreUnreachableError as error:
                if not is_starting(error.__cause__):
                    raise
            await anyio.sleep(pause)
        return await super().open()

    async def close(self) -> None:
        """Writes what was handed in, as long as the server answers."""
        if self.is_open:
            self._closing.set()
        await super().close()

    async def record(self, id: str) -> Record | None:
        record = await super().record(id)
        if record is not None and self._durability is Durability.NODE and not self._is_read_only:
            # whoever is told that it was committed takes it for acknowledged
            await self._write(self._writer.replicate)
        return record

    # ------------------------------------------------------------ inside

    @property
    def _name(self) -> str:
        return self.target.url

    @property
    def _is_read_only(self) -> bool:
        return self.target.mode == "ro"

    def _open_writer(self) -> Writer:
        self._closing = threading.Event()
        with translated(self.target):
            connection = self.target.connect(self._closing)
        try:
            schema.prepare(connection, self.target)
            self._durability = schema.durability(connection, self.target)
        except BaseException:
            connection.close()
            raise
        return Writer(self.target, connection, self.clock, self._closing)

    def _open_reader(self) -> Reader:
        writer, written_by = self._writer, self._writer.connection
        with translated(self.target):
            connection = self.target.connect(self._closing)
        return Reader(self.target, connection, lambda: writer.connection is written_by)

    def _source(self) -> ServerSource:
        return ServerSource(self.target, self._writer.written, self._closing)

    def _answered(self, more: bool) -> None:  # noqa: FBT001  (a callback)
        self._writer.notify(more)

    async def _compact(self, retention: Retention, after: int, limit: int) -> Compaction:
        """Holds up commits only while it removes what was decided before."""
        while True:
            removal = await self._read(lambda reader: reader.removal(retention, after, limit))
            if not removal.batch.removed:
                return removal.batch.summary(())
            compaction = await self._write(partial(self._writer.compact, removal))
            if compaction is not None:
                return compaction

    async def _read(self, read: Callable[[Reader], T]) -> T:
        """Read; if the server has gone away, wait for it: reading twice is no harm."""
        for pause in pauses(self.target.reconnect):
            try:
                return await super()._read(read)
            except StoreUnreachableError:
                # its other connections are lost as well
                await anyio.to_thread.run_sync(self._readers.clear)
                await anyio.sleep(pause)
        return await super()._read(read)
