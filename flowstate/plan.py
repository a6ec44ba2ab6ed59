"""A plan: what one commit writes, as a driver is given it.

The engine decides a plan (``transitions.plan``); a driver checks its expectations, stamps it with
revisions and a time, and stores it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, cast

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from .checks import (
    MAX_BITS,
    NO_TEXT,
    as_dict,
    check_bytes,
    check_checksum,
    check_flow,
    check_rev,
    check_text,
    check_type,
)
from .data import DataRef
from .errors import InvalidValueError, shown
from .frozendict import EMPTY, FrozenDict
from .state import SHORT_ID, RetryPolicy, State, Transition, check_id

NextVersion: TypeAlias = Callable[[str, int], tuple[int, int, str] | None]
"""Gives the oldest version of a state (id) above a revision, if there is one: its revision, when it
was committed (ms), and the id of that commit."""


class Write(Struct, frozen=True, gc=False):
    """One new version to store.

    ``state.rev`` is the revision that must be the state's latest for the plan to hold (0: it must
    not exist). ``due`` is this version's due time (ms since the epoch) or None, ``flow`` the flow
    that is then to be run, ``policy`` what whoever acts on it then goes by; None where it is not
    needed, because nothing will be due or ``state`` has its own.
    """

    state: State
    due: int | None
    flow: str
    policy: RetryPolicy | None = None

    def __post_init__(self) -> None:
        state, due, flow, policy = self.state, self.due, self.flow, self.policy
        if type(state) is not State:
            check_type("Write.state", state, State)
        if due is not None and (type(due) is not int or due.bit_length() > MAX_BITS or not flow):
            force_setattr(self, "due", _check_due(due, flow))
        if flow is not state.transition.to and flow is not NO_TEXT:  # else it was looked at already
            force_setattr(self, "flow", check_text("Write.flow", flow))
        if policy is not None and type(policy) is not RetryPolicy:
            check_type("Write.policy", policy, RetryPolicy)


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

    def __post_init__(self) -> None:
        id, writes = self.commit_id, self.writes
        if type(id) is not str or not 0 < len(id) <= SHORT_ID or "\0" in id or not id.isascii():
            force_setattr(self, "commit_id", check_id(id, "Plan.commit_id"))
        if type(writes) is not tuple or len(writes) != 1 or type(writes[0]) is not Write:
            _check_writes(writes)
        if self.requires is not _NO_REQUIRES:
            force_setattr(self, "requires", _check_requires(self.requires))
        if self.payloads is not EMPTY:
            force_setattr(self, "payloads", _check_payloads(self.payloads))

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
        later one never is its own. All are made again from the plan, for some may be compacted.
        """
        for place, write in enumerate(self.writes):
            found = next_version(write.state.id, write.state.rev)
            if found is not None:
                rev, committed_at, commit_id = found
                if commit_id == self.commit_id:
                    return self.stamp(rev - place, committed_at)
        return None


# ---------------------------------------------------------------- checks


_NO_REQUIRES = ()


def _check_due(due: object, flow: object) -> int:
    """A due time: whole milliseconds, negative ones too (``leases.RELEASED``)."""
    check_flow("Write.flow", flow)
    if isinstance(due, int) and not isinstance(due, bool):
        due = int.__int__(due)
        if due.bit_length() <= MAX_BITS:
            return due
    raise InvalidValueError("Write.due", f"takes milliseconds within 63 bits, not {shown(due)}")


def _check_writes(writes: object) -> None:
    for write in _tuple("Plan.writes", writes):
        check_type("Plan.writes", write, Write)


def _check_requires(requires: object) -> tuple[tuple[str, int], ...]:
    field = "Plan.requires"
    return tuple([_check_pair(field, _tuple(field, pair)) for pair in _tuple(field, requires)])


def _check_pair(field: str, pair: tuple[object, ...]) -> tuple[str, int]:
    if len(pair) != len(("id", "rev")):
        raise InvalidValueError(field, f"takes pairs of an id and a revision, not {shown(pair)}")
    id, rev = pair
    return check_id(id, field), check_rev(field, rev)


def _tuple(field: str, value: object) -> tuple[object, ...]:
    return cast("tuple[object, ...]", check_type(field, value, tuple))


def _check_payloads(payloads: object) -> FrozenDict[str, bytes]:
    field = "Plan.payloads"
    contents = as_dict(field, payloads)
    for checksum, content in contents.items():
        check_checksum(f"{field}, key", checksum)
        contents[checksum] = check_bytes(f"{field}[{checksum!r}]", content)
    return FrozenDict(contents) if contents else EMPTY


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


def _with_stored(state: State, rev: int) -> State:
    """*state* with the references of this commit (rev 0) made to point at *rev*."""
    data = {
        name: replace(ref, rev=rev) if isinstance(ref, DataRef) and ref.rev == 0 else ref
        for name, ref in state.data.items()
    }
    stacked = {name: _with_stored(other, rev) for name, other in state.stacked.items()}
    return replace(state, data=data, stacked=stacked)
