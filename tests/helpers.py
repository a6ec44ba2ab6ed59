"""What several test files need."""

from __future__ import annotations

from attrs import define

from flowstate import Commit, Engine, State, Transit

NOW = 1_700_000_000_000
"""The time of a fixed clock, in ms since the epoch."""


@define
class FixedClock:
    """A clock that only the test moves. ``ms`` is the time since the epoch."""

    ms: int = NOW

    def now(self) -> int:
        return self.ms


async def begin(engine: Engine, id: str, flow: str) -> State:
    """A new state, committed RUNNING at *flow*."""
    (state,) = await engine.do(Commit(Transit(State(id), flow)))
    return state
