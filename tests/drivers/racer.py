"""A process that commits to PostgreSQL at full speed, with revisions of one of two kinds.

``python -m tests.drivers.racer URL NAME COMMITS KIND``. Of kind "head" they are as the driver makes
them; of kind "sequence" they come from a sequence of the database, without a lock, as one would
think of first.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any

import anyio

from flowstate import Commit, Pause, RetryPolicy, State, connect
from flowstate.driver import Driver
from flowstate.drivers.plans import GroupPlan
from flowstate.drivers.postgres import driver as module
from flowstate.drivers.postgres import rows as statements
from flowstate.drivers.postgres.rows import Keys
from flowstate.drivers.postgres.writer import Writer
from flowstate.transitions import plan

STEP = 1_000
"""By which the sequence counts: more than a group has."""


class SequenceWriter(Writer):
    """Asks a sequence for revisions."""

    def _begin(self) -> None:
        self._execute("BEGIN")

    def _group(self, rows: Sequence[tuple[Any, ...]]) -> GroupPlan[Keys]:
        group = super()._group(rows)
        group.first = self._execute("SELECT nextval('{s}.revisions')").fetchall()[0][0]
        return group


async def race(driver: Driver, name: str, commits: int) -> None:
    chance = random.Random(name)
    for number in range(commits):
        states = [State(f"{name}/{number}/{n}") for n in range(chance.choice([1, 1, 1, 30]))]
        commit = Commit(*map(Pause, states))
        await driver.commit(plan(commit, commit_id=f"{name}/{number}", now=0, policy=RetryPolicy()))


async def main(url: str, name: str, commits: int, kind: str) -> None:
    if kind == "sequence":
        setattr(module, "Writer", SequenceWriter)  # noqa: B010  (it is no public name of it)
        # the head is then the highest that was committed
        statements._HEAD = "UPDATE {s}.head SET rev = greatest(rev, %s), committed_at = %s"
    async with connect(url) as driver:
        await race(driver, name, commits)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
