"""A process that does the same commits as any other one: ``python -m tests.drivers.once_process
URL``. It waits for a line, then prints the revisions that each commit came to."""

from __future__ import annotations

import sys

import anyio

from flowstate import Commit, Engine, Pause, State, connect

COMMITS = 100


async def main(url: str) -> None:
    async with connect(url) as driver, Engine(driver) as engine:
        print("ready", flush=True)  # noqa: T201  (its parent reads it)
        sys.stdin.readline()
        for n in range(COMMITS):
            commit = Commit(Pause(State(f"{n}")), Pause(State(f"{n}/b")))
            states = await engine.do(commit, commit_id=f"commit {n}")
            print(*[state.rev for state in states])  # noqa: T201  (as above)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
