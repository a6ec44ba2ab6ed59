"""A process that commits at full speed and prints what was acknowledged.

    python -m flowstate.testing.committer URL WRITER COMMITS SIZE [--in-step]

Each commit moves SIZE states of its own and carries one payload. For each acknowledged one it
prints ``commit_id first_rev``. COMMITS 0 means: until it is killed. In step, it reads a line
before each commit. Imports no test library, so that it starts fast.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import anyio.to_thread

from ..commands import Command, Commit, Pause, Transit
from ..driver import Driver
from ..drivers import connect
from ..leases import ready
from ..plan import Plan
from ..state import RetryPolicy, State
from ..transitions import plan

Acknowledge = Callable[[str, tuple[State, ...]], None]
Step = Callable[[], Awaitable[object]]


async def commit_many(  # noqa: PLR0913  (what its callers vary)
    driver: Driver,
    writer: str,
    commits: int,
    size: int,
    acknowledge: Acknowledge,
    *,
    step: Step = anyio.lowlevel.checkpoint,  # a driver in memory lets no other task run
) -> None:
    """Commit *commits* plans of *size* states one after the other, each after a step; 0 means
    without end."""
    states = tuple(State(f"{writer}/{n}") for n in range(size))
    for turn in range(commits) if commits else itertools.count():
        await step()
        turned = turn_plan(states, writer, turn)
        states = await driver.commit(turned)
        acknowledge(turned.commit_id, states)


def turn_plan(states: tuple[State, ...], writer: str, turn: int) -> Plan:
    """Move all the states once more, with labels and a status that vary from turn to turn."""
    commit_id = f"{writer}-{turn}"
    moves: list[Command[State]] = []
    for n, state in enumerate(states):
        labelled = state.with_labels(
            writer=writer, commit=commit_id, turn=str(turn % 3), place=str(n)
        ).attach("turn", commit_id.encode())
        is_paused = (turn + n) % 4 == 0
        moves.append(Pause(labelled) if is_paused else Transit(labelled, "next"))
    return plan(Commit(*moves), commit_id=commit_id, now=0, policy=RetryPolicy(), place_of=ready)


async def main(url: str, writer: str, commits: int, size: int, step: Step) -> None:
    """Commit, and print each commit on standard output."""

    def print_commit(commit_id: str, states: tuple[State, ...]) -> None:
        print(commit_id, states[0].rev, flush=True)  # noqa: T201  (its parent reads it)

    async with connect(url) as driver:
        await commit_many(driver, writer, commits, size, print_commit, step=step)


async def read_line() -> None:
    """Wait for a line on standard input: the step of a writer that goes in step."""
    await anyio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    _, url, writer, commits, size, *in_step = sys.argv
    step = read_line if in_step else anyio.lowlevel.checkpoint
    anyio.run(main, url, writer, int(commits), int(size), step)
