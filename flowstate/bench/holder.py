"""A process to be killed: ``python -m flowstate.bench.holder``, with the URL of the store, a
prefix, a number of states and a lease in seconds on the first four lines of its input.

It leads, and runs states that never end; it says ``running`` once it runs all of them.
"""

from __future__ import annotations

import sys

import anyio

from flowstate import Command, Commit, Engine, Flows, RetryPolicy, State, Transit, connect
from flowstate.recovery import Recoverer


async def main(url: str, prefix: str, states: int, lease: float) -> None:
    running = anyio.Semaphore(0)
    flows = Flows()

    @flows.flow(f"{prefix}hold")
    async def hold(state: State, engine: Engine) -> Command:
        running.release()
        await anyio.sleep_forever()
        raise AssertionError

    async with (
        connect(url) as driver,
        Engine(driver, flows, retry=RetryPolicy(lease=lease)) as engine,
        Recoverer(engine, lease=lease),
    ):
        new = [State(f"{prefix}order-{number}") for number in range(states)]
        await engine.start(Commit(*[Transit(state, f"{prefix}hold") for state in new]))
        for _ in new:
            await running.acquire()
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    given = [sys.stdin.readline().rstrip("\n") for _ in range(4)]
    anyio.run(main, given[0], given[1], int(given[2]), float(given[3]))
