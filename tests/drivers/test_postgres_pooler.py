"""PostgreSQL behind a pooler that gives each transaction another session of the server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread
import psycopg
import pytest
from attrs import define, field

from flowstate import Commit, Engine, Pause, State, StoreError, connect
from flowstate.drivers.postgres.session import Connection

from ..cli.shell import wait_for
from ..postgres import Database, Server, target, with_options
from .test_postgres_faults import pause
from .wrapped import LOCKS, before, driver_through

pytestmark = pytest.mark.anyio

CLIENTS = 4
COMMITS = 20
PORT = "6432"
NAMES = r"prepared statement .* does not exist.*nothing was written.*add prepare=off to the URL"
NEEDED = "pgbouncer is not installed (Debian: apt-get install pgbouncer)"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_statement_that_is_gone_names_the_option(postgres: Database) -> None:
    """Here, because the server was told to forget it; PostgreSQL says it with 26000."""
    forgetting: list[None] = []

    def forget(connection: Connection) -> None:
        if forgetting:
            connection.execute("DEALLOCATE ALL")

    async with driver_through(postgres.new_store(), before({LOCKS: forget})) as driver:
        for n in range(3):  # until it is prepared
            await driver.commit(pause(f"a{n}", f"{n}"))
        forgetting.append(None)
        with pytest.raises(StoreError, match=NAMES):
            await driver.commit(pause("b", "b"))


def test_no_two_connections_prepare_under_one_name(postgres: Database) -> None:
    """Or one would run what the other has prepared, where they come to share a session."""
    store = target(postgres.new_store())
    prepared: list[str] = []
    for _ in range(2):
        with store.connect() as connection:
            for _ in range(4):
                connection.execute("SELECT 1")
            rows = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
            prepared += [name for (name,) in rows]
    assert 2 == len(prepared)
    assert 2 == len(set(prepared))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def pooler(server: Server) -> Iterator[Pooler]:
    """PgBouncer before the server: clients get whatever session is free."""
    if shutil.which("pgbouncer") is None:
        pytest.skip(NEEDED)
    with Pooler(server) as pooler:
        yield pooler


@define
class Pooler:
    """In the directory of a server, to which it leads."""

    server: Server
    _process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        self._lead_to(self.server)
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []  # nor does it run as root
        self._process = subprocess.Popen(["pgbouncer", "-q", *as_user, self._settings])
        wait_for((self.server.folder / f".s.PGSQL.{PORT}").exists)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        (self.server.folder / f".s.PGSQL.{PORT}").unlink()

    def url(self, schema: str, **options: str) -> str:
        return with_options(self.server.url(), port=PORT, schema=schema, notify="off", **options)

    def lead_to(self, server: Server) -> None:
        """Have it lead to another server from now on."""
        self._lead_to(server)
        self._process.send_signal(signal.SIGHUP)

    @property
    def _settings(self) -> Path:
        return self.server.folder / "pgbouncer.ini"

    def _lead_to(self, server: Server) -> None:
        self._settings.write_text(f"""
[databases]
postgres = host={server.folder} user=postgres
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {self.server.folder}
auth_type = any
pool_mode = transaction
default_pool_size = 3
server_login_retry = 1
""")


async def test_a_pooler_works_with_prepare_off(pooler: Pooler) -> None:
    url = pooler.url("right", prepare="off")
    assert [] == await work(url)
    assert CLIENTS * COMMITS == len(await stored(url))


async def test_without_it_the_error_names_the_option(pooler: Pooler) -> None:
    """And nobody is given anything else than what was asked for."""
    errors = await work(pooler.url("wrong"))
    assert errors
    for error in errors:
        assert re.search(NAMES, error)


@pytest.mark.parametrize("options", [{"prepare": "off", "presence": "on"}, {}], ids=str)
async def test_who_goes_through_a_pooler_has_no_session(
    pooler: Pooler, options: dict[str, str]
) -> None:
    """Its lock would be whoever's gets that session of the server next; so it is not seen, whatever
    the URL says."""
    async with connect(pooler.url("absent", **options)) as driver:
        assert driver.session == ""


async def test_commits_go_on_when_a_pooler_leads_to_the_new_primary(pooler: Pooler) -> None:
    """Those wait that come meanwhile, and nothing that was acknowledged is missing."""
    server = pooler.server
    standby = Server(copy_of=server)
    try:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.execute("SELECT pg_reload_conf()")
        url = pooler.url("over", prepare="off")
        async with connect(url) as driver, Engine(driver) as engine:
            (a,) = await engine.do(Commit(Pause(State("a"))))
            server.stop()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(engine.do, Commit(Pause(State("b"))))
                await anyio.to_thread.run_sync(standby.promote)
                with psycopg.connect(standby.url(), autocommit=True) as admin:
                    admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
                    admin.execute("SELECT pg_reload_conf()")
                pooler.lead_to(standby)
            assert a == await engine.get("a")
            assert {"a", "b"} == {state.id async for state in engine.states()}
    finally:
        standby.close()


async def stored(url: str) -> set[str]:
    async with connect(url) as driver, Engine(driver) as engine:
        return {state.id async for state in engine.states()}


async def work(url: str) -> list[str]:
    """Several clients at once, each with connections of its own; gives the errors that they met.
    Each is through after its first."""
    errors: list[str] = []

    async def client(name: int) -> None:
        try:
            async with connect(url) as driver, Engine(driver) as engine:
                for n in range(COMMITS):
                    (made,) = await engine.do(Commit(Pause(State(f"{name}/{n}"))))
                    assert made == await engine.get(made.id)
        except StoreError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        for name in range(CLIENTS):
            tasks.start_soon(client, name)
    return errors
