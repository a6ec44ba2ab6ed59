"""The contract between the kernel and a store.

A driver is storage and nothing more. It receives finished plans and knows no command, no flow and
no engine; all semantics live in the kernel, once. ``flowstate.testing.DriverConformance`` proves
the laws that the methods below promise.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import ClassVar, Literal, Self

from .data import DataRef
from .leases import Claimed, DuePage, Held, Holding, Place, Renewal
from .plan import Plan, Record
from .query import Page, Query, Unreadable
from .retention import Compaction, Retention
from .state import State


class Durability(enum.IntEnum):
    """What an acknowledged commit survives; each level includes those before it."""

    NONE = 0
    """Nothing: it lives as long as the driver."""
    PROCESS = 1
    """The death of the process (``kill -9``)."""
    POWER = 2
    """The death of the machine: it is on stable storage."""
    NODE = 3
    """The loss of the machine: it is on several."""


class Driver(ABC):
    """A store of states. Open while inside ``async with``, on one event loop.

    Every method may raise ``StoreError`` or a subclass of it, with the library's own error as
    cause. A version that cannot be read (its row is damaged, or newer code wrote it) stops nobody
    else: ``get`` and ``find`` raise ``UnreadableVersionError`` for it, pages have it in
    ``unreadable``, and what needs only its revision, its id and its due time goes on.
    """

    durability: ClassVar[Durability]
    """What an acknowledged commit survives. An instance may override it."""
    waits: ClassVar[bool] = True
    """Whether a commit waits for something, so that whoever waits for it may be cancelled meanwhile
    and not know what it came to."""

    @abstractmethod
    async def commit(self, plan: Plan) -> tuple[State, ...]:
        """Store every write of the plan, or nothing.

        Gives the stored versions: consecutive revisions above every earlier one, and one time that
        is never before that of an earlier revision. If any expectation does not hold, raises
        ``RevMismatchError`` with *all* that do not. If a plan with this commit id was stored
        before, gives that first outcome and stores nothing, for as long as a version that it wrote
        is there. Raises ``UnknownOutcomeError`` if it cannot tell whether the plan was stored.

        With a ``key``, ``plan.record`` is stored in the same transaction, also if nothing else is
        written. If there is a record under that id, it decides before any expectation, and nothing
        is stored: the commit comes to ``plan.recorded(record, …)``, which is given or raised.
        """

    @abstractmethod
    async def record(self, id: str) -> Record | None:
        """What is recorded under an id that a caller gave a commit. It is looked up by an index."""

    @abstractmethod
    async def forget_records(self, before: int, limit: int) -> int:
        """Remove the oldest records of commits before that time (ms), *limit* at most; gives how
        many that were. Nothing else removes one, whatever becomes of what it tells of."""

    @abstractmethod
    async def get(self, id: str, rev: int | None = None) -> State | None:
        """The latest version, or exactly that one; None if it does not exist."""

    @abstractmethod
    async def find(self, query: Query) -> State | None:
        """The newest of the current versions that match, or None."""

    @abstractmethod
    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        """At most *limit* matching versions, readable or not, with a revision above *after*, in
        revision order.

        Looks at a bounded number of versions; the page says how far it looked, and looks further
        than *after* unless *after* is the head. With ``query.latest`` only versions that are
        current now; ``query.after`` and ``query.from_now`` are not the driver's business.
        Once a revision can be read, no lower one appears later.

        With *newest_first* the same the other way: versions with a revision below *after*, in
        falling order, as far down as ``upto``, which is 1 at the end.

        With ``query.leaving``, but for ``query.latest``, also versions with which their states
        leave what matches (``Query.selects``), at the cost of the same query without it. What each
        state was before a version is stored when that is committed, and so does not go when
        compaction removes what was before; the page has it in ``left``.
        """

    @abstractmethod
    async def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        """How many current versions match, by the values of their statuses or the names of their
        flows, those without any left out; of one moment. Without any limit, so the cost goes by
        what matches. What cannot be read counts as far as can be told."""

    @abstractmethod
    async def head(self) -> int:
        """The newest revision, 0 for an empty store."""

    @abstractmethod
    async def wait(self, after: int) -> int:
        """Return once there is a revision above *after*, also one from another process; gives the
        newest revision that this driver has heard of, or *after*, whichever is higher.

        A hint: it may return early, so look again. Costs nothing while nobody waits.
        """

    @abstractmethod
    async def due(self, until: int, limit: int) -> DuePage:
        """At most *limit* current versions whose alarm comes, or whose lease ends, at or before
        *until* (ms), soonest first, and the soonest due time of those that the page does not hold.

        A *limit* of 0 asks for that time alone. All of it is of one moment.
        """

    @abstractmethod
    async def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        """Take ready versions for *owner*, each until *now* (ms) and the length of its own lease.

        *room* is how many of each flow at most, *limit* how many in all. First comes what is first
        in line of each flow, then the others; of both by line: since when they are ready, then by
        revision. They are given in this order. What is due at *now* is passed by. Each is given to
        one claim only. Asked again with the same *claim*, gives what is still taken by it, in any
        order, and takes nothing; a claim that nothing is taken by is a new one. What cannot be read
        is taken too, so that it is out of the line, and given as what could not be read.

        The cost goes by the flows that have something ready, whatever else *room* names, and by
        what is given. Looks before it locks anything. Makes no revision; need not survive the death
        of the machine.
        """

    @abstractmethod
    async def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        """The same of these (id, rev), each named once, as far as they are ready; in any order. As
        for ``claim``, what is still taken by the same *claim* is given instead if there is any."""

    @abstractmethod
    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        """Move the ends of these leases to *now* (ms) and the length of each, without a new
        revision, also of one that has run out. Tells those that have moved on or are not there, and
        those that are not taken by that claim of *owner*; they are left alone."""

    @abstractmethod
    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        """Make these ready, since *now* (ms), and wake who is in ``wait``. What is not taken by
        that claim of *owner* is left alone."""

    @abstractmethod
    async def holdings(self, owner: str | None = None) -> tuple[Holding, ...]:
        """Everything that *owner* has taken, or that anybody has (None); in any order."""

    @abstractmethod
    async def place(self, id: str) -> Place | None:
        """Where the current version of a state stands; None unless it is RUNNING."""

    @abstractmethod
    async def line(self) -> Mapping[str, int]:
        """The flows that something is ready for, each with the instant (ms) since which the first
        in its line is ready. The cost goes by these flows, not by how much is ready."""

    @property
    def session(self) -> str:
        """What others know this driver by while it is open, on stores that can tell who died: the
        store knows at once that a session is over whose process is gone. Empty: this one cannot.

        It is another one for each driver that is opened. Where it may be wrong it may only be so
        for a while, and safety never rests on it.
        """
        return ""

    @property
    def attends(self) -> bool:
        """Whether others can see the session now. Whoever takes something for an owner of this
        session calls ``attend`` before if they cannot: it would seem to be taken by the dead."""
        return True

    async def attend(self) -> None:
        """Have the session seen by others, from now on until the driver is closed or dies."""
        return

    async def owners(self) -> Mapping[str, bool | None]:
        """Everybody who has taken something, and whether their session (``session_of``) is there:
        False if it is known to be over, None if this cannot be told. The cost goes by the owners,
        not by what they have taken."""
        return dict.fromkeys(holding.place.owner for holding in await self.holdings())

    @abstractmethod
    async def end_leases(self, owner: str, now: int) -> None:
        """Have the leases of all that *owner* has taken end at *now* (ms), so that it is due, but
        for what is taken without end; one that ends before stays as it is."""

    @abstractmethod
    async def load(self, ref: DataRef) -> bytes:
        """A payload. Raises ``DataNotFoundError``, ``DataForgottenError`` if it was forgotten."""

    @abstractmethod
    async def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        """Remove the content of these payloads, each a revision and a checksum, and keep all else:
        versions and references to it stay as they are.

        ``load`` raises ``DataForgottenError`` for them from then on. To ``Plan.settled`` such a
        payload is not there; compaction removes what is left of it with the last version that
        refers to it, and counts it with no bytes. All or nothing; what is not stored is passed by.
        Gives how many states besides *id* have a version that refers to one of them.
        """

    @abstractmethod
    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        """One batch of compaction: looks at no more than *limit* versions above *after*, in
        revision order, and removes those that *retention* leaves to be removed.

        Never removes the current version of a state that does not go whole
        (``Retention.removes_state``), nor the newest version of the store, so that revisions and
        time go on. Of a state that goes whole the current version goes last: a run that begins at 0
        removes all of it, and one that begins above some of its versions leaves what is current.

        A payload goes with the last version that refers to it, of whatever state, also from inside
        ``stacked``. All of a batch happens or nothing, also to readers, whose pages tell of it in
        ``compacted``. A batch may look at less than *limit*, but further than *after* unless it is
        ``done``.

        With *dry_run* nothing changes, and what is counted is what this batch would do in a run
        that began at 0.
        """

    @abstractmethod
    async def open(self) -> None:
        """Make ready, creating what is missing. Raises ``StoreOpenError`` and leaves all as it
        was if the store cannot be used."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was acknowledged and let go of everything."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
