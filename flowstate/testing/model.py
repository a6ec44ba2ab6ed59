"""What a store is, in the plainest possible terms: a list and some dictionaries.

Slow and obvious. ``DriverMachine`` compares drivers with it.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, field

from ..clock import MAX_INSTANT_MS
from ..driver import Due, Plan, Query
from ..errors import RevMismatchError
from ..state import State


@define
class Model:
    """A store without a clock of its own: it is told which revision and time a commit got."""

    log: list[State] = field(factory=list[State])
    due_times: dict[int, tuple[int, str]] = field(factory=dict[int, tuple[int, str]])
    """revision -> (due time in ms, flow), of current and superseded versions."""
    payloads: dict[tuple[int, str], bytes] = field(factory=dict[tuple[int, str], bytes])
    outcomes: dict[str, tuple[State, ...]] = field(factory=dict[str, tuple[State, ...]])
    """commit id -> what it wrote."""

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
                self.due_times[version.rev] = (write.due, write.flow)
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

    def due(self, until: int, flows: Collection[str]) -> list[Due]:
        """What is due, soonest first."""
        due = [
            Due(state, self.due_times[state.rev][0])
            for state in self.current.values()
            if state.rev in self.due_times and self.due_times[state.rev][1] in flows
        ]
        return sorted(
            (one for one in due if one.time <= until), key=lambda one: (one.time, one.state.rev)
        )

    def next_due(self, flows: Collection[str]) -> int | None:
        """The soonest due time for one of the flows."""
        return min((one.time for one in self.due(MAX_INSTANT_MS, flows)), default=None)

    def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        gone: set[str] = set()
        for id, rev in leases:
            state = self.current.get(id)
            if state is None or state.rev != rev:
                gone.add(id)
            elif rev in self.due_times:
                self.due_times[rev] = (until, self.due_times[rev][1])
        return frozenset(gone)
