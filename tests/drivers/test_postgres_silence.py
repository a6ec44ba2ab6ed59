"""PostgreSQL: where nothing answers any more, and no connection is cut either, everything ends
within a bound.

Something between driver and server keeps the connections and passes nothing on: what is asked of
TCP, keepalives and the like, finds nothing wrong with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import anyio
import anyio.to_thread
import attrs
import psycopg
import pytest

from flowstate import (
    Commit,
    Driver,
    Engine,
    Flows,
    Pause,
    Query,
    Retention,
    State,
    StoreUnreachableError,
    Transit,
    UnknownOutcomeError,
    background,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.postgres import session
from flowstate.drivers.postgres.driver import PostgresDriver
from flowstate.testing.conformance.base import put

from ..helpers import until
from ..postgres import Database, target
from ..proxy import Proxy
from .test_postgres_faults import fails, pause, stored, through
from .wrapped import WRITES, before, driver_through

pytestmark = pytest.mark.anyio

DEADLINE_S = 0.3
PATIENCE_S = 15
"""Seconds; without a deadline, each of these would last for ever."""


@pytest.fixture
def anyio_backend() -> str:
    """What waits is a thread."""
    return "asyncio"


@pytest.fixture
def proxy(postgres: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    where = target(postgres.url).parameters
    folder = tmp_path_factory.mktemp("p")
    with Proxy(folder, where["host"], where.get("port", "5432")) as proxy:
        yield proxy


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store()


def driver_at(
    proxy: Proxy, url: str, deadline: float = DEADLINE_S, reconnect: str = "0"
) -> PostgresDriver:
    given = {"reconnect": reconnect, "connect_timeout": "2", "notify": "off"}
    asked = through(proxy, url, **given)
    return PostgresDriver(attrs.evolve(target(asked), deadline=deadline))


CALLS: dict[str, Callable[[Driver], Awaitable[object]]] = {
    "commit": lambda driver: driver.commit(pause("a", "one")),
    "renew": lambda driver: driver.renew([("ready", 1, "1")], "w", 5),
    "release": lambda driver: driver.release([("ready", 1, "1")], "w", 5),
    "take": lambda driver: driver.take([("ready", 1)], "w", "1", 5),
    "claim": lambda driver: driver.claim({"work": 1}, 1, "w", "1", 5),
    "get": lambda driver: driver.get("ready"),
    "read": lambda driver: driver.read(Query(), 0, 10),
    "record": lambda driver: driver.record("id"),
    "compact": lambda driver: driver.compact(Retention(MAX_INSTANT_MS), 0, 10),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_what_is_asked_ends(
    proxy: Proxy, url: str, call: Callable[[Driver], Awaitable[object]]
) -> None:
    """With the store's own error, that says that nothing answers; and then all is as before."""
    async with driver_at(proxy, url) as driver:
        await put(driver, Transit(State("ready"), "work"))
        await driver.forget_records(0, 1)  # comes after what the writer does once it has answered
        await driver.head()
        proxy.speaks.clear()
        with (
            anyio.fail_after(PATIENCE_S),
            pytest.raises(StoreUnreachableError, match="nothing came"),
        ):
            await call(driver)
        proxy.speaks.set()
        await driver.commit(pause("b", "two"))
        assert await driver.get("b")


@pytest.mark.parametrize("psycopg_has_bounds", [True, False])
async def test_a_commit_whose_answer_never_comes_happens_once(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch, psycopg_has_bounds: bool
) -> None:
    """The driver makes another connection and asks what became of it. Before 3.3, psycopg waits
    without a bound of its own."""
    if not psycopg_has_bounds:
        monkeypatch.setattr(session, "_QUICK_IS_OVER", None)
    async with driver_at(proxy, url, reconnect="20") as driver:
        await driver.commit(pause("a", "one"))
        proxy.faults.append("silent")
        with anyio.fail_after(PATIENCE_S):
            (b,) = await driver.commit(pause("b", "two"))
        assert (2, 1) == (b.rev, proxy.cut)
    assert stored(url) == {"one": 1, "two": 1}


async def test_a_commit_whose_answer_never_comes_is_unknown(proxy: Proxy, url: str) -> None:
    """...where there is no time to ask again; what the proxy still has comes too late to matter."""
    async with driver_at(proxy, url) as driver:
        proxy.faults.append("silent")
        with anyio.fail_after(PATIENCE_S), pytest.raises(UnknownOutcomeError) as lost:
            await driver.commit(pause("a", "one"))
        assert isinstance(lost.value.__cause__, psycopg.OperationalError)
        assert [1] == [state.rev for state in await driver.commit(pause("a", "one"))]
    assert stored(url) == {"one": 1}


async def test_what_makes_progress_is_waited_for(proxy: Proxy, url: str) -> None:
    """However long it takes in all: an answer that comes bit by bit."""
    big = State("big", annotations={"text": "x" * 1_500_000})
    async with driver_at(proxy, url) as driver, Engine(driver, max_state_size=1 << 22) as engine:
        (big,) = await engine.do(Commit(Pause(big)))
        proxy.delay_s = DEADLINE_S / 2
        with anyio.fail_after(PATIENCE_S):
            assert big == await engine.get("big")
        assert proxy.parts * proxy.delay_s > 2 * DEADLINE_S


async def test_opening_a_store_ends(proxy: Proxy, url: str) -> None:
    proxy.speaks.clear()
    with anyio.fail_after(PATIENCE_S), pytest.raises(StoreUnreachableError):
        await driver_at(proxy, url).open()


async def test_a_watcher_is_told_and_can_go_on(proxy: Proxy, url: str) -> None:
    """After ``reconnect`` seconds; then it misses and repeats nothing."""
    async with (
        driver_at(proxy, url, reconnect="1") as driver,
        Engine(driver) as engine,
        engine.watch() as watcher,
    ):
        (a,) = await engine.do(Commit(Pause(State("a"))))
        assert a == await anext(watcher)
        proxy.speaks.clear()
        with anyio.fail_after(PATIENCE_S), pytest.raises(StoreUnreachableError):
            await anext(watcher)
        proxy.speaks.set()
        (b,) = await engine.do(Commit(Pause(State("b"))))
        with anyio.fail_after(PATIENCE_S):
            assert b == await anext(watcher)


async def test_closing_ends(proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner than anything else: nobody waits for what a silent server does. Whoever waits for a
    commit is told, the first one and those after it."""
    monkeypatch.setattr(session, "CLOSING_S", DEADLINE_S)
    driver = driver_at(proxy, url, deadline=60, reconnect="3600")
    await driver.open()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.wait, 0)
            await driver.head()
            proxy.speaks.clear()
            failed = [anyio.Event() for _ in range(3)]
            for event in failed:
                tasks.start_soon(fails, driver, event)
                await anyio.wait_all_tasks_blocked()
            await driver.close()
            for event in failed:
                await event.wait()
            tasks.cancel_scope.cancel()


async def test_leaving_an_engine_ends(proxy: Proxy, url: str) -> None:
    """What it runs cannot be given back: its lease does that."""
    flows, running = Flows(), anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Commit:
        running.set()
        await anyio.sleep_forever()
        return Commit(Pause(state))

    with anyio.fail_after(PATIENCE_S):
        async with driver_at(proxy, url) as driver, Engine(driver, flows, grace=0) as engine:
            await engine.start(Transit(State("a"), work))
            await running.wait()
            proxy.speaks.clear()


async def test_leaving_an_engine_waits_for_no_read(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a flow reads, nobody wants any more."""
    monkeypatch.setattr(session, "CLOSING_S", DEADLINE_S)
    monkeypatch.setattr(background, "COMMIT_TIMEOUT_S", DEADLINE_S)
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Commit:
        await engine.peek(state.id)
        proxy.speaks.clear()
        await engine.peek(state.id)
        return Commit(Pause(state))

    with anyio.fail_after(PATIENCE_S):
        async with (
            driver_at(proxy, url, deadline=60) as driver,
            Engine(driver, flows, grace=0) as engine,
        ):
            await engine.start(Transit(State("a"), work))
            await anyio.to_thread.run_sync(proxy.was_asked.wait, PATIENCE_S)


async def test_a_connection_that_was_given_up_sends_nothing_more(
    url: str, postgres: Database
) -> None:
    """Nor does its machine send what it still has, once the other end takes it again."""
    where = target(postgres.url).parameters
    with Proxy(None, where["host"], where.get("port", "5432")) as proxy:
        silenced = before({WRITES: lambda _: proxy.speaks.clear()})
        driver = driver_through(through(proxy, url, reconnect="0"), silenced)
        driver.target = attrs.evolve(driver.target, deadline=DEADLINE_S)
        async with driver:
            big = Pause(State("big", annotations={"text": "x" * 50_000_000}))
            with anyio.fail_after(PATIENCE_S), pytest.raises(UnknownOutcomeError):
                await put(driver, big)
            proxy.speaks.set()
            await until(lambda: proxy.reset)
            assert await driver.get("big") is None
