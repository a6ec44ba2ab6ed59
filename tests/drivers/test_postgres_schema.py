"""PostgreSQL: who may make the tables, who may use them, and which indexes serve which query."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, LiteralString

import anyio
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from flowstate import (
    Commit,
    Delay,
    End,
    Engine,
    Pause,
    Query,
    Resume,
    RetryPolicy,
    SchemaVersionError,
    State,
    StoreCorruptError,
    StoreOpenError,
    StoreReadOnlyError,
    connect,
)
from flowstate.drivers.postgres import schema

from ..postgres import Database, target, with_options

pytestmark = pytest.mark.anyio

PATIENCE_S = 30


@pytest.fixture
def anyio_backend() -> str:
    """Tables are the same for every loop."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store()


@pytest.fixture
def admin(postgres: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection that may do everything."""
    with closing(psycopg.connect(postgres.url, autocommit=True)) as connection:
        yield connection


async def fill(url: str, *ids: str) -> None:
    async with connect(url) as driver, Engine(driver) as engine:
        for id in ids:
            await engine.do(Commit(Pause(State(id, labels={"queue": "mail"}), "work")))


async def ids(url: str) -> list[str]:
    async with connect(url) as driver, Engine(driver) as engine:
        return [state.id async for state in engine.states()]


def run(admin: psycopg.Connection[Any], url: str, text: LiteralString) -> list[Any]:
    """A statement on a store, behind the driver's back."""
    cursor = admin.execute(target(url).sql(text))
    return cursor.fetchall() if cursor.description else []


# ---------------------------------------------------------------- making the tables


async def test_processes_may_make_a_store_at_once(url: str) -> None:
    """The schema is made once, whoever is first."""
    program = (
        "import anyio, sys; from flowstate import connect\n"
        "async def main():\n"
        "    async with connect(sys.argv[1]) as driver: await driver.head()\n"
        "anyio.run(main)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    errors = [child.communicate(timeout=PATIENCE_S)[1] for child in children]
    assert [(0, b"")] * 4 == [
        (child.returncode, error) for child, error in zip(children, errors, strict=True)
    ]
    assert await ids(url) == []


async def test_a_newer_schema_is_refused_untouched(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """What a newer flowstate wrote is left alone."""
    await fill(url, "a")
    run(admin, url, "UPDATE {s}.meta SET version = version + 1")
    before = run(admin, url, "SELECT v.*, v.xmin::text FROM {s}.versions v")
    with pytest.raises(SchemaVersionError, match=rf"version {schema.VERSION + 1}, newer than"):
        await connect(url).open()
    assert before == run(admin, url, "SELECT v.*, v.xmin::text FROM {s}.versions v")
    assert [(schema.VERSION + 1,)] == run(admin, url, "SELECT version FROM {s}.meta")


async def test_a_schema_of_something_else_is_refused_untouched(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """Somebody's own tables stay theirs, and get no others beside them."""
    run(admin, url, "CREATE SCHEMA {s}")
    run(admin, url, "CREATE TABLE {s}.diary (day text)")
    with pytest.raises(StoreOpenError, match="tables of something else"):
        await connect(url).open()
    assert [("diary",)] == admin.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
        (target(url).schema,),
    ).fetchall()


@pytest.mark.parametrize("mode", ["rw", "ro"])
async def test_a_mode_that_makes_no_store(url: str, mode: str) -> None:
    """``mode=rw`` and ``mode=ro`` are for stores that must be there."""
    with pytest.raises(StoreOpenError, match=f"mode={mode} makes none"):
        await connect(with_options(url, mode=mode)).open()
    await fill(url, "a")
    assert ["a"] == await ids(with_options(url, mode=mode))


async def test_a_store_opened_read_only_refuses_to_write(url: str) -> None:
    """``mode=ro`` reads."""
    await fill(url, "a")
    async with connect(with_options(url, mode="ro")) as driver, Engine(driver) as engine:
        state = await engine.get("a")
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await engine.do(Commit(End(state)))
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await driver.renew([("a", 1, "")], "w", 5)
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await driver.claim({"work": 1}, 1, "w", "1", 5)


@pytest.mark.parametrize("name", ['quo"ted', "x'; DROP SCHEMA public; --", "Ümläut {s} %s %(a)s"])
async def test_any_name_of_a_schema_is_only_a_name(postgres: Database, name: str) -> None:
    """It is put into statements quoted; what it says is never one."""
    url = with_options(postgres.url, schema=name)
    await fill(url, "a")
    async with connect(url) as driver, connect(url) as other:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.wait, 1)
                async with Engine(other) as engine:
                    await engine.do(Commit(Pause(State("b"))))
    assert ["a", "b"] == await ids(url)


async def test_schemas_are_stores_of_their_own(postgres: Database) -> None:
    """Ids and revisions of one have nothing to do with those of another."""
    one, two = postgres.new_store(), postgres.new_store()
    await fill(one, "a", "b")
    await fill(two, "b", "c", "d")
    assert (["a", "b"], ["b", "c", "d"]) == (await ids(one), await ids(two))


async def test_a_database_that_cannot_keep_every_text_is_refused(
    postgres: Database, admin: psycopg.Connection[Any]
) -> None:
    """Its encoding must be UTF-8."""
    name = Identifier(f"{postgres.name}_latin")
    admin.execute(
        SQL("CREATE DATABASE {} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").format(name)
    )
    try:
        with pytest.raises(StoreOpenError, match="encoded in LATIN1"):
            await connect(with_options(postgres.url, dbname=f"{postgres.name}_latin")).open()
    finally:
        admin.execute(SQL("DROP DATABASE {}").format(name))


# ---------------------------------------------------------------- what is stored


FLOATS = [0.001, 1.5, 1.0, 3.0000000000000004e2, 86_400.001, 12_345_678.9]


@pytest.mark.parametrize("number", FLOATS)
async def test_numbers_come_back_as_they_were(url: str, number: float) -> None:
    """``jsonb`` keeps numbers as decimals of any length: no bit is lost."""
    policy = RetryPolicy(lease=1.0, backoff=0.001, max_backoff=number, max_attempts=2**62)
    state = State("a", retry=policy)
    async with connect(url) as driver, Engine(driver) as engine:
        (written,) = await engine.do(Commit(Pause(state)))
        read = await driver.get("a")
    assert written == read
    assert read is not None
    assert policy == read.retry
    assert type(policy.max_backoff) is type(read.retry.max_backoff)


async def test_texts_and_stacks_come_back_as_they_were(url: str) -> None:
    """Whatever a text holds, wherever it is; and states inside states."""
    odd = "\\u0041 \" ' \\ \n\t\x01 €😀 \\x00 {} %s null"
    state = State(odd, labels={odd: odd}, annotations={odd: odd})
    for depth in range(50):
        state = State(f"{depth}", labels={"b": "1", "a": "2"}).stack("inner", state)
    async with connect(url) as driver, Engine(driver) as engine:
        (written,) = await engine.do(Commit(Pause(state, odd, reason=odd)))
        assert written == await driver.get(state.id)
        (written,) = await engine.do(Commit(Pause(State(odd, labels={odd: odd}))))
        assert written == await engine.find(Query(labels={odd: odd}, id_prefix=odd[:4]))


async def test_texts_of_any_length_are_indexed(url: str) -> None:
    """An index of PostgreSQL takes 2,700 bytes; labels and flows have no such bound."""
    long = "".join(map(str, range(5_000)))
    async with connect(url) as driver, Engine(driver) as engine:
        state = State("a", labels={long: long, "queue": "mail"})
        (state,) = await engine.do(Commit(Delay(state, long, after=0)))
        assert state == await engine.find({long: long})
        (state,) = await engine.do(Commit(Resume(state)))
        assert [long] == [*await driver.line()]
        claimed = await driver.claim({long: 1}, 1, long, long, state.committed_at)
        assert [state] == [each.state for each in claimed]
        (holding,) = await driver.holdings(long)
        assert ("a", state.rev, long) == holding.held


async def test_a_row_that_does_not_decode_is_named_and_hides_no_other(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """StoreCorruptError says which revision; the other states are still there."""
    await fill(url, "a", "b")
    run(admin, url, "UPDATE {s}.versions SET state = '{{\"id\": 7}}' WHERE rev = 1")
    async with connect(url) as driver, Engine(driver) as engine:
        with pytest.raises(StoreCorruptError, match="the version at revision 1"):
            await engine.get("a")
        assert 2 == (await engine.get("b")).rev


async def test_references_to_payloads_are_kept_by_commit(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """Which version refers to which payload, also by a copied reference or in a stacked state."""
    async with connect(url) as driver, Engine(driver) as engine:
        (a,) = await engine.do(Commit(Pause(State("a").attach("order", b"pears"))))
        (b,) = await engine.do(Commit(Pause(State("b").attach("copy", a.data["order"]))))
        (c,) = await engine.do(Commit(Pause(State("c").stack("inner", b))))
        await engine.do(Commit(Pause(State("d"))))
    refs = run(admin, url, "SELECT rev, payload_rev FROM {s}.payload_refs ORDER BY rev")
    assert [(a.rev, a.rev), (b.rev, a.rev), (c.rev, a.rev)] == refs
