"""The stores that every scenario runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flowstate import Driver, connect
from flowstate.testing.virtual import TimedDriver, VirtualClock

from ..postgres import Database

RUNS = [
    ("memory", "asyncio"),
    ("memory", "trio"),
    ("sqlite", "asyncio"),
    ("sqlite", "trio"),
    ("postgres", "asyncio"),  # on trio it does the same, as its conformance shows
]


@pytest.fixture(params=RUNS, ids="-".join)
def run(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A driver and an event loop."""
    run: tuple[str, str] = request.param
    return run


@pytest.fixture
def anyio_backend(run: tuple[str, str]) -> str:
    return run[1]


@pytest.fixture
def store_url(run: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the states of a scenario are stored."""
    if run[0] == "postgres":
        database: Database = request.getfixturevalue("postgres")
        return database.new_store()
    return "memory:" if run[0] == "memory" else f"sqlite:///{tmp_path}/scenario.db"


@pytest.fixture
def clock() -> VirtualClock:
    """Time that runs as fast as everything waits for it."""
    return VirtualClock()


@pytest.fixture
async def store(store_url: str, clock: VirtualClock) -> AsyncIterator[Driver]:
    """A store whose time is that clock's."""
    driver = connect(store_url)
    driver.clock = clock  # type: ignore[attr-defined]  # all have one
    async with TimedDriver(driver, clock) as driver:
        yield driver
