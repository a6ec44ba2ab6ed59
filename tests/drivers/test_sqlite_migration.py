"""SQLite: what an older store tells of what its states were before, migrated or as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowstate import (
    Commit,
    DataRef,
    Driver,
    End,
    Engine,
    Page,
    Pause,
    Query,
    Retention,
    State,
    Status,
    StoreReadOnlyError,
    Transit,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.sqlite import schema
from flowstate.query import Left

from .older_sqlite import make_older

pytestmark = pytest.mark.anyio

BEFORE = schema.VERSION - 1
OLDER = pytest.mark.parametrize("version", range(1, schema.VERSION))

MAIL = {"queue": "mail"}
QUERIES = [
    Query(),
    Query(leaving=True),
    *(
        Query(leaving=leaving, **conditions)  # type: ignore[arg-type]
        for leaving in (False, True)
        for conditions in (
            {"labels": MAIL},
            {"labels": [MAIL, {"to": "you"}]},
            {"labels": {**MAIL, "to": "you"}},
            {"labels": MAIL, "status": Status.PAUSED},
            {"status": Status.RUNNING},
            {"flow": "work"},
            {"flow": "rest", "status": Status.PAUSED},
            {"id": "b", "labels": MAIL},
        )
    ),
]


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new.db"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old.db"


def url(path: Path, options: str = "") -> str:
    return f"sqlite:///{path}{options}"


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql, values)


async def fill(path: Path) -> None:
    """States that change their labels, their flows, their statuses, all of it, nothing, or come
    once only."""
    async with connect(url(path)) as driver, Engine(driver) as engine:

        async def pause(state: State, flow: str = "rest") -> State:
            (committed,) = await engine.do(Commit(Pause(state, flow)))
            return committed

        a = await pause(State("a", labels={**MAIL, "to": "you"}).attach("order", b"pears"))
        b = await pause(State("b"))
        a = await pause(a.without_labels("to"))
        b = await pause(b.with_labels(MAIL), "work")
        await pause(State("once", labels=MAIL))
        (a,) = await engine.do(Commit(Transit(a.without_labels("queue"), "work")))
        b = await pause(b, "work")
        await engine.do(Commit(End(b.with_labels({"queue": "post"}))))


async def pages(driver: Driver) -> Sequence[Page]:
    return [
        await driver.read(query, start, 100, newest_first=newest_first)
        for query in QUERIES
        for newest_first, start in ((False, 0), (True, 100))
    ]


TOLD = {
    "versions": "SELECT rev, flow, was_labels, was_status, was_flow FROM versions ORDER BY rev",
    "labels": "SELECT * FROM left_labels ORDER BY 1, 2, 3",
    "payloads": "SELECT rev, checksum, content, forgotten FROM payloads ORDER BY 1, 2",
    "indexes": "SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY 1",
}


@OLDER
async def test_what_states_were_before_is_known_as_if_it_had_been_stored(
    new: Path, old: Path, version: int
) -> None:
    """And where they are: their flows, and what rests by its status."""
    await fill(new)
    make_older(old, new, version)
    async with connect(url(new)) as written, connect(url(old)) as migrated:
        assert await pages(written) == await pages(migrated)
    assert rows(old, "PRAGMA user_version") == [(schema.VERSION,)]
    for sql in TOLD.values():
        assert rows(new, sql) == rows(old, sql)
    assert len(rows(old, TOLD["labels"])) == 3
    assert [row[2:] for row in rows(old, TOLD["versions"])][:4] == [
        (None, None, None),
        (None, None, None),
        ('{"queue":"mail","to":"you"}', None, None),
        ("{}", None, "rest"),
    ]


@OLDER
async def test_a_store_that_may_only_be_read_tells_the_same(
    new: Path, old: Path, version: int
) -> None:
    """As it is; also once somebody migrates it meanwhile."""
    await fill(new)
    make_older(old, new, version)
    before = old.read_bytes()
    async with (
        connect(url(new)) as written,
        connect(url(old, "?mode=ro")) as reading,
    ):
        expected = await pages(written)
        (ref,) = expected[0].versions[0].data.values()
        assert isinstance(ref, DataRef)
        for _ in range(2):
            assert expected == await pages(reading)
            assert await reading.count(Query(), "flow") == {"work": 1, "": 1, "rest": 1}
            found = await reading.find(Query(status=Status.PAUSED, labels=MAIL))
            assert found is not None
            assert found.id == "once"
            assert await reading.load(ref) == b"pears"
            with pytest.raises(StoreReadOnlyError):
                await reading.forget("a", [(1, ref.checksum)])
            if old.read_bytes() == before:
                async with connect(url(old)):
                    pass
        assert old.read_bytes() != before


async def test_of_what_was_removed_nothing_is_told(new: Path, old: Path) -> None:
    """A version whose previous one was compacted leaves nothing; the next one does."""
    await fill(new)
    make_older(old, new, BEFORE)
    for table in ("versions", "labels"):
        change(old, f"DELETE FROM {table} WHERE rev < 3")  # noqa: S608
    async with connect(url(old)) as driver, Engine(driver) as engine:
        page = await driver.read(Query(leaving=True), 0, 100)
        assert list(page.left) == [6, 8]
        (moved,) = await engine.do(Commit(Pause(await engine.get("once"), "work")))
        page = await driver.read(Query(leaving=True, flow="rest"), moved.rev - 1, 100)
        assert page.left == {moved.rev: Left(flow="rest")}


DAMAGE = {
    "cut text": "substr(state, 1, 30)",
    "no text at all": "x'ff00'",
    "text that is no UTF-8": "CAST(x'ff00' AS TEXT)",
    "a number": "7",
    "another shape": "'{\"transition\": [1]}'",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_damaged_version_does_not_stop_the_migration(
    new: Path, old: Path, damage: str
) -> None:
    """Of the others it is told what they left; the damaged one may be at any flow."""
    await fill(new)
    make_older(old, new, BEFORE)
    change(old, f"UPDATE versions SET state = {damage} WHERE rev = 3")  # noqa: S608
    change(old, "UPDATE versions SET labels = '[' WHERE rev = 5")
    for options in ("?mode=ro", ""):
        async with connect(url(old, options)) as driver:
            page = await driver.read(Query(leaving=True), 0, 100)
            assert [each.rev for each in page.unreadable] == [3]
            assert {8, 4} <= set(page.left)
            for query in (Query(labels=MAIL, leaving=True), Query(status=Status.PAUSED)):
                page = await driver.read(query, 0, 100)
                assert [each.rev for each in page.unreadable] == [3]
    async with connect(url(old)) as driver, Engine(driver) as engine:
        (moved,) = await engine.do(Commit(Pause(await engine.get("once"), "work")))
        assert moved == await driver.get("once")
        assert (await driver.compact(Retention(MAX_INSTANT_MS), 0, 100)).versions == 6
