"""The driver: a schema of a database, and what the connections to it are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from ...clock import Clock
from ...driver import Durability
from ...errors import StoreUnreachableError
from ...leases import session_of
from ...plan import Record
from ...retention import Compaction, Retention
from ..threaded import ThreadedDriver
from ..url import StoreUrl
from . import schema
from .connection import Target, pauses
from .errors import is_starting, translated
from .listener import ServerSource
from .presence import Session, is_direct, lock_of
from .reader import Reader
from .writer import Writer

T = TypeVar("T")


@define(eq=False)
class PostgresDriver(ThreadedDriver[Reader, Writer]):
    """A store in a schema of a database, for any number of processes on any number of machines.

    One writer thread that commits in groups, readers that never wait for it, one connection that
    listens: at most seven connections. A server that goes away is waited for. ``clock`` is the
    store's; None: that of the server.
    """

    target: Target
    clock: Clock | None = field(default=None, kw_only=True)
    _durability: Durability = field(init=False)
    _closing: threading.Event = field(factory=threading.Event, init=False)
    """Set once it is being closed."""
    _session: Session | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        asynchronous = self.target.synchronous == "off"
        self._durability = Durability.PROCESS if asynchronous else Durability.POWER

    @classmethod
    def from_url(cls, url: StoreUrl) -> PostgresDriver:
        """``postgresql://user:password@host:port/database?schema=NAME&notify=on|off&prepare=on|off
        &presence=on|off&synchronous=on|off|local|remote_write|remote_apply&reconnect=SECONDS
        &mode=rwc|rw|ro``, and whatever libpq takes.
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

    @property
    def session(self) -> str:
        return "" if self._session is None else self._session.name

    @property
    def attends(self) -> bool:
        return self._session is None or self._session.since is not None

    async def attend(self) -> None:
        if self._session is not None:
            await anyio.to_thread.run_sync(self._session.attend)

    async def owners(self) -> Mapping[str, bool | None]:
        return await self._read(self._present)

    async def close(self) -> None:
        """Writes what was handed in, as long as the server answers."""
        if self.is_open:
            self._closing.set()
        try:
            await super().close()
        finally:  # after the connections, which it says are there
            if self._session is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._session.close)
                self._session = None

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
            if self.target.presence and not self._is_read_only and is_direct(connection):
                self._session = Session(self.target)
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

    def _present(self, reader: Reader) -> Mapping[str, bool | None]:
        owners = {owner: session_of(owner) for owner in reader.owners()}
        locks = {name: lock_of(self.target, name) for name in {*owners.values(), self.session}}
        session = self._session
        since = None if session is None else session.since
        held = reader.present(list(locks.values()))
        # ours among them: else it is another server by now, and ours was not told yet
        knows = (
            session is not None and session.has_been_there(since) and locks[session.name] in held
        )
        absent = False if knows else None
        return {
            owner: (locks[name] in held or absent) if name else None
            for owner, name in owners.items()
        }

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
