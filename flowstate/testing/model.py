"""A model of a store, in the plainest possible terms: a list and some dictionaries.

Slow and obvious. ``DriverMachine`` compares drivers with it.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, field

from ..codec import encode_state
from ..errors import RevMismatchError
from ..leases import Due, DuePage
from ..plan import Plan, references
from ..query import Query
from ..retention import Compaction, Retention
from ..state import RetryPolicy, State


@define
class Model:
    """A store without a clock: its caller says which revision and time a commit got."""

    log: list[State] = field(factory=list[State])
    due_times: dict[int, tuple[int, str, RetryPolicy | None]] = field(
        factory=dict[int, tuple[int, str, RetryPolicy | None]]
    )
    """revision -> (due time in ms, flow, policy), of current and superseded versions."""
    payloads: dict[tuple[int, str], bytes] = field(factory=dict[tuple[int, str], bytes])
    outcomes: dict[str, tuple[State, ...]] = field(factory=dict[str, tuple[State, ...]])
    """commit id -> the versions that it wrote; removed once none of them is left."""
    compacted: int = 0
    """The highest revision that was removed; 0 if none was."""
    compacted_at: int = 0
    """The latest time (ms) at which a removed version was committed."""

    @property
    def head(self) -> int:
        return self.log[-1].rev if self.log else 0

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
        """Store a plan, or raise ``RevMismatchError``."""
        if plan.commit_id in self.outcomes:
            return self.outcomes[plan.commit_id]
        if conflicts := self.conflicts(plan):
            raise RevMismatchError(conflicts)
        versions = plan.stamp(first_rev, committed_at)
        self.log.extend(versions)
        for version, write in zip(versions, plan.writes, strict=True):
            if write.due is not None:
                self.due_times[version.rev] = (write.due, write.flow, write.policy)
        for checksum, content in plan.payloads.items():
            self.payloads[first_rev, checksum] = content
        self.outcomes[plan.commit_id] = versions
        return versions

    def get(self, id: str, rev: int) -> State | None:
        return next((state for state in self.log if (state.id, state.rev) == (id, rev)), None)

    def read(self, query: Query, after: int) -> list[State]:
        """Every match after a revision."""
        versions = self.current.values() if query.latest else self.log
        return [state for state in versions if state.rev > after and query.matches(state)]

    def find(self, query: Query) -> State | None:
        found = [state for state in self.current.values() if query.matches(state)]
        return found[-1] if found else None

    def due(self, until: int, flows: Collection[str], limit: int) -> DuePage:
        """What is due, soonest first, and when the next one is."""
        times = [
            Due(state, time, policy)
            for state in self.current.values()
            if state.rev in self.due_times
            for time, flow, policy in [self.due_times[state.rev]]
            if flow in flows
        ]
        times.sort(key=lambda due: (due.time, due.state.rev))
        found = tuple([due for due in times if due.time <= until][:limit])
        others = times[len(found) :]
        return DuePage(found, others[0].time if others else None)

    def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        moved_on: set[str] = set()
        for id, rev in leases:
            state = self.current.get(id)
            if state is None or state.rev != rev:
                moved_on.add(id)
            elif rev in self.due_times:
                self.due_times[rev] = (until, *self.due_times[rev][1:])
        return frozenset(moved_on)

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
            + sum(len(self.payloads[key]) for key in keys),
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
