"""An output that cannot be written: one line of error, and no traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flowstate import Commit, Engine, Pause, State, connect

from .shell import FLOWSTATE

pytestmark = pytest.mark.anyio

COMMANDS = ("ls", "ls --json", "status", "count", "count --json", "show a", "cat a x")


@pytest.fixture
async def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/store.db"
    async with connect(url) as driver, Engine(driver) as engine:
        await engine.do(Commit(Pause(State("a").attach("x", 1))))
    return url


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is full")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_full_disk_is_one_line(url: str, command: str) -> None:
    ran = _shell(f"{FLOWSTATE} {command} > /dev/full", url)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines() == ["Error: the output: No space left on device"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_closed_output_is_silence(url: str, command: str) -> None:
    ran = _shell(f"{FLOWSTATE} {command} >&-", url)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["watch --after 0", "watch --after 0 --json"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_watching_ends_in_silence_once_nobody_reads(url: str, command: str) -> None:
    """As in ``watch | head -1``: at the first version that it cannot print."""
    process = subprocess.Popen(
        [FLOWSTATE, *command.split(), "--store", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "a" in process.stdout.readline()
        process.stdout.close()
        async with connect(url) as driver, Engine(driver) as engine:
            await engine.do(Commit(Pause(State("b"))))
        said = process.stderr.read()
    assert (process.returncode, said) == (1, "watching after revision 0 (Ctrl-C ends)\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is full")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_watching_into_a_full_disk_is_one_line(url: str) -> None:
    ran = _shell(f"{FLOWSTATE} watch --after 0 > /dev/full", url)
    _, told = ran.stderr.splitlines()
    assert (ran.returncode, told) == (1, "Error: the output: No space left on device")


def _shell(line: str, url: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "FLOWSTATE_STORE": url}
    command = ["sh", "-c", line]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)
