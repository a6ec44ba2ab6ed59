"""PostgreSQL with a standby: what a commit survives then, and what the standby is good for."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import anyio.to_thread
import psycopg
import pytest

from flowstate import (
    Commit,
    Durability,
    Engine,
    Pause,
    State,
    StoreReadOnlyError,
    StoreUnreachableError,
    connect,
)

from ..postgres import Server, with_options

pytestmark = pytest.mark.anyio

PATIENCE_S = 30


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def standby(primary: Server) -> Iterator[Server]:
    """A synchronous standby: it has on its disk what the primary acknowledges."""
    server = Server(copy_of=primary)
    with psycopg.connect(primary.url(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        admin.execute("SELECT pg_reload_conf()")
    yield server
    server.close()


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({}, Durability.POWER),
        ({"synchronous": "local"}, Durability.POWER),
        ({"synchronous": "remote_apply"}, Durability.POWER),
        ({"synchronous": "off"}, Durability.PROCESS),
    ],
)
async def test_without_a_standby_nothing_is_on_two_nodes(
    primary: Server, options: dict[str, str], level: Durability
) -> None:
    """Whatever is asked for."""
    async with connect(with_options(primary.url(), schema="alone", **options)) as driver:
        assert level is driver.durability


async def test_a_server_without_fsync_does_not_survive_a_power_cut(primary: Server) -> None:
    """A driver does not declare what the server is set not to do."""
    careless = Server(("fsync=off",))
    try:
        async with connect(careless.url()) as driver:
            assert Durability.PROCESS is driver.durability
    finally:
        careless.close()


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({}, Durability.NODE),
        ({"synchronous": "remote_apply"}, Durability.NODE),
        ({"synchronous": "remote_write"}, Durability.POWER),
        ({"synchronous": "local"}, Durability.POWER),
        ({"synchronous": "off"}, Durability.PROCESS),
    ],
)
async def test_with_a_synchronous_standby_a_commit_is_on_two_nodes(
    primary: Server, standby: Server, options: dict[str, str], level: Durability
) -> None:
    """If it waits for the standby's disk."""
    async with connect(with_options(primary.url(), schema="two", **options)) as driver:
        assert level is driver.durability


async def test_a_standby_can_be_read_and_watched(primary: Server, standby: Server) -> None:
    """It cannot be listened to, so it is asked; writing says that it is a standby."""
    url = {"schema": "watched", "synchronous": "remote_apply"}
    async with (
        connect(with_options(primary.url(), **url)) as writing,
        Engine(writing) as engine,
    ):
        (a,) = await engine.do(Commit(Pause(State("a"))))
        async with (
            connect(with_options(standby.url(), **url)) as driver,
            Engine(driver) as reader,
        ):
            assert a == await reader.get("a")
            with pytest.raises(StoreReadOnlyError, match="Name the primary"):
                await reader.do(Commit(Pause(State("b"))))
            with anyio.fail_after(PATIENCE_S):
                async with reader.watch(after=a.rev) as watcher, anyio.create_task_group() as tasks:
                    tasks.start_soon(engine.do, Commit(Pause(State("b"))))
                    assert "b" == (await anext(watcher)).id


async def test_who_comes_while_there_is_no_primary_waits_for_one() -> None:
    """Also to open a store: the servers are there, so nothing is wrong with the URL."""
    primary = Server()
    standby = Server(copy_of=primary)
    hosts = f"{primary.folder},{standby.folder}"
    url = with_options(primary.url(), host=hosts, target_session_attrs="read-write")
    try:
        primary.stop()
        with pytest.raises(StoreUnreachableError, match="session is read-only"):
            async with connect(with_options(url, reconnect="0")):
                pass

        async def come() -> None:
            async with connect(url) as driver, Engine(driver) as engine:
                await engine.do(Commit(Pause(State("a"))))

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(come)
                tasks.start_soon(anyio.to_thread.run_sync, standby.promote)
    finally:
        standby.close()
        primary.close()


async def test_the_standby_takes_over(primary: Server, standby: Server) -> None:
    """With both in the URL, a driver goes on at whichever can be written, with all that was
    acknowledged. This is last here: the primary is gone then."""
    hosts = f"{primary.folder},{standby.folder}"
    url = with_options(primary.url(), host=hosts, target_session_attrs="read-write", schema="over")
    async with connect(url) as driver, Engine(driver) as engine:
        assert Durability.NODE is driver.durability
        (a,) = await engine.do(Commit(Pause(State("a"))))
        await anyio.to_thread.run_sync(primary.stop)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, standby.promote)
            with anyio.fail_after(PATIENCE_S):
                (b,) = await engine.do(Commit(Pause(State("b"))))
        assert [a, b] == [state async for state in engine.states()]
