"""A plan: what one commit writes, as a driver is given it.

The engine decides a plan (``transitions.plan``), from values that were checked when they were made;
a driver checks its expectations, stamps it with revisions and a time, and stores it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from .data import DataRef
from .errors import FlowstateError
from .frozendict import EMPTY
from .leases import Place
from .state import RetryPolicy, State, Transition


class Following(Struct, frozen=True, gc=False):
    """The oldest version of a state that is stored above some revision."""

    rev: int
    committed_at: int
    """ms"""
    commit_id: str
    """That of the commit which wrote it."""
    state: State | None
    """The version; None if it cannot be read."""


NextVersion: TypeAlias = Callable[[str, int], Following | None]
"""Gives what follows on a revision of a state (id), if anything does."""


class Write(Struct, frozen=True, gc=False):
    """One new version to store.

    ``state.rev`` is the revision that must be the state's latest for the plan to hold (0: it must
    not exist). All the rest is about the version for as long as it is current.
    """

    state: State
    policy: RetryPolicy | None = None
    """The policy that it goes by; None if the state has its own, or if it waits for nothing."""
    lease: int = 0
    """How long (ms) whoever takes it has it for; 0: for ever."""
    place: Place | None = None
    """Where it stands, if it is RUNNING."""

    @property
    def alarm(self) -> int | None:
        """When its alarm comes (ms)."""
        alarm = self.state.transition.alarm
        return None if alarm is None else alarm.at


class CommitKey(Struct, frozen=True, gc=False):
    """An id that a caller gave a commit, and the digest of what it commits (``keys.key_of``)."""

    id: str
    digest: str


class Record(Struct, frozen=True, gc=False):
    """What is stored of a commit that a caller gave an id, apart from the versions that it wrote,
    so that it outlives them: the ``commit_id`` of its plan, its first revision, and when it was
    committed (ms)."""

    digest: str
    commit_id: str
    first_rev: int
    committed_at: int


class RecordedError(FlowstateError):
    """For the kernel: another plan was committed under the same key, and ``record`` is of that."""

    def __init__(self, id: str, record: Record) -> None:
        super().__init__(f"a commit was stored before with commit_id {id!r}: {record}")
        self.id = id
        self.record = record

    def __reduce__(self) -> tuple[type, tuple[str, Record]]:
        return type(self), (self.id, self.record)


class Plan(Struct, frozen=True, gc=False):
    """What one commit writes: all of it or nothing.

    ``commit_id`` is unique to this plan; a plan that is committed again has the same id.
    ``requires`` are the (id, rev) that must be the latest without being written. ``payloads`` are
    stored under (first revision of the commit, checksum); references to them have ``rev`` 0 here.
    ``key`` is there if the caller gave the commit an id: of plans with equal ids only one is
    stored, whatever else they expect.
    ``reused`` is content that was stored before, by the (rev, checksum) that the writes refer to: a
    driver calls ``settled`` first, to store again what is gone.
    """

    commit_id: str
    writes: tuple[Write, ...]
    requires: tuple[tuple[str, int], ...] = ()
    payloads: Mapping[str, bytes] = EMPTY
    key: CommitKey | None = None
    reused: Mapping[tuple[int, str], bytes] = EMPTY

    def settled(self, stored: Container[tuple[int, str]]) -> Plan:
        """The plan for a store that has these payloads: what it lacks of ``reused`` is among those
        that the plan stores. To be asked in the transaction that writes the plan."""
        gone = {key: content for key, content in self.reused.items() if key not in stored}
        if not gone:
            return self

        def is_gone(ref: DataRef) -> bool:
            return (ref.rev, ref.checksum) in gone

        writes = [replace(each, state=_pointed(each.state, 0, is_gone)) for each in self.writes]
        payloads = {checksum: content for (_, checksum), content in gone.items()}
        return replace(self, writes=tuple(writes), payloads={**self.payloads, **payloads})

    def stamp(self, first_rev: int, committed_at: int) -> tuple[State, ...]:
        """The versions that are stored if the commit begins at *first_rev*."""
        writes = self.writes
        if self.payloads:
            return tuple(
                stamped(_pointed(write.state, first_rev, _is_own), rev, committed_at)
                for rev, write in enumerate(writes, first_rev)
            )
        if len(writes) == 1:  # by far the most frequent; ``stamped``, without the call
            new = _copy(writes[0].state)
            force_setattr(new, "rev", first_rev)
            force_setattr(new, "committed_at", committed_at)
            return (new,)
        return tuple(
            [stamped(write.state, rev, committed_at) for rev, write in enumerate(writes, first_rev)]
        )

    def expectations(self) -> list[tuple[str, int]]:
        """Every (id, rev) that must be the latest for the plan to hold."""
        return [*[(write.state.id, write.state.rev) for write in self.writes], *self.requires]

    def conflicts(self, latest_rev: Callable[[str], int]) -> dict[str, tuple[int, int]]:
        """The ids whose latest revision is not the expected one: id -> (expected, found).

        *latest_rev* gives the latest revision of an id, 0 if there is no such state. The plan holds
        if nothing conflicts.
        """
        conflicts: dict[str, tuple[int, int]] = {}
        for id, expected in self.expectations():
            found = latest_rev(id)
            if found != expected:
                conflicts[id] = (expected, found)
        return conflicts

    def first_outcome(self, next_version: NextVersion) -> tuple[State, ...] | None:
        """The versions that the plan wrote if it was committed before, for as long as one of them
        is stored.

        What it wrote of a state is the very next version above the revision that it expected; a
        later one never is its own. So whoever asks needs no index of commit ids, and need not ask
        unless an expectation fails: what the plan wrote is in its way. What is not stored any more
        is made again from the plan.
        """
        for place, write in enumerate(self.writes):
            found = next_version(write.state.id, write.state.rev)
            if found is not None and found.commit_id == self.commit_id:
                return self._stored(found.rev - place, found.committed_at, next_version)
        return None

    def _stored(
        self, first_rev: int, committed_at: int, next_version: NextVersion
    ) -> tuple[State, ...]:
        """The versions that the plan wrote, the first of them at that revision."""
        versions: list[State] = []
        for write, made in zip(self.writes, self.stamp(first_rev, committed_at), strict=True):
            found = next_version(write.state.id, write.state.rev)
            if found is None or found.state is None or found.rev != made.rev:
                versions.append(made)
            else:
                versions.append(found.state)
        return tuple(versions)

    def record(self, first_rev: int, committed_at: int) -> tuple[str, Record] | None:
        """The caller's id and what is stored under it, if the commit begins at *first_rev*."""
        if self.key is None:
            return None
        return self.key.id, Record(self.key.digest, self.commit_id, first_rev, committed_at)

    def recorded(
        self, record: Record, next_version: NextVersion
    ) -> tuple[State, ...] | RecordedError:
        """What the plan comes to if a commit is recorded under its key: its own outcome if it was
        this plan."""
        if record.commit_id == self.commit_id:
            return self._stored(record.first_rev, record.committed_at, next_version)
        return RecordedError("" if self.key is None else self.key.id, record)


# ---------------------------------------------------------------- new versions, unchecked
# On the hot path. What a checked state was made of needs no second check, and a copy of the slots
# costs a third of a construction. Nobody else has seen the copy yet, so setting its slots is safe.


_copy: Callable[[State], State] = State.__copy__  # type: ignore[attr-defined]


def moved(state: State, transition: Transition) -> State:
    """*state* with another transition."""
    new = _copy(state)
    force_setattr(new, "transition", transition)
    return new


def stamped(state: State, rev: int, committed_at: int) -> State:
    """*state* as version *rev*, committed at that time."""
    new = _copy(state)
    force_setattr(new, "rev", rev)
    force_setattr(new, "committed_at", committed_at)
    return new


# ---------------------------------------------------------------- payloads


def references(state: State) -> Iterator[DataRef]:
    """The stored payloads that a version refers to, also from inside ``stacked``; one may come
    more than once."""
    for payload in state.data.values():
        if isinstance(payload, DataRef):
            yield payload
    for other in state.stacked.values():
        yield from references(other)


def _is_own(ref: DataRef) -> bool:
    """Whether it refers to a payload of its own commit."""
    return ref.rev == 0


def _pointed(state: State, rev: int, which: Callable[[DataRef], bool]) -> State:
    """*state* with these of its references made to point at *rev*."""
    data = {
        name: replace(ref, rev=rev) if isinstance(ref, DataRef) and which(ref) else ref
        for name, ref in state.data.items()
    }
    stacked = {name: _pointed(other, rev, which) for name, other in state.stacked.items()}
    return replace(state, data=data, stacked=stacked)
