"""What several test files need."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
from attrs import define

from flowstate import Commit, Engine, State, Transit

NOW = 1_700_000_000_000
"""The time of a fixed clock, in ms since the epoch."""


@define
class FixedClock:
    """A clock that only the test moves, or who waits for it. ``ms`` is the time since the epoch."""

    ms: int = NOW

    def now(self) -> int:
        return self.ms

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        with anyio.move_on_after(max(0, instant - self.ms) / 1000) as waiting:
            await (event.wait() if event is not None else anyio.sleep_forever())
        if waiting.cancelled_caught:
            self.ms = max(self.ms, instant)


def to_datetime(instant_ms: int) -> datetime:
    """The aware datetime (UTC) of an instant."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC)


async def begin(engine: Engine, id: str, flow: str) -> State:
    """A new state, committed RUNNING at *flow*."""
    (state,) = await engine.do(Commit(Transit(State(id), flow)))
    return state


async def until(is_so: Callable[[], object], patience_s: float = 30) -> None:
    """Return once it is so; for what a thread, a process or a server does, who give no signal."""
    with anyio.fail_after(patience_s):
        while not is_so():  # noqa: ASYNC110  (nobody there could set an event)
            await anyio.sleep(0.005)
