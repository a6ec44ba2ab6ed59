"""PostgreSQL: how near to the server, how group commit grows with load, how soon others know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import anyio
import anyio.abc
import psycopg
import pytest

from flowstate import Commit, Driver, Engine, Pause, RetryPolicy, State, Transit, connect
from flowstate.drivers.plans import GroupPlan
from flowstate.drivers.postgres import rows
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.session import Connection
from flowstate.transitions import plan
from tests.postgres import Database, target

from .conftest import timed
from .flows import together
from .wire import delayed


@contextmanager
def bare(url: str) -> Iterator[tuple[Target, Connection]]:
    """A store that is ready, and a connection of ours."""
    anyio.run(_make, url)
    store = target(url)
    with store.connect() as connection:
        yield store, connection


async def _make(url: str) -> None:
    async with connect(url):
        pass


def bare_inserts(
    url: str, versions: int, a_commit: int, labels: Mapping[str, str] | None = None
) -> float:
    """Seconds for inserts of rows like ours into the same tables, so many in a transaction, in one
    round trip, by one who asks for nothing and decides nothing."""
    states = [State(f"order-{number}", labels=labels or {}) for number in range(a_commit)]
    commits = [
        plan(Commit(Transit(state, "there")), commit_id="a", now=0, policy=RetryPolicy())
        for state in states
    ]
    groups: list[list[rows.Statement]] = []
    for first in range(1, versions + 1, a_commit):
        group: GroupPlan[rows.Keys] = GroupPlan(first, 1_700_000_000_000, {})
        for commit in commits:
            group.decide(commit, lambda _id, _rev: None)  # none was committed before
        groups.append(list(rows.statements(group)))
    with bare(url) as (store, connection):

        def insert() -> None:
            for statements in groups:
                with connection.pipeline():
                    connection.execute("BEGIN")
                    for text, parameters in statements:
                        connection.execute(store.sql(text), parameters, binary=True)
                    connection.execute("COMMIT")

        return timed(insert)


@pytest.mark.parametrize(
    ("flows", "asked", "transitions", "labels"),
    [
        (1, "–", 1_000, {}),
        (100, "15,000/s", 200, {}),
        (1_000, "20,000/s", 40, {}),
        (100, "–", 200, {"queue": "mail", "customer": "c-1"}),
    ],
)
def test_committed_transitions(
    rate: Callable[..., None],
    tiny: bool,
    postgres: Database,
    flows: int,
    asked: str,
    transitions: int,
    labels: dict[str, str],
) -> None:
    """Committed transitions a second of concurrent flows."""
    if tiny:
        flows, transitions = min(flows, 10), 5
    versions = 100 if tiny else (1_000 if flows == 1 else 20_000)
    what = f"{flows:,} concurrent flow{'s' if flows > 1 else ''}{', 2 labels' if labels else ''}"
    rate(
        f"PostgreSQL, {what}",
        asked,
        flows * transitions,
        lambda: anyio.run(together, connect(postgres.new_store()), flows, transitions, labels),
        raw=lambda: bare_inserts(postgres.new_store(), versions, flows, labels),
        raw_n=versions,
        raw_what=f"bare inserts, {flows:,} a commit",
    )


@pytest.mark.parametrize("round_trip_ms", [0, 0.5, 2])
@pytest.mark.parametrize("flows", [100, 1_000])
def test_committed_transitions_at_a_distance(
    rate: Callable[..., None], tiny: bool, postgres: Database, flows: int, round_trip_ms: float
) -> None:
    """Committed transitions a second if each message is on its way for a while."""
    flows, transitions, versions = (10, 5, 100) if tiny else (flows, 20_000 // flows, 20_000)

    def work() -> float:
        with delayed(postgres.new_store(), round_trip_ms / 1000) as url:
            return anyio.run(together, connect(url), flows, transitions)

    def raw() -> float:
        with delayed(postgres.new_store(), round_trip_ms / 1000) as url:
            return bare_inserts(url, versions, flows)

    rate(
        f"PostgreSQL, {flows:,} concurrent flows, {round_trip_ms:g} ms there and back",
        "–",
        flows * transitions,
        work,
        raw=raw,
        raw_n=versions,
        raw_what=f"bare inserts, {flows:,} a commit",
    )


@pytest.mark.parametrize(
    ("what", "others", "notify"),
    [
        ("same process", False, "on"),
        ("other connection", True, "on"),
        ("other connection, notify=off", True, "off"),
    ],
)
def test_a_commit_reaches_a_watcher(
    latency: Callable[..., None],
    tiny: bool,
    postgres: Database,
    what: str,
    others: bool,
    notify: str,
) -> None:
    """From just before a commit to the watcher that has it; the raw limit is a commit and a
    hint that somebody hears."""
    commits = 5 if tiny else 200
    latency(
        f"PostgreSQL, commit to watcher, {what}",
        "5 ms / 20 ms" if notify == "on" else "– / –",
        lambda: anyio.run(delays, postgres.new_store(notify=notify), others, commits),
        raw=lambda: bare_hints(postgres.url, commits),
        raw_what="bare INSERT, then NOTIFY",
    )


async def delays(url: str, others: bool, commits: int) -> list[float]:
    """Seconds from the beginning of each commit until a watcher gets it."""
    async with connect(url) as driver, connect(url) as other, Engine(driver) as engine:
        seen: list[float] = []
        got = anyio.Event()

        async def watch(watched: Driver, *, task_status: anyio.abc.TaskStatus[None]) -> None:
            nonlocal got
            async with Engine(watched) as watching, watching.watch() as watcher:
                task_status.started()
                async for _ in watcher:
                    seen.append(time.perf_counter())
                    got.set()

        found: list[float] = []
        async with anyio.create_task_group() as tasks:
            await tasks.start(watch, other if others else driver)
            state = State("a")
            for _ in range(commits):
                await anyio.sleep(0.003)  # so that each finds the watcher waiting
                got = anyio.Event()
                began = time.perf_counter()
                (state,) = await engine.do(Commit(Pause(state)))
                await got.wait()
                found.append(seen[-1] - began)
            tasks.cancel_scope.cancel()
        return found


def bare_hints(url: str, hints: int) -> list[float]:
    """Seconds for one to insert a row and to notify, and for the other to hear of it."""
    found: list[float] = []
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as two:
        one.execute("DROP TABLE IF EXISTS bare")
        one.execute("CREATE TABLE bare (state text)")
        two.execute("LISTEN bare")
        for _ in range(hints):
            began = time.perf_counter()
            one.execute("INSERT INTO bare VALUES ('a')")
            one.execute("NOTIFY bare")
            list(two.notifies(stop_after=1))
            found.append(time.perf_counter() - began)
    return found
