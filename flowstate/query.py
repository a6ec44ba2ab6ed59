"""A query: which versions to read or watch; and a page, what a driver answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, final

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from . import clock
from .checks import (
    NO_TEXT,
    ZERO,
    check_flag,
    check_flow,
    check_rev,
    check_text,
    check_type,
    strings,
)
from .errors import InvalidValueError, UnreadableVersionError, shown
from .flow import Flow
from .frozendict import EMPTY, FrozenDict
from .state import State, Status

Labels: TypeAlias = Mapping[str, str]

NONE: tuple[Any, ...] = ()
"""No condition on labels, the status or the flow."""


class Query(Struct, frozen=True, kw_only=True):
    """Which versions to read or watch. Conditions are joined by *and*; an empty one matches all.

    ``labels`` is a list of mappings: a version matches if *any* mapping matches, a mapping if
    *all* its pairs are among the version's labels. One mapping may be given bare. ``status`` and
    ``flow`` are one or several; a state is at the flow that it runs or, while it waits, would go on
    with, and at none once it has ended. ``since`` is a time: versions committed at or after it.
    ``latest`` looks at current versions only; a watcher that starts there goes on with every
    change. ``after`` (a revision) and ``from_now`` say where reading starts; at most one of
    ``after``, ``from_now`` and ``latest`` may be given.

    ``leaving`` gives also each version with which a state leaves what matches: its previous version
    had the labels, the status and the flow that are asked for, and this one has not.
    ``query.matches(state)`` tells which of the two it is. Among current versions (``latest``)
    nothing leaves; a watcher that starts there has it from then on. That compaction removes a state
    is no leaving.
    """

    labels: Sequence[Labels] | Labels = NONE
    id: str = ""
    id_prefix: str = ""
    status: Collection[Status] | Status = NONE
    flow: Collection[str | Flow] | str | Flow = NONE
    since: datetime | int = 0
    after: int = 0
    from_now: bool = False
    latest: bool = False
    leaving: bool = False

    def __post_init__(self) -> None:
        if self.labels is not NONE:
            force_setattr(self, "labels", _alternatives(self.labels))
        if self.id is not NO_TEXT:
            force_setattr(self, "id", check_text("Query.id", self.id))
        if self.id_prefix is not NO_TEXT:
            force_setattr(self, "id_prefix", check_text("Query.id_prefix", self.id_prefix))
        force_setattr(self, "status", _statuses(self.status))
        if self.flow is not NONE:
            force_setattr(self, "flow", _flows(self.flow))
        if self.since is not ZERO:
            force_setattr(self, "since", clock.instant("Query.since", self.since))
        if self.after is not ZERO:
            force_setattr(self, "after", check_rev("Query.after", self.after))
        check_flag("Query.from_now", self.from_now)
        check_flag("Query.latest", self.latest)
        check_flag("Query.leaving", self.leaving)
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

    @property
    def flows(self) -> frozenset[str]:
        """``flow``, always a set of names."""
        return self.flow  # type: ignore[return-value]

    def live(self) -> Query:
        """What is left of the query for reading on, once it is settled where reading starts: every
        condition, without ``after``, ``from_now`` and ``latest``."""
        return replace(self, after=0, from_now=False, latest=False)

    def compacted(self, removed_rev: int, removed_at: int) -> int:
        """What a page for this query has as ``compacted``, if the newest version that compaction
        ever removed was *removed_rev*, committed at *removed_at* (ms)."""
        return 0 if self.since_ms > removed_at else removed_rev

    def matches(self, state: State) -> bool:
        """Whether a version matches, as far as the version itself tells (not ``latest``)."""
        transition = state.transition
        return self._is_of(state) and self._has(state.labels, transition.status, transition.to)

    def leaves(self, state: State, left: Left) -> bool:
        """Whether a state leaves what matches with this version, before which it was *left*."""
        transition = state.transition
        return (
            self._is_of(state)
            and self._has(
                state.labels if left.labels is None else left.labels,
                transition.status if left.status is None else left.status,
                transition.to if left.flow is None else left.flow,
            )
            and not self._has(state.labels, transition.status, transition.to)
        )

    def selects(self, entry: State | Unreadable, left: Left | None = None) -> bool:
        """Whether a version is one of those asked for: it matches, as far as can be told, or with
        ``leaving`` its state leaves what matches."""
        return self.may_match(entry) or (
            self.leaving
            and left is not None
            and type(entry) is not Unreadable
            and self.leaves(entry, left)
        )

    def _is_of(self, state: State) -> bool:
        """Whether it is of the states and of the time asked for, whatever it is."""
        return (
            (not self.id or state.id == self.id)
            and (not self.id_prefix or state.id.startswith(self.id_prefix))
            and state.committed_at >= self.since_ms
        )

    def _has(self, labels: Mapping[str, str], status: Status, flow: str) -> bool:
        """Whether something with these is as asked for."""
        if self.labels:
            pairs = labels.items()
            if not any(wanted.items() <= pairs for wanted in self.alternatives):
                return False
        return (not self.status or status in self.statuses) and (
            not self.flow or flow in self.flows
        )

    def may_match(self, entry: State | Unreadable) -> bool:
        """Whether a version matches; as far as can be told, if it cannot be read."""
        if type(entry) is not Unreadable:
            return self.matches(entry)
        id = entry.id
        return not id or (self.id in ("", id) and id.startswith(self.id_prefix))


@final
class Left(Struct, frozen=True, gc=False):
    """What a state was just before a version, of what a query can ask for; None: as it is there."""

    labels: Mapping[str, str] | None = None
    status: Status | None = None
    flow: str | None = None

    @classmethod
    def of(cls, previous: State) -> Left:
        """All of it, as it was in a version."""
        transition = previous.transition
        return cls(previous.labels, transition.status, transition.to)

    def before(self, state: State) -> Left | None:
        """What of it is different in the next version of the state, if anything is."""
        transition = state.transition
        labels = None if self.labels == state.labels else self.labels
        status = None if self.status is transition.status else self.status
        flow = None if self.flow == transition.to else self.flow
        if labels is None and status is None and flow is None:
            return None
        return Left(labels, status, flow)


@final
class Unreadable(Struct, frozen=True):
    """A version that is stored but cannot be read: which one, and why."""

    store: str
    """What errors call the store."""
    id: str
    """Empty if it is not known."""
    rev: int
    why: str

    def error(self) -> UnreadableVersionError:
        """What a reader is told of it."""
        return UnreadableVersionError(self.store, self.id, self.rev, self.why)


class Page(Struct, frozen=True):
    """What one read of the log gives: matching versions in revision order, or in falling order if
    it was to be the newest first.

    ``unreadable`` are those that cannot be read and match as far as can be told, in that order too.
    As far as revision ``upto`` no other version matches; reading goes on beyond it. ``compacted``
    is the highest revision that compaction ever removed (0: none), read in the same moment: above
    it the log is whole. With ``query.since`` it is 0 if everything that was removed had been
    committed before that time, so that nothing asked for can be missing (``Query.compacted``).
    ``left`` is there for a query with ``leaving``: the revisions of its versions, with what each
    state was before where that was anything else.
    """

    versions: tuple[State, ...]
    upto: int
    compacted: int = 0
    unreadable: tuple[Unreadable, ...] = ()
    left: Mapping[int, Left] = EMPTY
    newest_first: bool = False

    @classmethod
    def of(
        cls,
        entries: Iterable[State | Unreadable],
        upto: int,
        compacted: int = 0,
        left: Mapping[int, Left] = EMPTY,
        *,
        newest_first: bool = False,
    ) -> Page:
        """The page of what was found, readable or not, in the order of the page."""
        versions: list[State] = []
        unreadable: list[Unreadable] = []
        for entry in entries:
            if type(entry) is Unreadable:
                unreadable.append(entry)
            else:
                versions.append(entry)
        return cls(tuple(versions), upto, compacted, tuple(unreadable), left, newest_first)

    @property
    def entries(self) -> Sequence[State | Unreadable]:
        """Its versions, readable or not, in the order of the page."""
        if not self.unreadable:
            return self.versions
        entries: list[State | Unreadable] = [*self.versions, *self.unreadable]
        return sorted(entries, key=lambda entry: entry.rev, reverse=self.newest_first)


def _alternatives(labels: object) -> tuple[FrozenDict[str, str], ...]:
    given = _each("Query.labels", labels, Mapping, "mappings")
    frozen = tuple([strings("Query.labels", each) for each in given])
    # an empty mapping asks for nothing, so the whole condition holds for everything
    return frozen if all(frozen) else ()


def _statuses(status: object) -> frozenset[Status]:
    given = _each("Query.status", status, Status, "Status values")
    return frozenset([check_type("Query.status", each, Status) for each in given])


def _flows(flow: object) -> frozenset[str]:
    given = _each("Query.flow", flow, (str, Flow), "flows, or their names")
    return frozenset([check_flow("Query.flow", each) for each in given])


def _each(field: str, given: object, kind: type | tuple[type, ...], what: str) -> Iterable[object]:
    """What was given, always several: one of a kind, or a collection of them."""
    if isinstance(given, kind):
        return (given,)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return given  # pyright: ignore[reportUnknownVariableType]
    raise InvalidValueError(field, f"takes {what}, not {shown(given)}")
