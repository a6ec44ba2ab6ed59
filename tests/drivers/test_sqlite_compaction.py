"""What compaction is on an SQLite file: older stores, read-only ones, large rows, room on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowstate import (
    Commit,
    DataNotFoundError,
    DataRef,
    Driver,
    End,
    Engine,
    Pause,
    Query,
    Retention,
    State,
    Status,
    StoreError,
    StoreOpenError,
    StoreReadOnlyError,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.reader import MAX_SCAN
from flowstate.drivers.sqlite import schema
from flowstate.drivers.sqlite.rows import KEYS, among

from .older_sqlite import make_older

pytestmark = pytest.mark.anyio

ALL = Retention(MAX_INSTANT_MS, ended=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.db"


def url(path: Path, options: str = "") -> str:
    return f"sqlite:///{path}{options}"


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


async def commit(engine: Engine, state: State) -> State:
    (committed,) = await engine.do(Commit(Pause(state, "work")))
    return committed


async def fill(path: Path) -> list[State]:
    """A store with payloads: carried on, copied, stacked, dropped, and none."""
    async with connect(url(path)) as driver, Engine(driver) as engine:
        a = await commit(engine, State("a").attach("order", b"pears").attach("list", [1, 2]))
        b = await commit(engine, State("b").attach("taken", a.data["order"]))
        c = await commit(engine, State("c").stack("inner", State("d").stack("caller", a)))
        await commit(engine, a)
        await commit(engine, State("a", rev=4))
        await commit(engine, State("kind", annotations={"kind": "stored"}))
        await commit(engine, b.without_labels())
        await commit(engine, c.unstack("inner"))
        return [state async for state in engine.states()]


# ---------------------------------------------------------------- migration


async def test_an_older_store_is_migrated_with_all_its_references(
    path: Path, tmp_path: Path
) -> None:
    """What each of its versions refers to is known then, also from inside stacked states, as if
    it had been written by this flowstate; and the log is as it was."""
    log = await fill(tmp_path / "new.db")
    make_older(path, tmp_path / "new.db", 1)
    async with connect(url(path)) as driver, Engine(driver) as engine:
        assert [state async for state in engine.states()] == log
        page = await driver.read(Query(), 0, 100)
        assert (page.versions, page.compacted) == (tuple(log), 0)
    for sql in (
        "SELECT * FROM payload_references ORDER BY 1, 2, 3",
        "SELECT rev, payload_keys IS NULL FROM versions ORDER BY 1",
        "PRAGMA user_version",
    ):
        assert rows(path, sql) == rows(tmp_path / "new.db", sql)
    assert len(rows(path, "SELECT * FROM payload_references")) == 8


async def test_an_older_store_is_compacted_like_a_new_one(path: Path, tmp_path: Path) -> None:
    """A payload that was stored before the migration goes with its last reference, not sooner."""
    log = await fill(tmp_path / "new.db")
    make_older(path, tmp_path / "new.db", 1)
    pears, numbers = log[0].data["order"], log[0].data["list"]
    assert isinstance(pears, DataRef)
    assert isinstance(numbers, DataRef)
    async with connect(url(path)) as driver:
        batch = await driver.compact(ALL, 0, 1_000)
        assert (batch.versions, batch.payloads) == (4, 1)
        assert await driver.load(pears) == b"pears"
        with pytest.raises(DataNotFoundError):
            await driver.load(numbers)


async def test_an_older_flowstate_cannot_write_beside_a_newer_one(
    path: Path, tmp_path: Path
) -> None:
    """One that has the file open while it is migrated is refused: nobody would know what its
    versions refer to."""
    await fill(tmp_path / "new.db")
    make_older(path, tmp_path / "new.db", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        insert = "INSERT INTO versions VALUES (?,?,?,?,?,?,?,?,?,?)"
        row = (99, "old", "paused", None, 1, "id", 1, None, None, "{}")
        older.execute("BEGIN IMMEDIATE")
        older.execute(insert, row)
        older.execute("ROLLBACK")
        async with connect(url(path)):
            pass
        with pytest.raises(sqlite3.OperationalError, match="columns but 10 values"):
            older.execute(insert, row)


async def test_a_damaged_version_does_not_stop_the_migration(path: Path, tmp_path: Path) -> None:
    """What it refers to cannot be told; the others are migrated."""
    await fill(tmp_path / "new.db")
    make_older(path, tmp_path / "new.db", 1)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE versions SET state = substr(state, 1, 200) WHERE rev = 4")
    async with connect(url(path)) as driver:
        assert await driver.head() == 8
    assert [4] not in rows(path, "SELECT DISTINCT rev FROM payload_references")
    assert len(rows(path, "SELECT * FROM payload_references")) == 6


async def test_an_older_store_can_be_read_without_being_migrated(
    path: Path, tmp_path: Path
) -> None:
    """Who may only read leaves it as it is and reads all of it; what compaction would do cannot be
    told. Once somebody has migrated it, also meanwhile, that is known."""
    log = await fill(tmp_path / "new.db")
    make_older(path, tmp_path / "new.db", 1)
    async with connect(url(path, "?mode=ro")) as reading:
        assert (await reading.read(Query(), 0, 100)).versions == tuple(log)
        assert (await reading.read(Query(), 0, 100)).compacted == 0
        takes = f"version 1, and this takes {schema.VERSION}; open it once"
        with pytest.raises(StoreOpenError, match=takes):
            await reading.compact(ALL, 0, 1_000, dry_run=True)
        assert rows(path, "PRAGMA user_version") == [(1,)]
        async with connect(url(path)) as driver:
            await driver.compact(ALL, 0, 1_000)
        assert (await reading.read(Query(), 0, 100)).compacted == 4
        assert (await reading.compact(ALL, 0, 1_000, dry_run=True)).versions == 0


# ---------------------------------------------------------------- one file


async def test_a_store_opened_read_only_can_be_looked_at(path: Path) -> None:
    """A dry run needs no right to write; a real one is refused."""
    await fill(path)
    async with connect(url(path, "?mode=ro")) as driver:
        assert (await driver.compact(ALL, 0, 1_000, dry_run=True)).versions == 4
        with pytest.raises(StoreReadOnlyError):
            await driver.compact(ALL, 0, 1_000)


async def test_a_damaged_version_goes_as_any_other(path: Path) -> None:
    """Compaction goes by the columns; what stands in the text does not hold it up."""
    await fill(path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE versions SET state = '{' WHERE rev = 1")
    async with connect(url(path)) as driver:
        assert (await driver.compact(ALL, 0, 1_000)).versions == 4
    assert rows(path, "SELECT rev FROM versions WHERE rev = 1") == []


async def test_nothing_is_left_behind(path: Path) -> None:
    """Of a version that is gone no row is left in any table; of one that is there, all are."""
    async with connect(url(path)) as driver, Engine(driver) as engine:
        for n in range(5):
            state = State(f"{n}", labels={"n": f"{n}", "queue": "mail"}).attach("data", f"{n}")
            moved = await commit(engine, (await commit(engine, state)).without_labels("n"))
            if n % 2:
                await engine.do(Commit(End(moved)))
        assert (await driver.compact(ALL, 0, 1_000)).states == 2
    kept = rows(path, "SELECT rev FROM versions ORDER BY rev")
    assert [rev for (rev,) in kept] == [2, 7, 12]
    for table, key in (("labels", "queue"), ("current_labels", "queue"), ("left_labels", "n")):
        sql = f"SELECT key, rev FROM {table} ORDER BY rev"  # noqa: S608
        assert rows(path, sql) == [(key, rev) for (rev,) in kept]
    assert rows(path, "SELECT rev FROM payload_references ORDER BY rev") == kept
    assert len(rows(path, "SELECT * FROM payloads")) == len(kept)


async def test_what_is_gone_is_not_paged_through(path: Path) -> None:
    """A page looks at versions, not at revisions that are no more: all that a long log has left
    is in one."""
    nothing = Query(status=Status.NEW)
    async with connect(url(path)) as driver, Engine(driver) as engine:
        first = await commit(engine, State("first"))
        states = tuple(State(f"{n}") for n in range(1_000))
        for _ in range(12):
            states = await engine.do(Commit(*map(Pause, states)))
        assert (await driver.read(nothing, 0, 2_000)).upto < states[-1].rev, "a page has a bound"
        page = await driver.read(nothing, states[-1].rev + 1, 2_000, newest_first=True)
        assert page.upto == states[-1].rev + 1 - MAX_SCAN
        while (await driver.compact(ALL, 0, 4_000)).versions:
            pass
        page = await driver.read(Query(status=Status.PAUSED), 0, 2_000)
        assert (page.versions, page.upto) == ((first, *states), states[-1].rev)
        assert (await driver.read(nothing, 0, 2_000)).upto == states[-1].rev
        page = await driver.read(Query(), states[-1].rev + 1, 2_000, newest_first=True)
        assert (page.versions, page.upto) == ((*states[::-1], first), 1)
        page = await driver.read(nothing, states[-1].rev + 1, 1, newest_first=True)
        assert page.upto == states[-10].rev, "a page looks at ten for each that it may hold"


async def test_an_error_leaves_all_as_it_was(path: Path) -> None:
    """A batch that cannot be finished has not begun: nothing of it is gone."""
    await fill(path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(
            "CREATE TRIGGER stop BEFORE DELETE ON versions WHEN old.rev = 4 "
            "BEGIN SELECT raise(ABORT, 'not this one'); END"
        )
    before = [rows(path, f"SELECT * FROM {table}") for table in _TABLES]  # noqa: S608
    async with connect(url(path)) as driver:
        with pytest.raises(StoreError, match="not this one"):
            await driver.compact(ALL, 0, 1_000)
        assert [rows(path, f"SELECT * FROM {table}") for table in _TABLES] == before  # noqa: S608
        await _create(driver, "later")
    assert rows(path, "SELECT id FROM versions ORDER BY rev DESC LIMIT 1") == [("later",)]


@pytest.mark.parametrize("table", KEYS)
async def test_rows_are_looked_up_by_their_whole_key(path: Path, table: str) -> None:
    """Not by its first column alone: a commit may share a revision among a thousand payloads."""
    await fill(path)
    sql = f"EXPLAIN QUERY PLAN DELETE FROM {table} WHERE {among(table)}"  # noqa: S608
    with closing(sqlite3.connect(path)) as connection:
        (search,) = (
            row[3] for row in connection.execute(sql, ("[]",)) if f"SEARCH {table} " in row[3]
        )
    assert search.count("=?") == len(KEYS[table])


async def test_room_is_used_again(path: Path) -> None:
    """The file does not grow while as much is removed as is written."""
    sizes: list[int] = []
    async with connect(url(path)) as driver, Engine(driver) as engine:
        state = await commit(engine, State("a"))
        for turn in range(4):
            for n in range(100):
                content = (b"%d/%d" % (turn, n)) * 2_000
                state = await commit(engine, state.attach("blob", content))
            await driver.compact(ALL, 0, 1_000)
            sizes.append(rows(path, "PRAGMA page_count")[0][0])
    assert sizes[1] == sizes[2] == sizes[3]
    assert rows(path, "PRAGMA freelist_count")[0][0] > sizes[-1] * 0.9


async def _create(driver: Driver, id: str) -> None:
    async with Engine(driver) as engine:
        await engine.do(Commit(End(State(id))))


_TABLES = (*KEYS, "compacted")
