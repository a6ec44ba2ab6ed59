"""Revisions become visible in their order, whoever commits; with a plain sequence they do not."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from flowstate import Engine, connect

from ..helpers import until
from ..postgres import Database, target

pytestmark = pytest.mark.anyio

PATIENCE_S = 60
PROCESSES = 3
COMMITS = 150
"""Of each process."""


@pytest.fixture
def anyio_backend() -> str:
    """The processes and the server are the same whatever loop watches them."""
    return "asyncio"


async def watch_a_race(url: str, kind: str) -> tuple[list[int], list[int]]:
    """What a watcher sees while processes commit, and what the log has in the end."""
    store = target(url)
    async with connect(url) as driver, Engine(driver) as engine:
        with store.connect() as connection:
            connection.execute(store.sql("CREATE SEQUENCE {s}.revisions INCREMENT BY 1000"))
        seen: list[int] = []

        async def watch() -> None:
            async for state in engine.watch():
                seen.append(state.rev)  # noqa: PERF401  (it never ends)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                async with anyio.create_task_group() as racers:
                    for number in range(PROCESSES):
                        racers.start_soon(anyio.to_thread.run_sync, race, url, f"p{number}", kind)
                head = await driver.head()
                await until(lambda: seen and seen[-1] >= head)
                tasks.cancel_scope.cancel()
        return seen, [state.rev async for state in engine.states()]


def race(url: str, name: str, kind: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.drivers.racer", url, name, str(COMMITS), kind],
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=PATIENCE_S,
    )


async def test_no_watcher_sees_a_lower_revision_after_a_higher_one(postgres: Database) -> None:
    """Processes commit at full speed; a watcher sees every version once, in order."""
    seen, log = await watch_a_race(postgres.new_store(), "head")
    assert log == list(range(1, len(log) + 1))
    assert len(log) > PROCESSES * COMMITS
    assert seen == log


async def test_with_a_plain_sequence_a_watcher_misses_versions(postgres: Database) -> None:
    """The test above can fail: a lower number becomes visible after a higher one was read."""
    seen, log = await watch_a_race(postgres.new_store(), "sequence")
    assert len(log) > PROCESSES * COMMITS
    assert all(earlier < later for earlier, later in pairwise(seen))
    assert set(seen) < set(log), "nothing was missed"
