"""PostgreSQL: hints wake who waits in other processes, and nothing depends on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from flowstate import Commit, Driver, Engine, Pause, State, connect
from flowstate.drivers.postgres.session import Connection
from flowstate.drivers.threaded import MAX_READERS
from flowstate.testing import Store
from flowstate.testing.conformance.head import HeadLaws
from flowstate.testing.conformance.watch import WatchLaws

from ..helpers import until
from ..postgres import Database, target, with_options
from .test_postgres import OnPostgres, PostgresStore

pytestmark = pytest.mark.anyio

PATIENCE_S = 30


@pytest.fixture
def anyio_backend() -> str:
    """The conformance suite runs on both."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database, request: pytest.FixtureRequest) -> str:
    """A store whose connections can be told from those of others."""
    return postgres.new_store(application_name=request.node.name[-60:])


@pytest.fixture
def observer(url: str) -> Iterator[Connection]:
    """A connection of ours to the same database."""
    with target(url).connect() as connection:
        connection.execute("SET application_name = 'observer'")
        yield connection


def sessions(observer: Connection, url: str, column: str = "query") -> list[Any]:
    """What the server says of the sessions of a driver."""
    name = target(url).parameters["application_name"]
    rows = observer.execute(
        SQL("SELECT {} FROM pg_stat_activity WHERE application_name = %s").format(
            Identifier(column)
        ),
        (name,),
    )
    return [row[0] for row in rows]


async def commit(driver: Driver, id: str) -> None:
    async with Engine(driver) as engine:
        await engine.do(Commit(Pause(State(id))))


class TestWithoutNotify(OnPostgres, HeadLaws, WatchLaws):
    """The laws of waking and watching hold where nothing can be notified."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    def new_store(self, tmp_path: Path) -> Store:  # noqa: ARG002
        return PostgresStore(self.database.new_store(notify="off"))


async def test_without_notify_nobody_listens(observer: Connection, url: str) -> None:
    url = with_options(url, notify="off")
    async with connect(url) as driver, anyio.create_task_group() as tasks:
        tasks.start_soon(driver.wait, 0)
        await until(lambda: len(sessions(observer, url)) == 2)  # the writer, and the one that polls
        await commit(driver, "a")
        assert not [query for query in sessions(observer, url) if "LISTEN" in query.upper()]


async def test_one_connection_and_one_thread_listen_for_all_watchers(
    observer: Connection, url: str
) -> None:
    """Whatever the number of watchers: they share what tells them of other processes."""

    async def watch_one(engine: Engine, done: Callable[[], None]) -> None:
        async with engine.watch() as watcher:
            await anext(watcher)
        done()

    woken: list[int] = []
    async with connect(url) as driver, connect(url) as other, Engine(driver) as engine:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(watch_one, engine, partial(woken.append, number))
                await until(lambda: len(listeners(observer, url)) == 1)
                await commit(other, "a")
        threads = [thread for thread in threading.enumerate() if "poller" in thread.name]
        assert len(threads) == 1
        assert len(listeners(observer, url)) == 1
        # besides, of `driver`: one that writes, some that read; of `other`: one that writes
        assert len(sessions(observer, url)) <= 1 + 1 + MAX_READERS + 1
    assert sorted(woken) == list(range(100))


async def test_hints_have_no_payload_and_are_fewer_than_commits(
    observer: Connection, url: str
) -> None:
    """Many commits at once are one hint, and whoever is told finds them."""
    commits = 2_000
    async with connect(url) as driver, Engine(driver) as engine:
        channel = target(url).channel
        observer.execute(SQL("LISTEN {}").format(Identifier(channel)))
        async with anyio.create_task_group() as tasks:
            for number in range(commits):
                tasks.start_soon(engine.do, Commit(Pause(State(f"{number}"))))
        told = list(observer.notifies(timeout=PATIENCE_S, stop_after=1))
        head = observer.execute(target(url).sql("SELECT rev FROM {s}.head")).fetchone()
    told += observer.notifies(timeout=0)
    assert {""} == {hint.payload for hint in told}
    assert head is not None
    assert head[0] > 0
    assert 1 <= len(told) <= commits / 20


async def test_nobody_asks_or_listens_when_nobody_waits(observer: Connection, url: str) -> None:
    """What is notified to a connection that nobody reads would pile up on the server; and no
    session is left in a transaction."""
    async with connect(url) as driver, connect(url) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.wait, 0)
            await commit(other, "a")
        await until(lambda: "UNLISTEN *" in sessions(observer, url))
        assert {"idle"} == set(sessions(observer, url, "state"))
        assert {None} == set(sessions(observer, url, "xact_start"))
        assert {None} == set(sessions(observer, url, "backend_xmin"))

        async with anyio.create_task_group() as tasks:  # and it listens again
            tasks.start_soon(driver.wait, 1)
            await until(lambda: "UNLISTEN *" not in sessions(observer, url))
            await commit(other, "b")


async def test_a_commit_without_a_hint_is_noticed(url: str) -> None:
    """From a process that cannot notify, by one that listens."""
    async with connect(url) as driver, connect(with_options(url, notify="off")) as silent:
        await commit(silent, "a")
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.wait, 1)
                await anyio.wait_all_tasks_blocked()
                await commit(silent, "b")


async def test_a_listener_that_lost_its_connection_makes_another(
    observer: Connection, url: str
) -> None:
    """Also what is committed meanwhile is noticed."""
    async with connect(url) as driver, connect(url) as other:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.wait, 0)
                await until(lambda: bool(listeners(observer, url)))
                (pid,) = listeners(observer, url)
                observer.execute("SELECT pg_terminate_backend(%s::int)", (pid,))
                await commit(other, "a")


def listeners(observer: Connection, url: str) -> list[int]:
    """The sessions that wait for hints: the last that they did was to look at the head."""
    name = target(url).parameters["application_name"]
    rows = observer.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND query LIKE %s",
        (name, "SELECT rev, hints%"),
    )
    return [pid for (pid,) in rows]


async def test_a_commit_that_was_cancelled_wakes_who_waits(url: str) -> None:
    """Its own process, too: the task is gone, but the commit happened."""
    async with connect(url) as driver, Engine(driver) as engine:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(driver.wait, 0)
                await anyio.wait_all_tasks_blocked()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(engine.do, Commit(Pause(State("a"))))
                    await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
        assert await driver.head() == 1


def test_the_name_of_a_channel_fits(postgres: Database) -> None:
    """Channels have names of 63 bytes: a long one is cut between two characters."""
    longest = "ü" * 31
    channel = target(with_options(postgres.url, schema=longest)).channel
    assert len(channel.encode()) <= 63
    with psycopg.connect(postgres.url) as connection:
        connection.execute("SELECT pg_notify(%s, '')", (channel,))
