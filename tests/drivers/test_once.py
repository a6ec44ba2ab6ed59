"""Processes that do the same commits at the same time, under their own ids: each happens once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowstate import connect

from ..postgres import Database
from .once_process import COMMITS

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    """What is told apart here are processes."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    database: Database = request.getfixturevalue("postgres")
    return database.new_store()


async def test_processes_that_do_the_same_get_the_same(url: str) -> None:
    async with connect(url) as driver:
        command = [sys.executable, "-m", "tests.drivers.once_process", url]
        processes = [
            subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:  # all at once
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        printed = [process.communicate()[0] for process in processes]
        assert await driver.head() == 2 * COMMITS
    assert len(printed[0].splitlines()) == COMMITS
    assert printed == [printed[0]] * 3
