"""A model of a store, in the plainest possible terms: a list and some dictionaries.

Slow and obvious. ``DriverMachine`` compares drivers with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from attrs import define, field
from msgspec.structs import replace

from ..codec import encode_state
from ..errors import RevMismatchError
from ..leases import Claimed, Due, DuePage, Held, Holding, Place, Renewal
from ..plan import Plan, Record, RecordedError, Write, references
from ..query import Left, Query
from ..retention import Compaction, Retention
from ..state import State


@define
class Model:
    """A store without a clock: its caller says which revision and time a commit got."""

    log: list[State] = field(factory=list[State])
    writes: dict[int, Write] = field(factory=dict[int, Write])
    """revision -> what was written, of current and superseded versions."""
    places: dict[int, Place | None] = field(factory=dict[int, Place | None])
    """revision -> where it stands, of current and superseded versions."""
    previous: dict[int, State] = field(factory=dict[int, State])
    """revision -> the version of the same state before it, removed or not."""
    payloads: dict[tuple[int, str], bytes | None] = field(
        factory=dict[tuple[int, str], bytes | None]
    )
    """None: the content was forgotten."""
    outcomes: dict[str, tuple[State, ...]] = field(factory=dict[str, tuple[State, ...]])
    """commit id -> the versions that it wrote; removed once none of them is left."""
    records: dict[str, Record] = field(factory=dict[str, Record])
    """the id that a caller gave a commit -> what is recorded under it"""
    compacted: int = 0
    """The highest revision that was removed; 0 if none was."""
    compacted_at: int = 0
    """The latest time (ms) at which a removed version was committed."""

    @property
    def head(self) -> int:
        return self.log[-1].rev if self.log else 0

    @property
    def contents(self) -> dict[tuple[int, str], bytes]:
        """The payloads that were not forgotten."""
        return {key: content for key, content in self.payloads.items() if content is not None}

    @property
    def current(self) -> dict[str, State]:
        """The latest version of each id, by rising revision."""
        latest = {state.id: state for state in self.log}
        return {state.id: state for state in self.log if latest[state.id] is state}

    def conflicts(self, plan: Plan) -> dict[str, tuple[int, int]]:
        """The expectations of a plan that do not hold."""
        current = self.current
        found = {
            id: (expected, current[id].rev if id in current else 0)
            for id, expected in plan.expectations()
        }
        return {id: pair for id, pair in found.items() if pair[0] != pair[1]}

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> tuple[State, ...]:
        """Store a plan, or raise ``RevMismatchError`` or ``RecordedError``."""
        plan = plan.settled(self.contents)
        if plan.key is not None and plan.key.id in self.records:
            outcome = self.recorded(plan, self.records[plan.key.id])
            if isinstance(outcome, RecordedError):
                raise outcome
            return outcome
        if plan.commit_id in self.outcomes:
            return self.outcomes[plan.commit_id]
        if conflicts := self.conflicts(plan):
            raise RevMismatchError(conflicts)
        versions = plan.stamp(first_rev, committed_at)
        current = self.current
        for version in versions:
            if version.id in current:
                self.previous[version.rev] = current[version.id]
        self.log.extend(versions)
        for version, write in zip(versions, plan.writes, strict=True):
            self.writes[version.rev] = write
            self.places[version.rev] = write.place
        for checksum, content in plan.payloads.items():
            self.payloads[first_rev, checksum] = content
        self.outcomes[plan.commit_id] = versions
        if (keyed := plan.record(first_rev, committed_at)) is not None:
            self.records[keyed[0]] = keyed[1]
        return versions

    def recorded(self, plan: Plan, record: Record) -> tuple[State, ...] | RecordedError:
        """What a plan comes to whose key is recorded: as it was stored, while anything of it is."""
        outcome = plan.settled(self.contents).recorded(record, lambda _id, _rev: None)
        if isinstance(outcome, RecordedError):
            return outcome
        return self.outcomes.get(plan.commit_id, outcome)

    def forget_records(self, before: int, limit: int) -> int:
        old = [id for id, record in self.records.items() if record.committed_at < before]
        oldest = sorted(old, key=lambda each: self.records[each].committed_at)[:limit]
        for id in oldest:
            del self.records[id]
        return len(oldest)

    def get(self, id: str, rev: int) -> State | None:
        return next((state for state in self.log if (state.id, state.rev) == (id, rev)), None)

    def read(self, query: Query, after: int, *, newest_first: bool = False) -> list[State]:
        """Every match after a revision, or before it, from there on."""
        found = [
            state
            for state in (self.current.values() if query.latest else self.log)
            if (state.rev < after if newest_first else state.rev > after)
            and (query.matches(state) or (not query.latest and self.leaves(query, state)))
        ]
        return found[::-1] if newest_first else found

    def leaves(self, query: Query, state: State) -> bool:
        """Whether a state leaves what matches with a version."""
        previous = self.previous.get(state.rev)
        if not query.leaving or previous is None or query.matches(state):
            return False
        return query.matches(replace(previous, committed_at=state.committed_at))

    def left(self, state: State) -> Left | None:
        """What a state was before a version."""
        previous = self.previous.get(state.rev)
        return None if previous is None else Left.of(previous).before(state)

    def count(self, query: Query, by: str) -> dict[str, int]:
        found = [state.transition for state in self.current.values() if query.matches(state)]
        return dict(Counter(each.status.value if by == "status" else each.to for each in found))

    def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        users = self.users()
        for key in payloads:
            if key in self.payloads:
                self.payloads[key] = None
        return len({state.id for key in payloads for state in users.get(key, [])} - {id})

    def find(self, query: Query) -> State | None:
        found = [state for state in self.current.values() if query.matches(state)]
        return found[-1] if found else None

    # ------------------------------------------------------------ due times and places

    def due_time(self, state: State) -> int | None:
        """When a current version is due."""
        alarm, place = state.transition.alarm, self.places[state.rev]
        times = [None if alarm is None else alarm.at, None if place is None else place.until]
        return min((time for time in times if time is not None), default=None)

    def due(self, until: int, limit: int) -> DuePage:
        """What is due, soonest first, and when the next one is."""
        times = [
            Due(state, at, self.writes[state.rev].policy)
            for state in self.current.values()
            if (at := self.due_time(state)) is not None
        ]
        times.sort(key=lambda due: (due.at, due.state.rev))
        found = tuple([due for due in times if due.at <= until][:limit])
        others = times[len(found) :]
        return DuePage(found, others[0].at if others else None)

    def ready(self) -> list[tuple[int, State]]:
        """The current versions that are ready, with the instants since when, by line."""
        places = [(self.places[state.rev], state) for state in self.current.values()]
        found = [(p.since, state) for p, state in places if p is not None and p.since is not None]
        return sorted(found, key=lambda pair: (pair[0], pair[1].rev))

    def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        first: list[State] = []
        others: list[State] = []
        rest = dict(room)
        for _, state in self.ready():
            flow = state.transition.to
            if rest.get(flow, 0) > 0 and not self._is_due(state, now):
                (first if rest[flow] == room[flow] else others).append(state)
                rest[flow] -= 1
        return self._take([*first, *others][:limit], owner, claim, now)

    def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        ready = [state for _, state in self.ready() if not self._is_due(state, now)]
        wanted = [state for state in ready if (state.id, state.rev) in versions]
        return self._take(wanted, owner, claim, now)

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        mine = {holding.held: holding for holding in self.holdings(owner)}
        for each in held:
            if each in mine:
                self._lease(mine[each].rev, owner, mine[each].place.claim, now)
        current = {(state.id, state.rev) for state in self.current.values()}
        moved = {id for id, rev, _ in held if (id, rev) not in current}
        lost = {each[0] for each in held if each[:2] in current and each not in mine}
        return Renewal(frozenset(moved), frozenset(lost))

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        for holding in self.holdings(owner):
            if holding.held in held:
                self.places[holding.rev] = Place(now)

    def end_leases(self, owner: str, now: int) -> None:
        for holding in self.holdings(owner):
            until = holding.place.until
            if until is not None:
                self.places[holding.rev] = replace(holding.place, until=min(until, now))

    def holdings(self, owner: str | None = None) -> tuple[Holding, ...]:
        return tuple(
            Holding(state.id, state.rev, state.transition.to, place)
            for state in self.current.values()
            if (place := self.places[state.rev]) is not None
            and place.since is None
            and owner in {None, place.owner}
        )

    def place(self, id: str) -> Place | None:
        current = self.current.get(id)
        return None if current is None else self.places[current.rev]

    def line(self) -> dict[str, int]:
        return {state.transition.to: since for since, state in reversed(self.ready())}

    def _take(
        self, states: Iterable[State], owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        """Take these, unless something is still taken by the claim: then it is that."""
        revs = [each.rev for each in self.holdings(owner) if each.place.claim == claim]
        if not revs:
            revs = [state.rev for state in states]
            for rev in revs:
                self._lease(rev, owner, claim, now)
        current = {state.rev: state for state in self.current.values()}
        return tuple(Claimed(current[rev], self.writes[rev].policy) for rev in revs)

    def _lease(self, rev: int, owner: str, claim: str, now: int) -> None:
        lease = self.writes[rev].lease
        self.places[rev] = Place(None, owner, claim, now + lease if lease else None)

    def _is_due(self, state: State, now: int) -> bool:
        due = self.due_time(state)
        return due is not None and due <= now

    # ------------------------------------------------------------ compaction

    def may_go(self, state: State, retention: Retention) -> bool:
        """Whether a version may be removed."""
        current = self.current[state.id]
        newer = [other for other in self.log if other.id == state.id and other.rev > state.rev]
        is_over = (
            current.transition.status in retention.removed_statuses
            and current.committed_at < retention.before
        )
        return state.committed_at < retention.before and (
            len(newer) >= retention.keep or (is_over and state is not self.log[-1])
        )

    def compact(self, retention: Retention, after: int, upto: int, *, dry_run: bool) -> Compaction:
        """Remove what may be removed between two revisions, and count it."""
        removed = [
            state
            for state in self.log
            if after < state.rev <= upto and self.may_go(state, retention)
        ]
        if dry_run:
            keys = [
                key
                for key, users in self.users().items()
                if after < users[-1].rev <= upto
                and all(self.may_go(state, retention) for state in users)
            ]
        else:
            # the current version is removed last
            removed = [
                state
                for state in removed
                if state is not self.current[state.id]
                or all(other.rev > after for other in self.log if other.id == state.id)
            ]
            keys = [
                key
                for key, users in self.users().items()
                if all(state in removed for state in users)
            ]
        batch = Compaction(
            upto,
            len(removed),
            sum(state is self.current[state.id] for state in removed),
            len(keys),
            sum(len(encode_state(state)) for state in removed)
            + sum(len(self.payloads[key] or b"") for key in keys),
        )
        if not dry_run:
            self._remove(removed, keys)
        return batch

    def users(self) -> dict[tuple[int, str], list[State]]:
        """Payload -> the versions that refer to it."""
        found: dict[tuple[int, str], list[State]] = {}
        for state in self.log:
            for key in {(ref.rev, ref.checksum) for ref in references(state)}:
                found.setdefault(key, []).append(state)
        return found

    def _remove(self, removed: list[State], keys: list[tuple[int, str]]) -> None:
        self.log = [state for state in self.log if state not in removed]
        for key in keys:
            del self.payloads[key]
        for state in removed:
            self.compacted = max(self.compacted, state.rev)
            self.compacted_at = max(self.compacted_at, state.committed_at)
        self.outcomes = {
            commit_id: versions
            for commit_id, versions in self.outcomes.items()
            if any(state in self.log for state in versions)
        }
