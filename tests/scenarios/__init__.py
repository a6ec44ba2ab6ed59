"""What people build on the kernel, each in one short test that can be read as an example.

Every scenario runs over every driver, and on both event loops.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from flowstate import Clock, Commit, Driver, Engine, Flows, Pause, Query, RetryPolicy, State
from flowstate.recovery import Recoverer


async def next_millisecond(engine: Engine) -> State:
    """Commit until the store's clock has moved on; the last one committed is that much later."""
    (first,) = await engine.do(Commit(Pause(State("clock"))))
    state = first
    while state.committed_at == first.committed_at:
        (state,) = await engine.do(Commit(Pause(state)))
    return state


@asynccontextmanager
async def recovering(
    driver: Driver,
    flows: Flows,
    clock: Clock,
    *,
    retry: RetryPolicy | None = None,
    lease: float = 30 * 24 * 3600,
) -> AsyncGenerator[Engine]:
    """An engine with a recoverer, as a worker process has them.

    Its retries have no jitter, and its term and leases are longer than any of the stories: while
    it waits for ten years, it does not look every ten seconds.
    """
    policy = retry or RetryPolicy(lease=lease)
    async with (
        Engine(driver, flows, clock=clock, retry=policy, grace=0, chance=lambda: 0.0) as engine,
        Recoverer(engine, lease=lease),
    ):
        yield engine


async def history(engine: Engine, id: str) -> list[State]:
    """Every version of a state."""
    return [state async for state in engine.states(Query(id=id))]
