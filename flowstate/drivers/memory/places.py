"""Where states stand, in memory: what is due, in line and taken.

The indexes are behind the commits, which only note which states have moved: those that move on
before somebody asks never enter them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import define, field
from msgspec import Struct
from msgspec.structs import replace

from ...leases import Claimed, Due, DuePage, Held, Holding, Place, Renewal
from ...plan import Write
from ...state import State
from .agenda import Agenda

MAX_BEHIND = 2_000
"""States that may have moved since the indexes heard of them."""


class History(Struct, eq=False, gc=False):  # no garbage: it cannot be part of a cycle
    """A state: its current version, what is kept beside that, and the revisions of all versions
    that are stored."""

    latest: State
    revs: list[int]
    write: Write
    place: Place | None
    """Where it stands."""
    indexed: Place | None = None
    """Where it stood when the indexes last heard of it."""


@define(eq=False)
class Places:
    """Where the current versions of a store stand."""

    histories: Mapping[str, History]
    behind: dict[str, None] = field(factory=dict[str, None], init=False)
    """The ids that have moved since the indexes heard of them."""
    _due: Agenda = field(factory=Agenda, init=False)
    """The ids that something is due for, when it is."""
    _line: Agenda = field(factory=Agenda, init=False)
    """The ids that are ready, by their flows, since when they are."""
    _taken: dict[str, dict[str, None]] = field(factory=dict[str, dict[str, None]], init=False)
    """owner -> the ids that it has taken."""
    _claims: dict[str, dict[str, None]] = field(factory=dict[str, dict[str, None]], init=False)
    """claim -> the ids that are taken by it."""

    def due(self, until: int, limit: int) -> DuePage:
        """``Driver.due``"""
        self.catch_up()
        found, following = self._due.first(limit, until=until)
        return DuePage(tuple([self._due_of(id, at) for at, _, id in found]), following)

    def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        """``Driver.claim``"""
        self.catch_up()
        if again := self._taken_by(owner, claim):
            return self._claimed(again)

        def is_not_due(id: str) -> bool:
            return not self._is_due(id, now)

        first: list[tuple[int, int, str]] = []
        others: list[tuple[int, int, str]] = []
        for flow in self._line.soonest():
            most = min(room.get(flow, 0), limit)
            if most > 0:
                found, _ = self._line.first(most, flow, wanted=is_not_due)
                first.extend(found[:1])
                others.extend(found[1:])
        chosen = [*sorted(first), *sorted(others)][:limit]
        return self._take([id for _, _, id in chosen], owner, claim, now)

    def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        """``Driver.take``"""
        self.catch_up()
        if again := self._taken_by(owner, claim):
            return self._claimed(again)
        ready = [
            id
            for id, rev in versions
            if (history := self._current(id, rev)) is not None
            and history.place is not None
            and history.place.since is not None
            and not self._is_due(id, now)
        ]
        return self._take(ready, owner, claim, now)

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        """``Driver.renew``"""
        moved: set[str] = set()
        lost: set[str] = set()
        for id, rev, claim in held:
            history = self._current(id, rev)
            if history is None:
                moved.add(id)
            elif history.place is None or not history.place.is_held(owner, claim):
                lost.add(id)
            else:
                self._stand(history, _taken(history.write, owner, claim, now))
        return Renewal(frozenset(moved), frozenset(lost))

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        """``Driver.release``"""
        for id, rev, claim in held:
            history = self._current(id, rev)
            if (
                history is not None
                and history.place is not None
                and history.place.is_held(owner, claim)
            ):
                self._stand(history, Place(now))

    def end_leases(self, owner: str, now: int) -> None:
        """``Driver.end_leases``"""
        self.catch_up()
        for id in list(self._taken.get(owner, ())):
            history = self.histories[id]
            if history.place is not None and (until := history.place.until) is not None:
                self._stand(history, replace(history.place, until=min(until, now)))

    def holdings(self, owner: str | None) -> tuple[Holding, ...]:
        """``Driver.holdings``"""
        self.catch_up()
        owners = self._taken if owner is None else [owner]
        held = [self.histories[id] for each in owners for id in self._taken.get(each, ())]
        return tuple(
            [
                Holding(history.latest.id, history.latest.rev, history.latest.transition.to, place)
                for history in held
                if (place := history.place) is not None
            ]
        )

    def line(self) -> Mapping[str, int]:
        """``Driver.line``"""
        self.catch_up()
        return self._line.soonest()

    def catch_up(self) -> None:
        """Have the indexes hear of what has moved."""
        for id in self.behind:
            history = self.histories[id]
            if history.place is None is history.indexed and history.latest.transition.alarm is None:
                self._due.remove(id)  # by far the most frequent
            else:
                self._index(history)
        self.behind.clear()

    def forget(self, id: str) -> None:
        """A state that rests is no longer stored."""
        self.catch_up()
        self._due.remove(id)

    # ------------------------------------------------------------ inside

    def _stand(self, history: History, place: Place) -> None:
        """Have the current version of a state stand there."""
        history.place = place
        self.behind[history.latest.id] = None

    def _index(self, history: History) -> None:
        """Have a state be found where it stands, and when it is due."""
        state, place, before = history.latest, history.place, history.indexed
        id, alarm = state.id, state.transition.alarm
        history.indexed = place
        due = None if alarm is None else alarm.at
        if before is not None and before.since is None:
            _remove_from(self._taken, before.owner, id)
            if before.claim:
                _remove_from(self._claims, before.claim, id)
        if place is not None and place.since is None:
            self._taken.setdefault(place.owner, {})[id] = None
            if place.claim:
                self._claims.setdefault(place.claim, {})[id] = None
            if place.until is not None and (due is None or place.until < due):
                due = place.until
        if place is not None and place.since is not None:
            self._line.set(id, state.rev, place.since, state.transition.to)
        elif before is not None and before.since is not None:
            self._line.remove(id)
        if due is None:
            self._due.remove(id)
        else:
            self._due.set(id, state.rev, due)

    def _current(self, id: str, rev: int) -> History | None:
        """The history of a state if that is its current revision."""
        history = self.histories.get(id)
        return history if history is not None and history.latest.rev == rev else None

    def _taken_by(self, owner: str, claim: str) -> list[str]:
        """The ids that are taken by that claim of that owner."""
        return [id for id in self._claims.get(claim, ()) if self._place(id).owner == owner]

    def _place(self, id: str) -> Place:
        """Where what is RUNNING stands."""
        place = self.histories[id].place
        assert place is not None  # noqa: S101  (it is RUNNING)
        return place

    def _is_due(self, id: str, now: int) -> bool:
        """Whether the alarm of a state has come."""
        alarm = self.histories[id].latest.transition.alarm
        return alarm is not None and alarm.at <= now

    def _due_of(self, id: str, at: int) -> Due:
        history = self.histories[id]
        return Due(history.latest, at, history.write.policy)

    def _take(self, ids: Sequence[str], owner: str, claim: str, now: int) -> tuple[Claimed, ...]:
        for id in ids:
            history = self.histories[id]
            self._stand(history, _taken(history.write, owner, claim, now))
        return self._claimed(ids)

    def _claimed(self, ids: Iterable[str]) -> tuple[Claimed, ...]:
        histories = [self.histories[id] for id in ids]
        return tuple([Claimed(history.latest, history.write.policy) for history in histories])


def _taken(write: Write, owner: str, claim: str, now: int) -> Place:
    """The place of a version that is taken now, or renewed."""
    return Place(None, owner, claim, now + write.lease if write.lease else None)


def _remove_from(ids: dict[str, dict[str, None]], key: str, id: str) -> None:
    """Remove an id from those of a key."""
    of_key = ids[key]
    del of_key[id]
    if not of_key:
        del ids[key]
