"""PostgreSQL: a process that is stopped at any moment holds up the others for a bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from flowstate import Driver, Pause, Query, State, Transit, connect
from flowstate.drivers.postgres import holders, writer
from flowstate.testing.conformance.base import put

from ..postgres import Database, Server
from .stopped_process import DOES, TEXT

pytestmark = pytest.mark.anyio

PATIENCE_S = 60
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    """What is stopped is another process."""
    return "asyncio"


@pytest.fixture(scope="module")
def older() -> Iterator[Server]:
    """A server that knows no ``transaction_timeout``."""
    server = Server(("fsync=off",), is_oldest=True)
    yield server
    server.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait for a lock do so for less than a second."""
    monkeypatch.setattr(writer, "LOCK_TIMEOUT", "500ms")
    monkeypatch.setattr(holders, "HUNG", "300ms")


@contextmanager
def stopped(
    url: str, where: str, transaction_timeout: str = writer.TRANSACTION_TIMEOUT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was stopped in its transaction."""
    module = "tests.drivers.stopped_process"
    command = [sys.executable, "-m", module, url, where, transaction_timeout]
    process = subprocess.Popen(command, cwd=PROJECT)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield process
    finally:
        process.kill()
        process.wait()


async def go_on(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    assert 0 == await anyio.to_thread.run_sync(process.wait, PATIENCE_S)


async def prepare(driver: Driver) -> None:
    """What each of those processes needs."""
    large = {"text": TEXT}
    await put(driver, Pause(State("large", annotations=large)))
    await put(driver, Transit(State("ready", annotations=large), "work"))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", DOES)
@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_who_waits_for_a_stopped_process_ends_its_transaction(
    postgres: Database, older: Server, where: str, version: str
) -> None:
    """And when it goes on, it does again what it was about."""
    url = postgres.new_store() if version == "newest" else f"{older.url()}&schema={where}"
    async with connect(url) as driver:
        await prepare(driver)
        with stopped(url, where) as process, anyio.fail_after(PATIENCE_S):
            await put(driver, Pause(State("a")))
            log = (await driver.read(Query(), 0, 10)).versions
            assert ["large", "ready", "a"] == [state.id for state in log]
            if where == "claims":
                assert await driver.claim({"work": 1}, 1, "other", "2", 5)
            else:
                await go_on(process)
        assert (await driver.get("stopped") is not None) == (where == "sends")


async def test_the_server_ends_a_transaction_that_is_not_committed_in_time(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can; here, no other process does."""
    monkeypatch.setattr(holders, "HUNG", "1h")
    url = postgres.new_store()
    async with connect(url) as driver:
        await prepare(driver)
        with stopped(url, "sends", "300ms") as process:
            with anyio.fail_after(PATIENCE_S):
                assert [3] == [state.rev for state in await put(driver, Pause(State("a")))]
                process.kill()
