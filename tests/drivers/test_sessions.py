"""Sessions of drivers, where processes fork, files are read and servers come and go."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import psycopg
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define

from flowstate import (
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    State,
    StoreError,
    StoreUnreachableError,
    Transit,
    connect,
)
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.driver import PostgresDriver
from flowstate.drivers.postgres.presence import Session
from flowstate.drivers.sqlite import sessions
from flowstate.leases import owner_in
from flowstate.recovery.roll_call import RollCall
from flowstate.testing.conformance.base import hand_out

from ..helpers import until
from ..postgres import Database, Server, target, with_options

pytestmark = pytest.mark.anyio

PATIENCE_S = 60
FORKING = Path(__file__).with_name("forking_process.py")


@pytest.fixture
def anyio_backend() -> str:
    """What is done here is done in threads."""
    return "asyncio"


# ---------------------------------------------------------------- on every store that has them


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    postgres: Database = request.getfixturevalue("postgres")
    return postgres.new_store(reconnect="0.5")


@define
class Forked:
    """A process whose child is still there, and the owner that it is."""

    process: Process
    out: BufferedByteReceiveStream
    owner: str

    async def end_child(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(b"\n")
        assert await self.out.receive_until(b"\n", 1_000) == b"child has ended"


@asynccontextmanager
async def forked(url: str) -> AsyncGenerator[Forked]:
    with anyio.fail_after(PATIENCE_S):
        async with await anyio.open_process(
            [sys.executable, "-P", FORKING, url], stderr=None
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            out = BufferedByteReceiveStream(process.stdout)
            session = (await out.receive_until(b"\n", 1_000)).decode()
            yield Forked(process, out, owner_in("worker", session))
            process.kill()
            await process.stdin.aclose()


async def know(driver: Driver, owners: dict[str, bool]) -> None:
    """Return once the driver knows this."""
    with anyio.fail_after(PATIENCE_S):
        while await driver.owners() != owners:  # noqa: ASYNC110  (the system tells nobody)
            await anyio.sleep(0.01)


async def test_a_child_does_not_keep_the_session_of_its_parent(url: str) -> None:
    """It has the open files of its parent, and lives on."""
    async with connect(url) as watcher, forked(url) as parent:
        await watcher.attend()
        await hand_out(watcher, "a", owner=parent.owner)
        assert await watcher.owners() == {parent.owner: True}
        parent.process.kill()
        await know(watcher, {parent.owner: False})
        await parent.end_child()


async def test_a_child_does_not_end_the_session_of_its_parent(url: str) -> None:
    """It has a driver that was its parent's, and ends."""
    async with connect(url) as watcher, forked(url) as parent:
        await watcher.attend()
        await hand_out(watcher, "a", owner=parent.owner)
        async with connect(url) as left:
            await left.attend()
            gone = owner_in("worker", left.session)
            await hand_out(watcher, "b", owner=gone)
        await parent.end_child()
        await know(watcher, {parent.owner: True, gone: False})


async def test_closing_does_not_wait_for_who_attends(url: str) -> None:
    """A driver that is closed while something is about to be taken."""
    for _ in range(20):
        driver = connect(url)
        await driver.open()
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(driver.attend)
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(driver.close)


# ---------------------------------------------------------------- SQLite


async def test_reading_the_file_of_sessions_ends_none(tmp_path: Path) -> None:
    """A backup may copy it, in whatever process. A copy of the store takes nobody for alive."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with connect(url) as worker, connect(url) as watcher:
        owner = owner_in("worker", worker.session)
        await hand_out(worker, "a", owner=owner)
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            connection.execute(f"VACUUM INTO '{tmp_path}/copy.db'")
        for name in ("copy.db-sessions", "another"):
            shutil.copy(tmp_path / "store.db-sessions", tmp_path / name)
        assert await watcher.owners() == {owner: True}
        async with connect(f"sqlite:///{tmp_path}/copy.db") as copy:
            assert await copy.owners() == {owner: False}
        (tmp_path / "copy.db-sessions").unlink()
        async with connect(f"sqlite:///{tmp_path}/copy.db") as copy:
            assert await copy.owners() == {owner: None}


async def test_who_only_reads_sees_who_is_there_and_is_no_session(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with connect(url) as worker, connect(f"{url}?mode=ro") as reader:
        owner = owner_in("worker", worker.session)
        await hand_out(worker, "a", owner=owner)
        assert await reader.owners() == {owner: True}
        assert reader.session == ""
        await worker.close()
        assert await reader.owners() == {owner: False}


async def test_where_locks_tell_nothing_there_are_no_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that other machines may have, no file is made beside the store."""
    monkeypatch.setattr(sessions, "LOCAL", set[bytes]())
    async with connect(f"sqlite:///{tmp_path}/store.db") as driver:
        await hand_out(driver, "a", owner=owner_in("worker", "x"))
        assert driver.session == ""
        assert await driver.owners() == {"worker#x": None}
    assert not (tmp_path / "store.db-sessions").exists()


# ---------------------------------------------------------------- PostgreSQL


@asynccontextmanager
async def two_at(url: str) -> AsyncGenerator[tuple[PostgresDriver, PostgresDriver, RollCall]]:
    """Two that are there, one of which has something, and the roll that the other calls."""
    async with connect(url) as worker, connect(url) as watcher, Engine(watcher) as engine:
        assert isinstance(worker, PostgresDriver)
        assert isinstance(watcher, PostgresDriver)
        for driver in (worker, watcher):
            await driver.attend()
        await hand_out(worker, "a", owner=owner_in("worker", worker.session))
        with anyio.fail_after(PATIENCE_S):
            yield worker, watcher, RollCall(engine)


def session_of(driver: PostgresDriver) -> Session:
    session = driver._session  # noqa: SLF001  (nothing else tells)
    assert session is not None
    return session


def backend_of(driver: PostgresDriver) -> int:
    """The process of the server that has its session."""
    connection = session_of(driver)._connection  # noqa: SLF001  (nothing else tells)
    assert connection is not None
    return connection.info.backend_pid


def since(driver: PostgresDriver) -> float:
    """Since when it is there; 0: it is not."""
    return session_of(driver).since or 0.0


@define
class LateTarget:
    """A server that one cannot connect to until it may be."""

    target: Target
    may: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def connect(self, closing: threading.Event) -> Any:
        if not self.may:
            raise psycopg.OperationalError("not yet")
        return self.target.connect(closing)


async def test_a_session_that_the_server_ends_comes_back(postgres: Database) -> None:
    """Before anybody takes it for dead."""
    async with two_at(postgres.new_store(reconnect="0.5")) as (worker, watcher, roll):
        await until(lambda: session_of(watcher).has_been_there(since(watcher)))
        with target(postgres.url).connect() as admin:
            for _ in range(3):
                before = since(worker)
                admin.execute("SELECT pg_terminate_backend(%s::int)", (backend_of(worker),))
                while since(worker) <= before:
                    await roll.look()
                await roll.look()
                assert not roll.dead
                assert set((await watcher.owners()).values()) == {True}


async def test_who_lost_its_session_takes_nothing_until_it_is_back(postgres: Database) -> None:
    """It would be taken for dead at once; and what it has taken would lose an attempt."""
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Commit:
        return Commit(End(state))

    async with two_at(postgres.new_store(reconnect="0.5")) as (worker, watcher, _):
        late: Any = LateTarget(worker.target)
        session_of(worker).target = late
        assert worker.attends
        with target(postgres.url).connect() as admin:
            admin.execute("SELECT pg_terminate_backend(%s::int)", (backend_of(worker),))
        await until(lambda: not worker.attends)
        async with Engine(worker, flows) as engine:
            with pytest.raises(StoreUnreachableError, match="not yet"):
                await engine.execute(Commit(Transit(State("b"), work)))
            assert await watcher.get("b") is None
            late.may = True
            await until(lambda: worker.attends)
            assert (await engine.execute(Commit(Transit(State("b"), work)))).id == "b"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(("fsync=off",))
    yield server
    server.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_after_a_restart_nobody_is_dead_who_comes_back(server: Server, mode: str) -> None:
    """Whoever is back first knows nothing yet, until all others have had the time to come back."""
    url = with_options(server.url(), schema=f"restarted_{mode}", reconnect="60")
    async with two_at(url) as (worker, watcher, roll):
        late: Any = LateTarget(worker.target)
        session_of(worker).target = late
        before = since(worker), since(watcher)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, server.restart, mode)
            while since(watcher) <= before[1] or since(worker) == before[0]:
                await look(roll)
        for _ in range(10):  # for longer than it takes to be missed
            await look(roll)
        assert not since(worker)
        late.may = True
        await know(watcher, {owner_in("worker", worker.session): True})


async def test_who_is_not_there_itself_knows_nothing_of_others(postgres: Database) -> None:
    """It may be at another server than the one it was at, and not know it yet."""
    async with two_at(postgres.new_store(reconnect="0.5")) as (worker, watcher, _):
        owner = owner_in("worker", worker.session)
        await worker.close()
        await know(watcher, {owner: False})
        session_of(watcher).name = "one that this server does not know"
        assert await watcher.owners() == {owner: None}


async def look(roll: RollCall) -> None:
    """As a recoverer does: a server that is away costs it a look."""
    try:
        await roll.look()
    except StoreError:
        await anyio.sleep(0.01)
    assert not roll.dead
