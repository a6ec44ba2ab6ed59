"""What every test can ask for: both event loops, a store, a clock that stands still, and an engine
that goes by it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from flowstate import Driver, Engine, Flows, connect

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
def lmdb_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that the page on writing a driver ends up with."""
    from .test_docs import blocks  # noqa: PLC0415  (few tests need what it imports)

    files = [
        block for block in blocks("docs/howto/write-a-driver.md") if block.file.startswith("lmdb_")
    ]
    for block in files:
        with (tmp_path / block.file).open("a") as file:
            file.write(block.text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("lmdb_driver")
    for block in files:
        sys.modules.pop(Path(block.file).stem, None)


@pytest.fixture
def clock() -> FixedClock:
    """An engine's clock that only the test moves."""
    return FixedClock()


@pytest.fixture
def flows() -> Flows:
    """The engine's flows, to which a test adds."""
    return Flows()


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    """An open store in memory."""
    async with connect("memory:") as driver:
        yield driver


@pytest.fixture
async def engine(driver: Driver, flows: Flows, clock: FixedClock) -> AsyncIterator[Engine]:
    """An open engine; what still runs when the test is over is cancelled at once."""
    async with Engine(driver, flows, clock=clock, grace=0, chance=lambda: 0.0) as engine:
        yield engine
