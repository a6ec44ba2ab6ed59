"""The contract between the kernel and a store.

A driver is storage and nothing more. It receives finished plans and knows no command, no flow and
no engine; all semantics live in the kernel, once. ``flowstate.testing.DriverConformance`` proves
the laws that the methods below promise.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import ClassVar, Self, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from . import clock
from .data import DataRef
from .errors import InvalidValueError
from .frozendict import EMPTY, FrozenDict
from .state import State, Status, check_text, stamped, strings

Labels: TypeAlias = Mapping[str, str]

SCAN = 1_000
"""Versions that are read at a time where there is no index to ask."""


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


class Write(Struct, frozen=True, gc=False):
    """One new version to store.

    ``state.rev`` is the revision that must be the state's latest for the plan to hold (0: it must
    not exist). ``due`` is this version's due time (ms since the epoch) or None, ``flow`` the flow
    that is then to be run.
    """

    state: State
    due: int | None
    flow: str


class Plan(Struct, frozen=True, gc=False):
    """What one commit writes: all of it or nothing.

    ``commit_id`` is unique to this plan; a plan that is committed again has the same id.
    ``requires`` are the (id, rev) that must be the latest without being written. ``payloads`` are
    stored under (first revision of the commit, checksum); references to them have ``rev`` 0 here.
    """

    commit_id: str
    writes: tuple[Write, ...]
    requires: tuple[tuple[str, int], ...] = ()
    payloads: Mapping[str, bytes] = EMPTY

    def stamp(self, first_rev: int, committed_at: int) -> tuple[State, ...]:
        """The versions that are stored if the commit begins at *first_rev*."""
        writes = self.writes
        if self.payloads:
            return tuple(
                stamped(_with_stored(write.state, first_rev), rev, committed_at)
                for rev, write in enumerate(writes, first_rev)
            )
        if len(writes) == 1:  # by far the most frequent
            return (stamped(writes[0].state, first_rev, committed_at),)
        return tuple(
            [stamped(write.state, rev, committed_at) for rev, write in enumerate(writes, first_rev)]
        )

    def expectations(self) -> list[tuple[str, int]]:
        """Every (id, rev) that must be the latest for the plan to hold."""
        return [*[(write.state.id, write.state.rev) for write in self.writes], *self.requires]


class Query(Struct, frozen=True, kw_only=True):
    """Which versions to read or watch. Conditions are joined by *and*; an empty one matches all.

    ``labels`` is a list of mappings: a version matches if *any* mapping matches, a mapping if
    *all* its pairs are among the version's labels. One mapping may be given bare. ``since`` is a
    time: versions committed at or after it. ``latest`` looks at current versions only; a watcher
    that starts there goes on with every change. ``after`` (a revision) and ``from_now`` say where
    reading starts; at most one of ``after``, ``from_now`` and ``latest`` may be given.
    """

    labels: Sequence[Labels] | Labels = ()
    id: str = ""
    id_prefix: str = ""
    status: Collection[Status] | Status = ()
    since: datetime | int = 0
    after: int = 0
    from_now: bool = False
    latest: bool = False

    def __post_init__(self) -> None:
        alternatives: Iterable[Labels] = (
            (self.labels,) if isinstance(self.labels, Mapping) else self.labels
        )
        # an empty mapping asks for nothing, so the whole condition holds for everything
        frozen = tuple(strings("Query.labels", labels) for labels in alternatives)
        force_setattr(self, "labels", frozen if all(frozen) else ())
        check_text("Query.id", self.id)
        check_text("Query.id_prefix", self.id_prefix)
        status = (self.status,) if isinstance(self.status, Status) else tuple(self.status)
        for one in status:
            if not isinstance(one, Status):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidValueError("Query.status", f"takes Status values, not {one!r}")
        force_setattr(self, "status", frozenset(status))
        force_setattr(self, "since", clock.instant("Query.since", self.since))
        check_rev("Query.after", self.after)
        if (self.after > 0) + self.from_now + self.latest > 1:
            raise InvalidValueError(
                "Query", "takes at most one of after=…, from_now=True and latest=True"
            )

    @property
    def alternatives(self) -> tuple[FrozenDict[str, str], ...]:
        """``labels``, always a tuple."""
        return self.labels  # type: ignore[return-value]

    @property
    def since_ms(self) -> int:
        """``since``, always in milliseconds."""
        return self.since  # type: ignore[return-value]

    @property
    def statuses(self) -> frozenset[Status]:
        """``status``, always a set."""
        return self.status  # type: ignore[return-value]

    def matches(self, state: State) -> bool:
        """Whether a version matches, as far as the version itself tells (not ``latest``)."""
        if self.labels:
            pairs = state.labels.items()
            if not any(labels.items() <= pairs for labels in self.alternatives):
                return False
        return (
            (not self.id or state.id == self.id)
            and (not self.id_prefix or state.id.startswith(self.id_prefix))
            and (not self.status or state.transition.status in self.statuses)
            and state.committed_at >= self.since_ms
        )


class Page(Struct, frozen=True):
    """Some matching versions in revision order, and the revision up to which they are all there
    are. Reading goes on after ``upto``.

    ``compacted`` is the highest revision that was ever removed (0: none), read in the same moment:
    above it the log is whole. With ``query.since`` it is 0 if everything that was removed had been
    committed before that time, so that nothing asked for can be missing.
    """

    versions: tuple[State, ...]
    upto: int
    compacted: int = 0


class Retention(Struct, frozen=True):
    """What compaction may remove.

    ``before`` is a time (ms since the epoch): what was committed at or after it stays. Of what is
    older, superseded versions go, but for the ``keep`` newest versions of each state (the current
    one counts). ``ended``: states whose current version is ENDED and older go whole, whatever
    ``keep`` says.
    """

    before: int
    keep: int = 1
    ended: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "before", clock.instant("Retention.before", self.before))
        if type(self.keep) is not int or self.keep < 1:
            raise InvalidValueError(
                "Retention.keep", f"takes a number of versions from 1, not {self.keep!r}"
            )


class Compaction(Struct, frozen=True):
    """What one batch of compaction did.

    ``upto`` is the revision up to which it has looked: the next batch begins after it. Counted are
    the ``versions`` that were removed, the ``states`` of which no version is left, the
    ``payloads`` that nothing refers to any more, and the ``size`` of all that in bytes: versions as
    JSON, payloads as they are. ``done``: above ``upto`` nothing can be removed.
    """

    upto: int
    versions: int = 0
    states: int = 0
    payloads: int = 0
    size: int = 0
    done: bool = False


RELEASED = clock.MAX_INSTANT_MS + 1
"""A lease that is given up at an instant is due at that instant minus this: before every instant,
so that nobody takes it for a lease that ran out."""


def instant_of(due: int) -> int:
    """The instant (ms) that a due time stands for: when it came, or when a lease was given up."""
    return due if due >= 0 else due + RELEASED


class Due(Struct, frozen=True, gc=False):
    """A current version whose due time has come, and that time as the store has it (ms)."""

    state: State
    time: int

    @property
    def at(self) -> int:
        """Since when it is due (ms)."""
        return instant_of(self.time)

    @property
    def is_released(self) -> bool:
        """Whether its lease was given up, by whoever could not go on with it."""
        return self.time < 0


class Driver(ABC):
    """A store of states. Open while inside ``async with``, on one event loop.

    Every method may raise ``StoreError`` and its kin, with the library's own error as cause.
    """

    durability: ClassVar[Durability]
    """What an acknowledged commit survives. An instance may override it."""

    @abstractmethod
    async def commit(self, plan: Plan) -> tuple[State, ...]:
        """Store every write of the plan, or nothing.

        Gives the stored versions: consecutive revisions above every earlier one, and one time that
        is never before that of an earlier revision. If any expectation does not hold, raises
        ``RevMismatchError`` with *all* that do not. If a plan with this commit id was stored
        before, gives that first outcome and stores nothing, for as long as a version that it wrote
        is there. Raises ``UnknownOutcomeError`` if it cannot tell whether the plan was stored.
        """

    @abstractmethod
    async def get(self, id: str, rev: int | None = None) -> State | None:
        """The latest version, or exactly that one; None if it does not exist."""

    @abstractmethod
    async def find(self, query: Query) -> State | None:
        """The newest of the current versions that match, or None."""

    @abstractmethod
    async def read(self, query: Query, after: int, limit: int) -> Page:
        """At most *limit* matching versions with a revision above *after*, in revision order.

        Looks at a bounded number of versions; the page says how far it looked, and looks further
        than *after* unless *after* is the head. With ``query.latest`` only versions that are
        current now; ``query.after`` and ``query.from_now`` are not the driver's business.
        Once a revision can be read, no lower one appears later.
        """

    @abstractmethod
    async def head(self) -> int:
        """The newest revision, 0 for an empty store."""

    @abstractmethod
    async def wait(self, after: int) -> None:
        """Return once there is a revision above *after*, also one from another process.

        A hint: it may return early, so look again. Costs nothing while nobody waits.
        """

    @abstractmethod
    async def due(self, until: int, flows: Collection[str], limit: int) -> tuple[Due, ...]:
        """Current versions due at or before *until* (ms) for one of *flows*, soonest first.

        Due times are whole numbers to a driver, negative ones too (``RELEASED``).
        """

    @abstractmethod
    async def next_due(self, flows: Collection[str]) -> int | None:
        """The soonest due time (ms) of a current version for one of *flows*, also if it is still
        to come; None if there is none."""

    async def due_flows(self) -> tuple[str, ...]:
        """The flows that ``due`` and ``next_due`` may be asked for, by name.

        This one looks at every current version; a driver with an index overrides it.
        """
        found: set[str] = set()
        after, head = 0, await self.head()
        query = Query(status=[Status.RUNNING, Status.PAUSED, Status.DELAYED], latest=True)
        while after < head:
            page = await self.read(query, after, SCAN)
            for state in page.versions:
                transition = state.transition
                if transition.status is Status.RUNNING:
                    found.add(transition.to)
                if transition.alarm is not None:
                    found.add(transition.alarm.to)
            after = page.upto
        return tuple(sorted(found))

    @abstractmethod
    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        """Move the due times of these (id, rev) to *until* (ms), without a new revision.

        Wakes who is in ``wait``, at least if a due time comes nearer by it.
        Gives the ids that are no longer at that revision; theirs are left alone.
        """

    @abstractmethod
    async def load(self, ref: DataRef) -> bytes:
        """A payload. Raises ``DataNotFoundError``."""

    @abstractmethod
    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        """One batch of compaction: looks at no more than *limit* versions above *after*, in
        revision order, and removes those that *retention* gives up.

        Never removes the current version of a state that has not ENDED, nor the newest version of
        the store, so that revisions and time go on. Of an ended state the current version goes
        last: a run that begins at 0 removes the state whole, and one that begins above some of its
        versions leaves what is current.

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


def check_rev(field: str, rev: object) -> None:
    """Raise ``InvalidValueError`` unless *rev* can be a revision."""
    if type(rev) is not int or rev < 0:
        raise InvalidValueError(field, f"takes a revision (a whole number from 0), not {rev!r}")


def references(state: State) -> Iterator[DataRef]:
    """The stored payloads that a version refers to, also from inside ``stacked``; one may come
    more than once."""
    for payload in state.data.values():
        if isinstance(payload, DataRef):
            yield payload
    for other in state.stacked.values():
        yield from references(other)


def _with_stored(state: State, rev: int) -> State:
    """*state* with the references of this commit (rev 0) made to point at *rev*."""
    data = {
        name: replace(ref, rev=rev) if isinstance(ref, DataRef) and ref.rev == 0 else ref
        for name, ref in state.data.items()
    }
    stacked = {name: _with_stored(other, rev) for name, other in state.stacked.items()}
    return replace(state, data=data, stacked=stacked)
