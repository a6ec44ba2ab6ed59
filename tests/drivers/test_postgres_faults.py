"""PostgreSQL: whatever happens to the server or to the way there, nothing acknowledged is lost,
nothing is doubled, and errors say what to do."""

from __future__ import annotations

import itertools
import random
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest

from flowstate import (
    Commit,
    Driver,
    Engine,
    Pause,
    RetryPolicy,
    RevMismatchError,
    State,
    StoreOpenError,
    StoreReadOnlyError,
    StoreUnreachableError,
    Transit,
    UnknownOutcomeError,
    connect,
)
from flowstate.leases import ready
from flowstate.plan import Plan
from flowstate.transitions import plan

from ..helpers import until
from ..postgres import Database, Server, target, with_options
from ..proxy import Fault, Proxy

pytestmark = pytest.mark.anyio

PATIENCE_S = 60


@pytest.fixture
def anyio_backend() -> str:
    """What fails is on the other side of a thread."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store(reconnect="20")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that may be restarted, filled and stopped."""
    # the machine goes on, so nothing needs to reach its disk; recovering is faster then
    server = Server(("max_connections=30", "fsync=off"))
    yield server
    server.close()


@pytest.fixture
def proxy(postgres: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Something between driver and server that can be told to cut."""
    where = target(postgres.url).parameters
    folder = tmp_path_factory.mktemp("p")
    with Proxy(folder, where["host"], where.get("port", "5432")) as proxy:
        yield proxy


def through(proxy: Proxy, url: str, **options: str) -> str:
    return with_options(url, **proxy.where, prepare="off", **options)


def pause(id: str, commit_id: str) -> Plan:
    return plan(
        Commit(Pause(State(id))), commit_id=commit_id, now=0, policy=RetryPolicy(), place_of=ready
    )


def stored(url: str) -> Counter[str]:
    """How often each commit id is stored, read without the driver."""
    store = target(url)
    with store.connect() as connection:
        rows = connection.execute(store.sql("SELECT commit_id FROM {s}.versions")).fetchall()
    return Counter(commit_id for (commit_id,) in rows)


# ---------------------------------------------------------------- at the COMMIT


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_commit_whose_answer_was_lost_happens_once(
    proxy: Proxy, url: str, fault: Fault
) -> None:
    """The connection is cut between COMMIT and its answer; the driver asks again by itself."""
    async with connect(through(proxy, url)) as driver:
        first = await driver.commit(pause("a", "one"))
        proxy.faults.append(fault)
        again = await driver.commit(pause("b", "two"))
    assert 1 == proxy.cut
    assert (1, 2) == (first[0].rev, again[0].rev)
    assert stored(url) == {"one": 1, "two": 1}


async def test_answers_that_are_lost_again_and_again(proxy: Proxy, url: str) -> None:
    """Groups of commits, each cut at least once: each plan happened once, refused ones never."""
    async with connect(through(proxy, url)) as driver:
        faults: Iterator[Fault] = itertools.cycle(["after", "before", "after", "before", "before"])
        refused = 0

        async def commit(number: int) -> None:
            nonlocal refused
            try:
                await driver.commit(pause(f"{number % 80}", f"{number}"))
            except RevMismatchError:
                refused += 1

        for start in range(0, 100, 10):
            proxy.faults.extend(itertools.islice(faults, 2))
            async with anyio.create_task_group() as group:
                for number in range(start, start + 10):
                    group.start_soon(commit, number)
    assert proxy.cut >= 10
    assert refused == 20
    assert stored(url) == {f"{number}": 1 for number in range(80)}


async def test_an_unknown_outcome_is_told_as_such(proxy: Proxy, url: str) -> None:
    """With no time to reconnect, the driver cannot tell; the same plan again gives the outcome."""
    async with connect(through(proxy, url, reconnect="0")) as driver:
        proxy.faults.append("after")
        with pytest.raises(UnknownOutcomeError) as lost:
            await driver.commit(pause("a", "one"))
        assert isinstance(lost.value.__cause__, psycopg.OperationalError)
        assert [1] == [state.rev for state in await driver.commit(pause("a", "one"))]
    assert stored(url) == {"one": 1}


async def test_the_engine_asks_again_where_the_driver_gave_up(proxy: Proxy, url: str) -> None:
    """Its caller sees nothing of a cut."""
    async with connect(through(proxy, url, reconnect="0")) as driver, Engine(driver) as engine:
        proxy.faults.extend(["before", "before", "after"])
        (state,) = await engine.do(Commit(Pause(State("a"))))
    assert (1, 3) == (state.rev, proxy.cut)
    assert [1] == list(stored(url).values())


# ---------------------------------------------------------------- under load


@asynccontextmanager
async def load(url: str, tasks: int = 10) -> AsyncGenerator[Counter[str]]:
    """Tasks that commit at full speed, each moving a state of its own, and a watcher.

    Gives what was acknowledged so far. In the end all of it is stored, once, and the watcher,
    which was never restarted, has seen exactly what is stored, in order.
    """
    acknowledged: Counter[str] = Counter()
    seen: list[State] = []
    ended = False

    async def commit(engine: Engine, name: str) -> None:
        state = State(name)
        while not ended:
            (state,) = await engine.do(Commit(Transit(state, "on")))
            acknowledged[f"{state.id}@{state.rev}"] += 1

    async def watch(engine: Engine) -> None:
        async for state in engine.watch():
            seen.append(state)  # noqa: PERF401  (it never ends)

    async with (
        connect(url) as driver,
        connect(url) as other,
        Engine(driver) as engine,
        Engine(other) as watching,
    ):
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as watchers:
                watchers.start_soon(watch, watching)
                async with anyio.create_task_group() as committers:
                    for number in range(tasks):
                        committers.start_soon(commit, engine, f"state-{number}")
                    yield acknowledged
                    ended = True
                log = [state async for state in engine.states()]
                await until(lambda: len(seen) >= len(log))
                watchers.cancel_scope.cancel()
    assert set(acknowledged.values()) == {1}
    assert sorted(acknowledged) == sorted(f"{state.id}@{state.rev}" for state in log)
    assert seen == log
    assert set(stored(url).values()) == {1}


async def progress(acknowledged: Counter[str], commits: int = 50) -> None:
    """Wait until so many more are acknowledged."""
    aim = len(acknowledged) + commits
    await until(lambda: len(acknowledged) >= aim)


async def test_connections_that_are_cut_at_any_moment(url: str, postgres: Database) -> None:
    """An administrator ends sessions, a hundred times, while ten tasks commit and one watches."""
    chance = random.Random(3)
    url = with_options(url, application_name="cut at any moment")
    with target(postgres.url).connect() as admin:
        async with load(url) as acknowledged:
            for _ in range(100):
                await progress(acknowledged, chance.choice([1, 2, 5, 20]))
                await anyio.to_thread.run_sync(
                    admin.execute,
                    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
                    "WHERE application_name = 'cut at any moment' ORDER BY random() LIMIT 1) s",
                )


async def test_who_writes_elsewhere_reads_there_too(
    url: str, postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What was the primary may go on answering those who are still connected to it, and knows
    nothing of what was committed since: once a commit had to connect again, so has each read."""
    reads, writes = "%FROM % v WHERE v.id%", "%pg_notify%"

    def sessions(query: str) -> set[int]:
        rows = admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s",
            (query,),
        )
        return {pid for (pid,) in rows}

    with psycopg.connect(postgres.url, autocommit=True) as admin:
        others = sessions("%")
        async with connect(url) as driver, Engine(driver) as engine:
            (state,) = await engine.do(Commit(Pause(State("a"))))
            await engine.get("a")
            (writer,) = sessions(writes) - others
            readers = sessions(reads) - others
            assert readers
            admin.execute("SELECT pg_terminate_backend(%s)", (writer,))
            (newest,) = await engine.do(Commit(Pause(state)))
            assert await engine.get("a") == newest
            assert sessions(reads) - others
            assert not sessions(reads) & readers
    assert not caplog.records, "what was mended is nobody's business"


async def test_a_server_that_is_restarted_under_load(server: Server) -> None:
    """Twenty times at once, without a word to its clients, while ten tasks commit and one
    watches: nothing acknowledged is lost, nothing is doubled, the watcher goes on."""
    async with load(with_options(server.url(), schema="restarted")) as acknowledged:
        for _ in range(20):
            await progress(acknowledged)
            await anyio.to_thread.run_sync(server.restart)
        await progress(acknowledged)


async def test_a_server_that_stays_away_is_told_in_the_end(server: Server) -> None:
    """Reading, writing and watching fail once the time to reconnect is over, and work when it is
    back."""
    url = with_options(server.url(), schema="away", reconnect="0.3")
    async with connect(url) as driver, Engine(driver) as engine, engine.watch(after=1) as watcher:
        await engine.do(Commit(Pause(State("a"))))
        await anyio.to_thread.run_sync(server.stop)
        try:
            with pytest.raises(StoreUnreachableError, match="does not answer"):
                await engine.get("a")
            with anyio.fail_after(PATIENCE_S), pytest.raises(StoreUnreachableError):
                await anext(watcher)
            with pytest.raises(StoreUnreachableError, match="nothing was written"):
                await engine.do(Commit(Pause(State("b"))))
            with pytest.raises(StoreOpenError, match="does not answer"):
                await connect(url).open()
        finally:
            await anyio.to_thread.run_sync(server.start)
        assert (await engine.get("a")).rev == 1
        (b,) = await engine.do(Commit(Pause(State("b"))))
        assert 2 == b.rev
        assert b == await anext(watcher)


async def test_closing_does_not_wait_for_a_server_that_is_away(server: Server) -> None:
    """Whoever waits for a commit then is told."""
    url = with_options(server.url(), schema="closing", reconnect="3600")
    driver = connect(url)
    await driver.open()
    await anyio.to_thread.run_sync(server.stop)
    try:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                failed = anyio.Event()
                tasks.start_soon(fails, driver, failed)
                await anyio.wait_all_tasks_blocked()
                await driver.close()
                await failed.wait()
    finally:
        await anyio.to_thread.run_sync(server.start)


async def fails(driver: Driver, failed: anyio.Event) -> None:
    with pytest.raises(StoreUnreachableError):
        await driver.commit(pause("a", "one"))
    failed.set()


# ---------------------------------------------------------------- servers that refuse


async def test_a_server_that_is_full_says_what_to_do(server: Server) -> None:
    """On opening; and an open driver that needs one more connection waits until there is one."""
    url = with_options(server.url(), schema="full")
    async with connect(url) as driver:
        others: list[psycopg.Connection[Any]] = []
        try:
            with suppress(psycopg.OperationalError):
                while len(others) < 100:
                    others.append(psycopg.connect(server.url()))
            assert 10 < len(others) < 30
            with pytest.raises(StoreUnreachableError, match="max_connections"):
                await connect(url).open()
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(driver.head)
                    await anyio.wait_all_tasks_blocked()
                    others.pop().close()
        finally:
            for other in others:
                other.close()


async def test_a_role_that_may_only_read_transactions(url: str, postgres: Database) -> None:
    """A database that is set read-only can be read; writing says so, and works once it may."""
    async with connect(url) as driver:
        await driver.commit(pause("a", "one"))
    read_only = with_options(url, options="-c default_transaction_read_only=on")
    async with connect(read_only) as driver:
        state = await driver.get("a")
        assert state is not None
        for _ in range(2):
            with pytest.raises(StoreReadOnlyError, match="target_session_attrs=read-write"):
                await driver.commit(pause("b", "two"))
        with pytest.raises(StoreReadOnlyError):
            await driver.renew([("a", 1, "")], "w", 100)
        assert 1 == await driver.head()
    assert stored(url) == {"one": 1}


async def test_a_wrong_password_is_told_and_never_printed(server: Server) -> None:
    """Neither in the message, nor in the causes, nor in what the driver shows of itself."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE keeper LOGIN PASSWORD 'right-one'")
        admin.execute("CREATE SCHEMA kept AUTHORIZATION keeper")
    rules = server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all keeper scram-sha-256\n" + before)
    server.run("pg_ctl", "reload", "-D", "data")
    try:
        asked = server.url().replace("postgres@", "keeper:wrong-one@") + "&schema=kept"
        with pytest.raises(StoreOpenError, match="the password is wrong") as refused:
            await connect(asked).open()
        told = "".join(traceback.format_exception(refused.value))
        assert "wrong-one" not in told + repr(connect(asked)) + repr(refused.value)
        assert "keeper:***@" in str(refused.value)
        async with connect(asked.replace("wrong-one", "right-one")) as driver:
            assert 0 == await driver.head()
            assert "right-one" not in repr(driver)
    finally:
        rules.write_text(before)
        server.run("pg_ctl", "reload", "-D", "data")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"user": "nobody-knows"}, 'role "nobody-knows" does not exist'),
        ({"dbname": "nowhere"}, "CREATE DATABASE"),
        ({"host": "/nowhere"}, "does not answer"),
    ],
)
async def test_what_is_not_there_is_named(url: str, change: dict[str, str], told: str) -> None:
    with pytest.raises(StoreOpenError, match=told):
        await connect(with_options(url, **change)).open()
