"""What every test can ask for besides the fixtures of ``flowstate.testing.plugin``: both event
loops, a clock that stands still, and an engine that goes by it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from flowstate import Driver, Engine, Flows

from .helpers import FixedClock
from .postgres import Database, database

pytest_plugins = "pytester"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both."""
    backend: str = request.param
    return backend


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    """A database on a real server, which is started by the first test that asks for it."""
    with database("fsync=off") as made:  # the machine does not lose its power meanwhile
        yield made


@pytest.fixture
def clock() -> FixedClock:
    """An engine's clock that only the test moves."""
    return FixedClock()


@pytest.fixture
async def engine(driver: Driver, flows: Flows, clock: FixedClock) -> AsyncIterator[Engine]:
    """An open engine; what still runs when the test is over is cancelled at once."""
    async with Engine(driver, flows, clock=clock, grace=0, chance=lambda: 0.0) as engine:
        yield engine
