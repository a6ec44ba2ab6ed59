"""A process that commits to PostgreSQL at full speed, with revisions of one of two kinds.

``python -m tests.drivers.racer URL NAME COMMITS KIND``. Of kind "head" they are as the driver makes
them; of kind "sequence" they come from a sequence of the database, without a lock, as one would
think of first.
"""

from __future__ import annotations

import random
import re
import sys
from typing import Any

import anyio

from flowstate import Commit, Pause, RetryPolicy, State, connect
from flowstate.driver import Driver
from flowstate.transitions import plan

from .wrapped import Wrapped, driver_through


class Sequenced(Wrapped):
    """Has a sequence give the revisions, and nobody wait for who has one already."""

    def execute(self, query: Any, parameters: Any = None, **options: Any) -> Any:
        for sent, instead in (
            (rb"^SELECT FROM (\S+) FOR UPDATE$", rb"SELECT FROM \1"),
            (
                rb"^(SELECT \(.*?\)), h.rev, (.* FROM (\S+)\.head )",
                rb"\1, nextval('\3.revisions') - 1, \2",
            ),
            # the head is then the highest that was committed
            (rb"^(UPDATE \S+ SET rev =) %s", rb"\1 greatest(rev, %s)"),
        ):
            query = re.sub(sent, instead, query) if isinstance(query, bytes) else query
        return super().execute(query, parameters, **options)


async def race(driver: Driver, name: str, commits: int) -> None:
    chance = random.Random(name)
    for number in range(commits):
        states = [State(f"{name}/{number}/{n}") for n in range(chance.choice([1, 1, 1, 30]))]
        commit = Commit(*map(Pause, states))
        await driver.commit(plan(commit, commit_id=f"{name}/{number}", now=0, policy=RetryPolicy()))


async def main(url: str, name: str, commits: int, kind: str) -> None:
    made = driver_through(url, Sequenced) if kind == "sequence" else connect(url)
    async with made as driver:
        await race(driver, name, commits)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
