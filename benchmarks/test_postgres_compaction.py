"""Compaction on PostgreSQL: how fast it removes, and how long commits wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import pytest

from flowstate import Commit, Driver, Engine, Pause, Retention, State, connect
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.schema import key
from flowstate.drivers.url import StoreUrl
from tests.postgres import Database

LABELS = {"queue": "mail", "customer": "c-1"}
LIMIT = 1_000
"""Versions that a batch looks at: the most that an engine asks for."""


async def fill(driver: Driver, states: int, versions: int) -> None:
    """So many versions of each of so many states, all labelled, every fourth with a payload of its
    own."""
    async with Engine(driver) as engine:
        current = [State(f"order-{n}", labels=LABELS) for n in range(states)]
        for n in range(versions):
            if n % 4 == 0:
                current = [state.attach("order", b"%d" % n * 100) for state in current]
            for first in range(0, states, 500):
                part = slice(first, first + 500)
                current[part] = await engine.do(Commit(*map(Pause, current[part])))


async def compact(driver: Driver) -> None:
    """All that is superseded."""
    after, done = 0, False
    while not done:
        batch = await driver.compact(Retention(MAX_INSTANT_MS), after, LIMIT)
        after, done = batch.upto, batch.done


async def removing(url: str, states: int, versions: int) -> float:
    """Seconds for compaction alone."""
    async with connect(url) as driver:
        await fill(driver, states, versions)
        began = time.perf_counter()
        await compact(driver)
        return time.perf_counter() - began


async def bare_deletes(url: str, states: int, versions: int) -> float:
    """Seconds for deleting the same versions and their labels, as many in a transaction, by one
    who decides nothing and has no payloads."""
    async with connect(url) as driver:
        await fill(driver, states, versions)
    target = Target.from_url(StoreUrl.parse(url))
    keys = [key(*label) for label in LABELS.items()]
    with target.connect() as connection:
        began = time.perf_counter()
        for first in range(1, states * (versions - 1) + 1, LIMIT):
            revs = (first, min(first + LIMIT - 1, states * (versions - 1)))
            with connection.pipeline():
                connection.execute("BEGIN")
                delete = target.sql("DELETE FROM {s}.versions WHERE rev BETWEEN %s AND %s")
                connection.execute(delete, revs)
                for each in keys:
                    delete = target.sql(
                        "DELETE FROM {s}.labels WHERE key = %s AND rev BETWEEN %s AND %s"
                    )
                    connection.execute(delete, (each, *revs))
                connection.execute("COMMIT")
        return time.perf_counter() - began


def test_removing(rate: Callable[..., None], tiny: bool, postgres: Database) -> None:
    """Superseded versions removed a second, with their labels and payloads."""
    states, versions = (10, 5) if tiny else (1_000, 40)
    rate(
        "PostgreSQL, compaction, versions",
        "–",
        states * (versions - 1),
        lambda: anyio.run(removing, postgres.new_store(), states, versions),
        raw=lambda: anyio.run(bare_deletes, postgres.new_store(), states, versions),
        raw_n=states * (versions - 1),
        raw_what=f"bare deletes, {LIMIT:,} a commit",
    )


@pytest.mark.parametrize("where", ["same connection", "other connection"])
def test_commits_beside_compaction(
    latency: Callable[..., None], tiny: bool, postgres: Database, where: str
) -> None:
    """How long a commit takes while all that is superseded is removed; the raw limit is commits
    beside nothing."""
    states, versions = (10, 5) if tiny else (1_000, 40)
    latency(
        f"PostgreSQL, a commit beside compaction, {where}",
        "– / 50 ms",
        lambda: anyio.run(commits, postgres.new_store(), states, versions, where),
        raw=lambda: anyio.run(commits, postgres.new_store(), states, versions, "nowhere"),
        raw_what="a commit beside nothing",
    )


async def commits(url: str, states: int, versions: int, where: str) -> list[float]:
    """Seconds that each commit of one task took while compaction ran there."""
    async with connect(url) as driver, connect(url) as other, Engine(driver) as engine:
        await fill(driver, states, versions)
        found: list[float] = []
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                if where == "nowhere":
                    await anyio.sleep(1)
                else:
                    await compact(driver if where == "same connection" else other)
                tasks.cancel_scope.cancel()

            tasks.start_soon(work)
            state = State("a")
            while True:
                began = time.perf_counter()
                (state,) = await engine.do(Commit(Pause(state)))
                found.append(time.perf_counter() - began)
                await anyio.sleep(0.002)
        return found
