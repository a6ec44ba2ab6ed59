"""Races that a flow loses on other states than its own: it is run again, so often and no more."""

from __future__ import annotations

from attrs import define

from .errors import RevMismatchError
from .state import State

MAX_RACES = 100
"""How often a flow is run again whose commits lose races on other states."""
MAX_DUPLICATES = 1
"""How often it is run again if a state that it creates is there already: a duplicate stays one."""
MAX_WAIT_MS = 1_000
"""The longest wait before it is run again."""


@define
class Races:
    """The races that one flow has lost in a row with one version of its state."""

    given: State
    lost: int = 0
    duplicates: int = 0
    """How many of them were about a state that was to be created."""

    def lose(self, given: State, error: RevMismatchError) -> bool:
        """Count one more race, lost with *given*; gives whether the flow may be run again."""
        if given is not self.given:
            self.given, self.lost, self.duplicates = given, 0, 0
        self.lost += 1
        self.duplicates += any(not expected for expected, _ in error.conflicts.values())
        return self.lost <= MAX_RACES and self.duplicates <= MAX_DUPLICATES

    def wait_ms(self, chance: float) -> int:
        """Milliseconds to wait now: none after the first race, then longer and longer, by chance
        (0 to 1)."""
        longest = min(MAX_WAIT_MS, 2**self.lost) if self.lost > 1 else 0
        return round(longest * chance)


def is_others_move(error: RevMismatchError, given: State, held: State) -> bool:
    """Whether a commit was refused because somebody else moved the flow's own state, which was
    given as *given* and is held as *held*. What the flow moved itself is no race."""
    own = error.conflicts.get(given.id)
    return own is not None and own[1] != held.rev
