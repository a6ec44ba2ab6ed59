"""PostgreSQL behind a pooler that gives each transaction another session of the server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import pytest

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
def pooled() -> Iterator[str]:
    """A server behind PgBouncer: clients get whatever session is free."""
    if shutil.which("pgbouncer") is None:
        pytest.skip(NEEDED)
    server = Server()
    settings = server.folder / "pgbouncer.ini"
    settings.write_text(f"""
[databases]
postgres = host={server.folder} user=postgres
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {server.folder}
auth_type = any
pool_mode = transaction
default_pool_size = 3
""")
    as_user = ["-u", "nobody"] if os.geteuid() == 0 else []  # nor does it run as root
    with ExitStack() as stack:
        stack.callback(server.close)
        pooler = subprocess.Popen(["pgbouncer", "-q", *as_user, settings], stderr=subprocess.PIPE)
        stack.callback(pooler.communicate)
        stack.callback(pooler.kill)
        wait_for((server.folder / f".s.PGSQL.{PORT}").exists)
        yield with_options(server.url(), port=PORT)


async def test_a_pooler_works_with_prepare_off(pooled: str) -> None:
    url = with_options(pooled, schema="right", prepare="off", notify="off")
    assert [] == await work(url)
    assert CLIENTS * COMMITS == len(await stored(url))


async def test_without_it_the_error_names_the_option(pooled: str) -> None:
    """And nobody is told anything else: what was acknowledged is stored, what was not is not."""
    url = with_options(pooled, schema="wrong", notify="off")
    errors = await work(url)
    assert errors
    for error in errors:
        assert re.search(NAMES, error)


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
