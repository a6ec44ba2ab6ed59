"""From a commit to those who watch."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import IO, cast

import anyio
import anyio.lowlevel

from flowstate import Commit, Durability, Pause, Query, State

from ..child import child
from ..place import LEAST, Place
from ..sites import Site
from ..values import Better, Effort, Measure, Sample, delays
from .workload import Workload

COMMITTER = "flowstate.bench.committer"
"""The module that commits in another process."""


async def watchers(place: Place, count: int) -> Sample:
    """One commit at a time, and so many watchers in the same engine that wait for it.

    A delay is from just before the commit until one watcher has the state.
    """
    taken: list[float] = []
    before = 0.0
    missing = 0
    all_saw = anyio.Event()
    ready = anyio.Semaphore(0)
    took = 0.0

    async with place.engine() as engine, anyio.create_task_group() as tasks:

        async def watch() -> None:
            nonlocal missing
            async with engine.watch(Query(from_now=True)) as watcher:
                ready.release()
                async for _ in watcher:
                    taken.append(time.perf_counter() - before)
                    missing -= 1
                    if not missing:
                        all_saw.set()

        for _ in range(count):
            tasks.start_soon(watch)
        for _ in range(count):
            await ready.acquire()

        async def commit(id: str) -> None:
            nonlocal missing, all_saw, before
            missing, all_saw = count, anyio.Event()
            before = time.perf_counter()
            await engine.do(Commit(Pause(State(id), "work")))
            await all_saw.wait()

        await commit(f"{place.prefix}first")  # after this one they all follow the end of the log
        taken.clear()
        start = time.perf_counter()
        for number in place.repeat():
            await commit(f"{place.prefix}order-{number}")
        took = time.perf_counter() - start
        tasks.cancel_scope.cancel()
    return Sample({"deliveries": len(taken) / took}, {"": taken})


async def other_process(place: Place, _: int) -> Sample:
    """One commit at a time in another process, and a watcher in this one.

    The other process waits for an answer through a pipe before it commits again.
    """
    taken: list[float] = []
    async with (
        place.engine() as engine,
        engine.watch(Query(from_now=True)) as watcher,
        child(COMMITTER) as other,
    ):
        await other.tell(place.url, place.prefix)
        until = 0.0
        async for state in watcher:
            now = time.monotonic()
            taken.append(now - float(state.annotations["start"]))
            until = until or now + place.seconds  # its first commit waited for it to start
            if len(taken) >= LEAST and now >= until:
                break
            await other.tell("again")
    return Sample(delays={"": taken})


def _wakes(_site: Site, watching: int, effort: Effort) -> Sample:
    """The raw limit inside a process: waking as many tasks."""

    async def main() -> Sample:
        taken: list[float] = []
        before = 0.0
        missing = 0
        newer = all_woke = anyio.Event()

        async def wait() -> None:
            nonlocal missing
            while True:
                await newer.wait()
                taken.append(time.perf_counter() - before)
                missing -= 1
                if not missing:
                    all_woke.set()

        async with anyio.create_task_group() as tasks:
            for _ in range(watching):
                tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            until = time.perf_counter() + effort.seconds / 4
            while not taken or time.perf_counter() < until:
                missing, all_woke = watching, anyio.Event()
                before = time.perf_counter()
                woken, newer = newer, anyio.Event()
                woken.set()
                await all_woke.wait()
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        return Sample(delays={"": taken})

    return anyio.run(main)


ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


def _pipes(_site: Site, _value: int, effort: Effort) -> Sample:
    """The raw limit between processes: a line through a pipe."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", ECHO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as echo:
        asked, answered = cast("IO[bytes]", echo.stdin), cast("IO[bytes]", echo.stdout)
        taken: list[float] = []
        now = until = 0.0
        while not taken or now < until:
            before = time.perf_counter()
            asked.write(b"\n")
            asked.flush()
            answered.readline()
            now = time.perf_counter()
            if until:
                taken.append((now - before) / 2)
            else:  # the first one waited for the process to start
                until = now + effort.seconds / 4
        return Sample(delays={"": taken})


WATCHERS = Workload(
    "watch",
    "From a commit to watchers in the same process, one commit at a time",
    parameter="watchers",
    values=(1, 100, 1_000),
    quick=(1, 100, 1_000),
    measures=(*delays(has_raw=True), Measure("deliveries", "/s", Better.HIGHER)),
    run=watchers,
    raw=_wakes,
    raw_about="waking as many tasks, without a store",
)

OTHER_PROCESS = Workload(
    "watch-process",
    "From a commit in another process to a watcher in this one",
    parameter="watchers",
    values=(1,),
    quick=(1,),
    measures=delays(has_raw=True),
    run=other_process,
    raw=_pipes,
    raw_about="a line through a pipe, without a store",
    needs=Durability.PROCESS,
)
