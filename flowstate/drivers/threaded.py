"""What drivers have in common whose libraries block: one thread that writes, a few that read, one
that looks for what other processes commit.

A driver derives from ``ThreadedDriver``, its connections from ``StoreWriter`` and ``StoreReader``;
what is abstract there is what it has to write.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, Literal, TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from ..data import DataRef
from ..driver import Driver
from ..errors import FlowstateError, StoreClosedError, StoreReadOnlyError
from ..leases import Claimed, DuePage, Held, Holding, Place, Renewal
from ..plan import Plan, Record
from ..query import Page, Query, Unreadable
from ..retention import Compaction, Retention
from ..state import State
from .group_commit import GroupCommitter, Take, Taken
from .head import Head
from .plans import Outcome
from .poller import Poller, Source
from .pool import Pool
from .reader import Decoder, StoreReader, unexpected

MAX_READERS = 4
"""Reads at the same time; each has a thread and a connection."""


class StoreWriter(Decoder):
    """Writes to a store, on the one connection that does. Its methods run in the writer thread.

    Those that move places give what those of ``Driver`` promise, of at least one version.
    """

    @abstractmethod
    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        """Write what holds of these plans in one transaction; gives one outcome for each plan. A
        plan that fails fails alone."""

    @abstractmethod
    def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]: ...

    @abstractmethod
    def take(self, takes: Sequence[Take]) -> Sequence[Taken]:
        """Take what each of these asks for, in one transaction; gives what each comes to."""

    @abstractmethod
    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal: ...

    @abstractmethod
    def release(self, held: Collection[Held], owner: str, now: int) -> None: ...

    @abstractmethod
    def end_leases(self, owner: str, now: int) -> None: ...

    @abstractmethod
    def forget_records(self, before: int, limit: int) -> int: ...

    @abstractmethod
    def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Close the connection. In any thread, after all else."""


ReaderT = TypeVar("ReaderT", bound=StoreReader)
WriterT = TypeVar("WriterT", bound=StoreWriter)
T = TypeVar("T")


@define(eq=False)
class ThreadedDriver(Driver, Generic[ReaderT, WriterT]):
    """One writer thread that commits in groups, readers that never wait for it, and a poller that
    works while somebody is in ``wait``."""

    _readers: Pool[ReaderT] = field(init=False)
    _writer: WriterT = field(init=False)
    _committer: GroupCommitter = field(init=False)
    _head: Head = field(init=False)
    _poller: Poller = field(init=False)
    is_open: bool = field(default=False, init=False)

    # ------------------------------------------------------------ what a driver writes

    @property
    @abstractmethod
    def _name(self) -> str:
        """What errors and threads call the store: a path or an address, never a password."""

    @property
    def _is_read_only(self) -> bool:
        """Whether it was opened to be read only; no writing method is called then."""
        return False

    @abstractmethod
    def _open_writer(self) -> WriterT:
        """Make the store ready, as ``Driver.open`` promises. In a worker thread."""

    @abstractmethod
    def _open_reader(self) -> ReaderT:
        """Another connection that reads. In a worker thread."""

    @abstractmethod
    def _source(self) -> Source:
        """How the poller looks at the store. The writer is open."""

    @abstractmethod
    async def _compact(self, retention: Retention, after: int, limit: int) -> Compaction:
        """Remove a batch, by ``_read`` and ``_write``."""

    def _answered(self, more: bool) -> None:  # noqa: FBT001  (a callback)
        """Called in the writer thread after the outcomes of a group were handed back; *more* is to
        come. It may not raise."""

    # ------------------------------------------------------------ the contract

    async def open(self) -> None:
        try:
            self._writer = await anyio.to_thread.run_sync(self._open_writer)
        except FlowstateError:
            raise
        except Exception as error:
            raise self._own(error) from error
        self._committer = GroupCommitter(
            self._writer.write,
            self._writer.take,
            self._own,
            f"flowstate writer {self._name}",
            self._answered,
        )
        self._committer.open()
        self._readers = Pool(self._open_reader, MAX_READERS)
        self._head = Head()
        self._poller = Poller(self._source(), self._head, f"flowstate poller {self._name}")
        self.is_open = True

    async def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        with anyio.CancelScope(shield=True):
            await self._committer.close()
            await anyio.to_thread.run_sync(self._poller.close)
            await anyio.to_thread.run_sync(self._close_connections)

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        self._check_writable()
        versions = await self._committer.commit(plan)
        if versions:
            self._head.advance(versions[-1].rev)
        return versions

    async def record(self, id: str) -> Record | None:
        return await self._read(lambda reader: reader.record(id))

    async def forget_records(self, before: int, limit: int) -> int:
        return await self._write(lambda: self._writer.forget_records(before, limit))

    async def get(self, id: str, rev: int | None = None) -> State | None:
        return await self._read(lambda reader: reader.get(id, rev))

    async def find(self, query: Query) -> State | None:
        return await self._read(lambda reader: reader.find(query))

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        return await self._read(lambda reader: reader.read(query, after, limit, newest_first))

    async def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        return await self._read(lambda reader: reader.count(query, by))

    async def head(self) -> int:
        return await self._read(lambda reader: reader.head())

    async def wait(self, after: int) -> int:
        self._check_open()
        with self._poller.watching():
            return await self._head.wait(after)

    async def due(self, until: int, limit: int) -> DuePage:
        return await self._read(lambda reader: reader.due(until, limit))

    async def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        self._check_writable()
        if not await self._read(lambda reader: reader.may_claim(room, owner, claim, now)):
            return ()
        return await self._write(lambda: self._writer.claim(room, limit, owner, claim, now))

    async def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        self._check_writable()
        return await self._committer.take(Take(versions, owner, claim, now))

    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        self._check_writable()
        if not held:
            return Renewal(frozenset(), frozenset())
        return await self._write(lambda: self._writer.renew(held, owner, now))

    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        self._check_writable()
        if held:
            await self._write(lambda: self._writer.release(held, owner, now))
            self._head.hint()

    async def end_leases(self, owner: str, now: int) -> None:
        await self._write(lambda: self._writer.end_leases(owner, now))
        self._head.hint()

    async def holdings(self, owner: str | None = None) -> tuple[Holding, ...]:
        return await self._read(lambda reader: reader.holdings(owner))

    async def place(self, id: str) -> Place | None:
        return await self._read(lambda reader: reader.place(id))

    async def line(self) -> Mapping[str, int]:
        return await self._read(lambda reader: reader.line())

    async def load(self, ref: DataRef) -> bytes:
        return await self._read(lambda reader: reader.load(ref))

    async def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        self._check_writable()
        if not payloads:
            return 0
        return await self._write(lambda: self._writer.forget(id, payloads))

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        if dry_run:
            return await self._read(lambda reader: reader.dry_run(retention, after, limit))
        return await self._compact(retention, after, limit)

    # ------------------------------------------------------------ inside

    async def _read(self, read: Callable[[ReaderT], T]) -> T:
        """Read something in a worker thread."""
        self._check_open()
        try:
            return await self._readers.run(read)
        except FlowstateError:
            raise
        except Exception as error:
            raise self._own(error) from error

    async def _write(self, write: Callable[[], T]) -> T:
        """Write something in the writer thread, between groups."""
        self._check_writable()
        return await self._committer.run(write)

    def _own(self, error: Exception) -> FlowstateError:
        """An error as those of ``Driver`` are."""
        if isinstance(error, FlowstateError):
            return error
        return unexpected(self._name, error)

    def _close_connections(self) -> None:
        self._readers.close()
        self._writer.close()

    def _check_open(self) -> None:
        if not self.is_open:
            raise StoreClosedError(self._name, "is not open; use it inside `async with`")

    def _check_writable(self) -> None:
        self._check_open()
        if self._is_read_only:
            raise StoreReadOnlyError(self._name, "was opened with ?mode=ro")
