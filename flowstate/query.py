"""A query: which versions to read or watch; and a page, what a driver answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, final

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from . import clock
from .checks import NO_TEXT, ZERO, check_flag, check_rev, check_text, check_type, strings
from .errors import InvalidValueError, UnreadableVersionError, shown
from .frozendict import FrozenDict
from .state import State, Status

Labels: TypeAlias = Mapping[str, str]

NONE: tuple[Any, ...] = ()
"""No condition on labels, or on the status."""


class Query(Struct, frozen=True, kw_only=True):
    """Which versions to read or watch. Conditions are joined by *and*; an empty one matches all.

    ``labels`` is a list of mappings: a version matches if *any* mapping matches, a mapping if
    *all* its pairs are among the version's labels. One mapping may be given bare. ``since`` is a
    time: versions committed at or after it. ``latest`` looks at current versions only; a watcher
    that starts there goes on with every change. ``after`` (a revision) and ``from_now`` say where
    reading starts; at most one of ``after``, ``from_now`` and ``latest`` may be given.
    """

    labels: Sequence[Labels] | Labels = NONE
    id: str = ""
    id_prefix: str = ""
    status: Collection[Status] | Status = NONE
    since: datetime | int = 0
    after: int = 0
    from_now: bool = False
    latest: bool = False

    def __post_init__(self) -> None:
        if self.labels is not NONE:
            force_setattr(self, "labels", _alternatives(self.labels))
        if self.id is not NO_TEXT:
            force_setattr(self, "id", check_text("Query.id", self.id))
        if self.id_prefix is not NO_TEXT:
            force_setattr(self, "id_prefix", check_text("Query.id_prefix", self.id_prefix))
        force_setattr(self, "status", _statuses(self.status))
        if self.since is not ZERO:
            force_setattr(self, "since", clock.instant("Query.since", self.since))
        if self.after is not ZERO:
            force_setattr(self, "after", check_rev("Query.after", self.after))
        check_flag("Query.from_now", self.from_now)
        check_flag("Query.latest", self.latest)
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

    def may_match(self, entry: State | Unreadable) -> bool:
        """Whether a version matches; as far as can be told, if it cannot be read."""
        if type(entry) is not Unreadable:
            return self.matches(entry)
        id = entry.id
        return not id or (self.id in ("", id) and id.startswith(self.id_prefix))


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
    """What one read of the log gives: matching versions in revision order.

    ``unreadable`` are those that cannot be read and match as far as can be told, in that order too.
    Up to revision ``upto`` no other version matches; reading goes on after it. ``compacted`` is the
    highest revision that compaction ever removed (0: none), read in the same moment: above it the
    log is whole. With ``query.since`` it is 0 if everything that was removed had been committed
    before that time, so that nothing asked for can be missing (``Query.compacted``).
    """

    versions: tuple[State, ...]
    upto: int
    compacted: int = 0
    unreadable: tuple[Unreadable, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[State | Unreadable], upto: int, compacted: int = 0) -> Page:
        """The page of what was found, readable or not, in revision order."""
        versions: list[State] = []
        unreadable: list[Unreadable] = []
        for entry in entries:
            if type(entry) is Unreadable:
                unreadable.append(entry)
            else:
                versions.append(entry)
        return cls(tuple(versions), upto, compacted, tuple(unreadable))

    @property
    def entries(self) -> Sequence[State | Unreadable]:
        """Its versions, readable or not, in revision order."""
        if not self.unreadable:
            return self.versions
        return sorted((*self.versions, *self.unreadable), key=lambda entry: entry.rev)


def _alternatives(labels: object) -> tuple[FrozenDict[str, str], ...]:
    given = _each("Query.labels", labels, Mapping, "mappings")
    frozen = tuple([strings("Query.labels", each) for each in given])
    # an empty mapping asks for nothing, so the whole condition holds for everything
    return frozen if all(frozen) else ()


def _statuses(status: object) -> frozenset[Status]:
    given = _each("Query.status", status, Status, "Status values")
    return frozenset([check_type("Query.status", each, Status) for each in given])


def _each(field: str, given: object, kind: type, what: str) -> Iterable[object]:
    """What was given, always several: one of a kind, or a collection of them."""
    if isinstance(given, kind):
        return (given,)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return given  # pyright: ignore[reportUnknownVariableType]
    raise InvalidValueError(field, f"takes {what}, not {shown(given)}")
