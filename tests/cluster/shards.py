"""How many commits a second there are, of several processes on one store, or on one each.

    python -m tests.cluster.shards

starts a cluster and measures; with a URL, it is one of those processes, and prints how many of its
commits were acknowledged.
"""

# ruff: noqa: T201 (it prints what it measures)
from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

import anyio

from flowstate import Commit, Engine, Pause, State, connect

from ..postgres import with_options
from .cluster import Cluster
from .load import ROOT

TASKS = 20
"""That commit at the same time in each process, one commit after the other."""
SECONDS = 5
ROUNDS = 3
PROCESSES = (1, 2, 4, 8)


def rate(urls: Sequence[str]) -> float:
    """Commits a second, of a process on each of these stores; a URL may be there several times."""
    for url in urls:
        anyio.run(_made, url)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.cluster.shards", url],
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for url in urls
        ]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline(), "it did not begin"
        for process in processes:  # all at once
            assert process.stdin
            process.stdin.close()
        counts = [process.stdout.read() for process in processes if process.stdout]
    return sum(map(int, counts)) / SECONDS


async def _made(url: str) -> None:
    async with connect(url):
        pass


async def commit_many(url: str) -> None:
    counts = [0] * TASKS

    async def commit(task: int) -> None:
        while time.monotonic() < end:
            await engine.do(Commit(Pause(State(f"{os.getpid()}/{task}/{counts[task]}"))))
            counts[task] += 1

    async with connect(url) as driver, Engine(driver) as engine:
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)
        end = time.monotonic() + SECONDS
        async with anyio.create_task_group() as tasks:
            for task in range(TASKS):
                tasks.start_soon(commit, task)
    print(sum(counts))


def measure(url: str) -> None:
    """Print the medians, by how many processes there are."""
    print("commits a second of … processes   on one store   on one each")
    rate([with_options(url, schema="warm")])
    for count in PROCESSES:
        found: dict[str, list[float]] = {"one": [], "each": []}
        for turn in range(ROUNDS):
            for kind in sorted(found, reverse=turn % 2 == 0):  # the machine is not always the same
                made = f"{kind}_{count}_{turn}"
                names = [f"{made}_{n}" if kind == "each" else made for n in range(count)]
                found[kind].append(rate([with_options(url, schema=name) for name in names]))
        one, each = median(found["one"]), median(found["each"])
        print(f"{count:>32}   {one:>12,.0f}   {each:>11,.0f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        anyio.run(commit_many, sys.argv[1])
    else:
        with Cluster() as cluster:
            measure(cluster.url)
