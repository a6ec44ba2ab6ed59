"""A process that is killed: it leads its group, and runs states that never end.

``python holder.py URL STATES`` says ``running`` once it runs all of them.
"""

from __future__ import annotations

import sys

import anyio

from flowstate import Command, Commit, Engine, Flows, RetryPolicy, State, Transit, connect
from flowstate.recovery import Recoverer

LEASE_S = 1.0
POLICY = RetryPolicy(lease=LEASE_S, max_attempts=10)


async def main(url: str, states: int) -> None:
    running = anyio.Semaphore(0)
    flows = Flows()

    @flows.flow
    async def hold(state: State, engine: Engine) -> Command:
        running.release()
        await anyio.sleep_forever()
        raise AssertionError

    async with (
        connect(url) as driver,
        Engine(driver, flows, retry=POLICY) as engine,
        Recoverer(engine, lease=LEASE_S),
    ):
        for number in range(states):
            (state,) = await engine.do(Commit(Transit(State(str(number)), "hold")))
            await engine.start(state)
            await running.acquire()
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
