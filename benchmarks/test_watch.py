"""From a commit to its watchers: measured from just before the commit to the watcher's hands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import anyio
import pytest

from flowstate import Commit, Engine, Pause, Query, State, connect
from flowstate.drivers.loop import Loop

ASKED = {
    "memory": "0.1 ms / 1 ms",
    "SQLite, same process": "1 ms / 5 ms",
    "SQLite, other process": "10 ms / 30 ms",
}


def hops(commits: int) -> list[float]:
    """The raw limit inside a process: waking a task."""

    async def main() -> list[float]:
        delays: list[float] = []
        for _ in range(commits):
            waiter = Loop.current().waiter()
            start = time.perf_counter()
            Loop.current().soon(waiter.set)
            await waiter.wait()
            delays.append(time.perf_counter() - start)
        return delays

    return anyio.run(main)


ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


def pipes(commits: int) -> list[float]:
    """The raw limit between processes: a line through a pipe."""
    with subprocess.Popen(
        [sys.executable, "-c", ECHO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as echo:
        assert echo.stdin is not None
        assert echo.stdout is not None
        delays: list[float] = []
        for _ in range(commits):
            start = time.perf_counter()
            echo.stdin.write(b"x\n")
            echo.stdin.flush()
            echo.stdout.readline()
            delays.append((time.perf_counter() - start) / 2)
        return delays


async def same_process(url: str, commits: int) -> list[float]:
    delays: list[float] = []
    async with connect(url) as driver, Engine(driver) as engine:
        seen = [anyio.Event() for _ in range(commits)]
        starts = [0.0] * commits

        async def watch() -> None:
            async with engine.watch(Query(from_now=True)) as watcher:
                ready.set()
                async for state in watcher:
                    number = int(state.id)
                    delays.append(time.perf_counter() - starts[number])
                    seen[number].set()
                    if number == commits - 1:
                        return

        ready = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await ready.wait()
            for number in range(commits):
                starts[number] = time.perf_counter()
                await engine.do(Commit(Pause(State(str(number)), "work")))
                await seen[number].wait()
    return delays


async def other_process(url: str, commits: int) -> list[float]:
    delays: list[float] = []
    command = [sys.executable, __file__, url, str(commits)]
    async with (
        connect(url) as driver,
        Engine(driver) as engine,
        engine.watch(Query(from_now=True)) as watcher,
        await anyio.open_process(command, stderr=None) as process,
    ):
        async for state in watcher:
            start = float(state.annotations["start"])  # one clock for all processes
            delays.append(time.monotonic() - start)
            assert process.stdin is not None
            await process.stdin.send(b"\n")
            if len(delays) == commits:
                break
    return delays


@pytest.mark.parametrize("case", list(ASKED))
def test_commit_to_watcher(
    latency: Callable[..., None], tiny: bool, tmp_path: Path, case: str
) -> None:
    """One commit at a time, one watcher that waits for it."""
    commits = 10 if tiny else 300
    numbers = count()

    def url() -> str:
        return "memory:" if case == "memory" else f"sqlite:///{tmp_path}/{next(numbers)}.db"

    between = case.endswith("other process")
    latency(
        f"commit to watcher, {case}",
        ASKED[case],
        lambda: anyio.run(other_process if between else same_process, url(), commits),
        raw=lambda: pipes(commits) if between else hops(commits),
        raw_what="a pipe" if between else "waking a task",
    )


if __name__ == "__main__":

    async def main(url: str, commits: int) -> None:
        async with connect(url) as driver, Engine(driver) as engine:
            for number in range(commits):
                state = State(str(number), annotations={"start": repr(time.monotonic())})
                await engine.do(Commit(Pause(state, "work")))
                sys.stdin.readline()  # until the watcher has it

    anyio.run(main, sys.argv[1], int(sys.argv[2]))
