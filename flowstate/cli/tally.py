"""The result of a run: states by status and reason."""

from __future__ import annotations

from collections import Counter

from attrs import define, field
from rich.table import Table

from flowstate import State, Status, UnreadableVersionError

from . import output

MAX_REASONS = 200
"""How many different reasons are counted on their own; a run may have millions."""
OTHER_REASONS = "(other reasons)"


@define
class Tally:
    """Counts of the states as they are stored in the end, and of lines that were rejected or whose
    state cannot be read."""

    counts: Counter[tuple[str, str]] = field(factory=Counter[tuple[str, str]])
    """(status, reason) -> how many states have it"""
    ended_before: int = 0
    """How many states had ended before this run."""
    ended_well: int = 0

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def is_well(self) -> bool:
        """Whether every line became a state that ended, and none failed."""
        return self.ended_well == self.total

    def count(self, state: State) -> None:
        if state.transition.status is Status.ENDED:
            self.ended_well += 1
        self._add(output.status_name(state), _reason(state))

    def reject(self, reason: str) -> None:
        self._add("rejected", reason)

    def pass_by(self, error: UnreadableVersionError) -> None:
        self._add("unreadable", error.why)

    def table(self) -> Table:
        table = output.table("status", "reason", "states")
        for (status, reason), states in self.counts.most_common():
            table.add_row(output.status_text(status), output.plain(reason), f"{states:,}")
        return table

    def _add(self, status: str, reason: str) -> None:
        key = (status, reason)
        if key not in self.counts and len(self.counts) >= MAX_REASONS:
            key = (status, OTHER_REASONS)
        self.counts[key] += 1


def _reason(state: State) -> str:
    """The reason of the state's transition; without one, the flow that it is at."""
    transition = state.transition
    return transition.reason or (f"at {transition.to}" if transition.to else "")
