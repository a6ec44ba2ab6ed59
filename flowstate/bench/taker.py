"""A process that works: ``python -m flowstate.bench.taker``, with the URL of the store and a prefix
on the first two lines of its input.

It says ``working`` once it does. For each state at the flow ``note`` it says how many seconds ago
that was submitted; one at ``wait`` takes a while. With the next line of its input it says how often
a flow was called, and ends.
"""

from __future__ import annotations

import sys

import anyio
import anyio.to_thread

from flowstate import Command, Commit, End, Engine, Flows, State, connect
from flowstate.recovery import Worker

from .workloads.working import CONCURRENCY, JOB_S, age


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str, prefix: str) -> None:
    calls = 0
    flows = Flows()

    @flows.flow(f"{prefix}note")
    async def note(state: State, engine: Engine) -> Command:
        say(repr(age(state)))
        return Commit(End(state))

    @flows.flow(f"{prefix}wait")
    async def wait(state: State, engine: Engine) -> Command:
        nonlocal calls
        calls += 1
        await anyio.sleep(JOB_S)
        return Commit(End(state))

    async with (
        connect(url) as driver,
        Engine(driver, flows) as engine,
        Worker(engine, concurrency=CONCURRENCY),
    ):
        await engine.timers.head()  # its connections are open
        say("working")
        await anyio.to_thread.run_sync(sys.stdin.readline)
    say(str(calls))


if __name__ == "__main__":
    given = [sys.stdin.readline().rstrip("\n") for _ in range(2)]
    anyio.run(main, given[0], given[1])
