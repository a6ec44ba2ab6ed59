"""The stores that every scenario runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flowstate import Driver, connect
from flowstate.testing.virtual import TimedDriver, VirtualClock

DRIVERS = ["memory", "sqlite"]


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the states of a scenario are stored."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/scenario.db"


@pytest.fixture
async def driver(url: str) -> AsyncIterator[Driver]:
    async with connect(url) as driver:
        yield driver


@pytest.fixture
def clock() -> VirtualClock:
    """Time that runs as fast as everything waits for it."""
    return VirtualClock()


@pytest.fixture
async def store(url: str, clock: VirtualClock) -> AsyncIterator[Driver]:
    """A store whose time is that clock's."""
    driver = connect(url)
    driver.clock = clock  # type: ignore[attr-defined]  # both have one
    async with TimedDriver(driver, clock) as driver:
        yield driver
