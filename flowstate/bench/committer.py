"""A process that commits: ``python -m flowstate.bench.committer``, with the URL of the store and
the prefix of the ids on the first two lines of its input.

Each further line has it commit once more. It ends with its input, or when it is killed.
"""

from __future__ import annotations

import sys
import time

import anyio

from flowstate import Commit, Engine, Pause, State, connect


async def main(url: str, prefix: str) -> None:
    async with connect(url) as driver, Engine(driver) as engine:
        number = 0
        while not number or sys.stdin.readline():
            # one clock for all processes
            start = {"start": repr(time.monotonic())}
            state = State(f"{prefix}order-{number}", annotations=start)
            await engine.do(Commit(Pause(state, "work")))
            number += 1


if __name__ == "__main__":
    anyio.run(main, sys.stdin.readline().rstrip("\n"), sys.stdin.readline().rstrip("\n"))
