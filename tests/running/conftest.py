"""Memory and SQLite, on both event loops, and an engine on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flowstate import Driver, Engine, Flows, RetryPolicy, connect
from flowstate.testing.virtual import TimedDriver, VirtualClock


@pytest.fixture(params=["memory", "sqlite"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/running.db"


@pytest.fixture
def clock() -> VirtualClock:
    """Time that runs as fast as everything waits for it."""
    return VirtualClock()


@pytest.fixture
async def store(store_url: str, clock: VirtualClock) -> AsyncIterator[Driver]:
    """A store whose time is that clock's, which runs."""
    driver = connect(store_url)
    driver.clock = clock  # type: ignore[attr-defined]  # all have one
    async with clock.running(), TimedDriver(driver, clock) as driver:
        yield driver


@pytest.fixture
def policy() -> RetryPolicy:
    """That of states without their own: three attempts, and waits that can be told apart."""
    return RetryPolicy(lease=10, max_attempts=3, backoff=1, max_backoff=60)


@pytest.fixture
async def engine(
    store: Driver, flows: Flows, clock: VirtualClock, policy: RetryPolicy
) -> AsyncIterator[Engine]:
    """An engine that recovers nothing, and whose waits by chance are as short as can be."""
    async with Engine(
        store, flows, clock=clock, retry=policy, grace=0, chance=lambda: 0.0
    ) as engine:
        yield engine
