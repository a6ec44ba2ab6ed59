"""The driver: a file, and what the connections to it are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from attrs import define, field

from ...clock import Clock, SystemClock
from ...driver import Durability
from ...errors import FlowstateError
from ...leases import session_of
from ...retention import Compaction, Retention
from ..threaded import ThreadedDriver
from ..url import StoreUrl
from . import schema
from .connection import File, Identity
from .errors import damaged, translated
from .poller import FileSource
from .reader import Reader
from .sessions import Session
from .writer import Writer


@define(eq=False)
class SQLiteDriver(ThreadedDriver[Reader, Writer]):
    """A store in one file, for any number of processes of one machine.

    WAL; one writer thread that commits in groups; readers that never wait for it. POWER durable
    unless the file is opened with ``synchronous="normal"``.
    """

    file: File
    clock: Clock = field(factory=SystemClock, kw_only=True)
    _identity: Identity = field(init=False)
    _session: Session | None = field(default=None, init=False)

    @classmethod
    def from_url(cls, url: StoreUrl) -> SQLiteDriver:
        """``sqlite:///path?synchronous=full|normal&busy_timeout=MS&mode=rwc|rw|ro``"""
        return cls(File.from_url(url))

    @property
    def durability(self) -> Durability:  # type: ignore[override]
        return Durability.PROCESS if self.file.synchronous == "normal" else Durability.POWER

    @property
    def session(self) -> str:
        return "" if self._session is None else self._session.name

    async def owners(self) -> Mapping[str, bool | None]:
        return await self._read(self._present)

    async def close(self) -> None:
        try:
            await super().close()
        finally:  # after the connections, which it says are there
            if self._session is not None:
                self._session.end()
                self._session = None

    # ------------------------------------------------------------ inside

    @property
    def _name(self) -> str:
        return self.file.path

    @property
    def _is_read_only(self) -> bool:
        return self.file.mode == "ro"

    def _open_writer(self) -> Writer:
        self.file.check()
        with translated(self.file.path):
            connection = self.file.connect(creates=True)
            try:
                schema.version(connection, self.file.path)  # before anything is changed
                if not self._is_read_only:
                    connection.execute("PRAGMA journal_mode = WAL")
                    # always: what compaction moves about leaves copies, which nobody finds later.
                    # Not all are overwritten even so: where SQLite builds a page anew, a part that
                    # it does not use keeps what was there
                    connection.execute("PRAGMA secure_delete = ON")
                    schema.migrate(connection, self.file.path)
            except BaseException:
                connection.close()
                raise
        self._identity = Identity(self.file)
        self._session = Session.begin(self.file.location, looks_only=self._is_read_only)
        return Writer(connection, self.file, self.clock, self._identity)

    def _open_reader(self) -> Reader:
        self._identity.check()
        with translated(self.file.path):
            return Reader(self.file.connect(), self.file.path)

    def _source(self) -> FileSource:
        return FileSource(self.file)

    def _own(self, error: Exception) -> FlowstateError:
        own = super()._own(error)
        if own is not error and isinstance(error, TypeError | ValueError | LookupError):
            return damaged(self.file.path, error)  # a column holds what nobody writes there
        return own

    def _present(self, reader: Reader) -> Mapping[str, bool | None]:
        owners, session = reader.owners(), self._session
        if session is None:
            return dict.fromkeys(owners)
        return {owner: session.is_there(session_of(owner)) for owner in owners}

    async def _compact(self, retention: Retention, after: int, limit: int) -> Compaction:
        """Waits for the writer only if there is something to remove."""
        batch = await self._read(lambda reader: reader.decide(retention, after, limit))
        if not batch.removed:
            return batch.summary(())
        return await self._write(partial(self._writer.compact, retention, after, limit))
