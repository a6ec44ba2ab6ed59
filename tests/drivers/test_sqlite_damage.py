"""SQLite: what is told of a file that is not as it was written.

A version that is missing although nothing removed it is told in its place; and whatever a damaged
page does is an error of the store.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Commit,
    Driver,
    End,
    Engine,
    FlowstateError,
    Pause,
    Query,
    Retention,
    State,
    Status,
    StoreError,
    Transit,
    UnreadableVersionError,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.testing.wrapper import WrapperDriver

pytestmark = pytest.mark.anyio


FAR = MAX_INSTANT_MS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def read(versions: AsyncIterator[State], count: int = 1_000) -> tuple[list[int], list[int]]:
    """The revisions that are given, and those that are told instead."""
    given: list[int] = []
    told: list[int] = []
    while len(given) + len(told) < count:
        try:
            given.append((await anext(versions)).rev)
        except UnreadableVersionError as error:
            if error.why == "it is not there, and no compaction removed it":
                told.append(error.rev)
        except StopAsyncIteration:
            break
    return given, told


async def fill(path: Path, count: int = 9) -> None:
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        for number in range(1, count + 1):
            labels = {"parity": "odd" if number % 2 else "even"}
            await engine.do(Commit(Pause(State(f"s{number % 3}-{number}", labels=labels))))


def execute(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql, values)


# ---------------------------------------------------------------- gaps


@pytest.mark.parametrize("missing", [[5], [2, 3, 4], [1], [8], [1, 5, 6, 8]])
async def test_a_gap_is_told_where_it_is_and_passed_by(path: Path, missing: list[int]) -> None:
    """By lists in both directions, from page to page, and by a watcher that began before it."""
    await fill(path)
    for rev in missing:
        execute(path, "DELETE FROM versions WHERE rev = ?", rev)
    there = [rev for rev in range(1, 10) if rev not in missing]
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        assert (there, missing) == await read(engine.states())
        falling = (there[::-1], missing[::-1])
        assert falling == await read(engine.states(newest_first=True))
        assert (there, missing) == await read(engine.watch(Query()), 9)
        for limit in (1, 2, 3):
            after, revs = 0, list[int]()
            while after < 9:
                page = await driver.read(Query(), after, limit)
                revs += [entry.rev for entry in page.entries]
                after = page.upto
            assert list(range(1, 10)) == revs


@define(eq=False)
class Heard(WrapperDriver):
    """Says when somebody waits."""

    waited: anyio.Event = field(factory=anyio.Event)

    async def wait(self, after: int) -> int:
        self.waited.set()
        return await super().wait(after)


async def test_a_gap_between_what_a_watcher_had_and_the_head_is_told(path: Path) -> None:
    """Whoever waits at the head reads on from there, for all watchers of the engine."""
    await fill(path)
    async with Heard(connect(f"sqlite:///{path}")) as driver, Engine(driver) as engine:
        watcher = engine.watch(Query(labels={"parity": "even"}), after=9)
        told: list[Any] = []

        async def follow() -> None:
            told.append(await read(watcher, 2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await driver.waited.wait()
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN")
                for rev in (11, 12):  # as if 10 had been lost
                    other.execute(
                        "INSERT INTO versions (rev, id, status, labels, committed_at, commit_id, "
                        "current, state, flow) SELECT ?, 'x', status, labels, committed_at, "
                        "'x', 1, replace(replace(state, '\"rev\":8', '\"rev\":' || ?), id, 'x'), "
                        "flow FROM versions WHERE rev = 8",
                        (rev, rev),
                    )
                other.execute("COMMIT")
        assert [([11], [10])] == told


async def test_what_compaction_removed_is_no_gap_and_what_is_missing_above_it_is(
    path: Path,
) -> None:
    await fill(path)
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        for rev in (1, 2, 4):
            state = await engine.get(f"s{rev % 3}-{rev}", rev)
            await engine.do(Commit(Pause(state)))
        await driver.compact(Retention(before=FAR, keep=1), 0, 100)
        assert ([3, 5, 6, 7, 8, 9, 10, 11, 12], []) == await read(engine.states())
        execute(path, "DELETE FROM versions WHERE rev IN (3, 8)")
        # where compaction has been nobody can tell what is missing
        assert ([5, 6, 7, 9, 10, 11, 12], [8]) == await read(engine.states())


async def test_what_an_index_names_and_is_not_there_is_told(path: Path) -> None:
    """Of a state, of a label, and of what is current."""
    await fill(path)
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        odd = Query(labels={"parity": "odd"})
        execute(path, "UPDATE labels SET rev = 40 WHERE rev = 5")
        assert ([1, 3, 7, 9], []) == await read(engine.states(odd))  # beyond the head
        execute(path, "DELETE FROM versions WHERE rev = 7")
        assert ([1, 3, 9], [7]) == await read(engine.states(odd))
        assert ([9, 3, 1], [7]) == await read(engine.states(odd, newest_first=True))


async def test_a_list_by_status_or_prefix_does_not_look_for_gaps(path: Path) -> None:
    """SQLite leaves out what does not match, and says nothing of it."""
    await fill(path)
    execute(path, "DELETE FROM versions WHERE rev = 5")
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        by_status = Query(status=Status.PAUSED)
        assert ([1, 2, 3, 4, 6, 7, 8, 9], []) == await read(engine.states(by_status))
        assert ([2, 8], []) == await read(engine.states(Query(id_prefix="s2-")))


# ---------------------------------------------------------------- damaged pages

PAGE = 4096

Damage = Callable[[random.Random, bytearray], None]


def zero(chance: random.Random, page: bytearray) -> None:
    page[:] = bytes(len(page))


def flip(chance: random.Random, page: bytearray) -> None:
    for _ in range(8):
        page[chance.randrange(len(page))] ^= chance.randrange(1, 256)


def break_header(chance: random.Random, page: bytearray) -> None:
    page[chance.randrange(60)] ^= chance.randrange(1, 256)


async def make_large(path: Path) -> None:
    """A store in which each table and index has several pages, and some are free."""
    async with connect(f"sqlite:///{path}?synchronous=normal") as driver, Engine(driver) as engine:
        for group in range(30):
            states = [State(f"s{group}-{number}") for number in range(10)]
            states = [
                state.with_labels(k=str(number), group=str(group)).attach("p", "z" * 40 * number)
                for number, state in enumerate(states)
            ]
            written = await engine.do(Commit(*(Pause(state, "go") for state in states)))
            await engine.do(Commit(*(Transit(state, "go") for state in written[:3])))
            await engine.do(Commit(*(End(state) for state in written[3:6])))
        await driver.compact(Retention(before=FAR, keep=1), 0, 100)
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")


async def use(path: Path) -> list[Exception]:
    """Do everything with a store; gives what was raised."""
    raised: list[Exception] = []
    try:
        async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
            for call in calls(driver, engine):
                try:
                    await call
                except Exception as error:  # noqa: BLE001  (that is what is looked for)
                    raised.append(error)
    except Exception as error:  # noqa: BLE001  (likewise)
        raised.append(error)
    return raised


def calls(driver: Driver, engine: Engine) -> Iterator[Awaitable[object]]:
    """Each method, one after the other."""
    for query in (
        Query(),
        Query(latest=True),
        Query(labels={"k": "3"}),
        Query(id="s5-1"),
        Query(id_prefix="s7", latest=True),
        Query(status=Status.ENDED, latest=True),
    ):
        yield read_all(engine, query)
    yield engine.count(Query())
    yield driver.due(FAR, 1_000)
    yield driver.line()
    for number in range(10):
        yield load(engine, f"s9-{number}")
    retention = Retention(before=FAR, keep=1, ended=True)
    yield driver.compact(retention, 0, 1_000, dry_run=True)
    yield engine.do(Commit(Pause(State("new", labels={"k": "3"}))))
    yield driver.claim({"go": 5}, 5, "owner", "claim", 1)
    yield driver.compact(retention, 0, 1_000)


async def read_all(engine: Engine, query: Query) -> None:
    versions = engine.states(query)
    while True:
        try:
            await anext(versions)
        except UnreadableVersionError:
            continue
        except StopAsyncIteration:
            return


async def load(engine: Engine, id: str) -> None:
    state = await engine.driver.get(id)
    if state is not None:
        await engine.data(state, "p")


def pages_by_kind(path: Path) -> dict[str, list[int]]:
    """The pages of each table and index, and those that are free."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            found = connection.execute("SELECT name, pageno FROM dbstat").fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite does not tell which page is what")
        (count,) = connection.execute("PRAGMA page_count").fetchone()
    kinds: dict[str, list[int]] = {"free": sorted({*range(1, count + 1)} - {n for _, n in found})}
    for name, number in found:
        kinds.setdefault(name, []).append(number)
    return kinds


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("damage", [zero, flip, break_header])
async def test_whatever_a_damaged_page_does_is_an_error_of_the_store(
    path: Path, damage: Damage
) -> None:
    """For a page of each table, of each index, and of what is free."""
    await make_large(path)
    kinds = pages_by_kind(path)
    assert {"free", "versions", "versions_id", "labels", "payloads"} <= kinds.keys()
    whole = path.read_bytes()
    chance = random.Random(damage.__name__)
    told = 0
    for pages in kinds.values():
        number = chance.choice(pages)
        start = 100 if number == 1 else (number - 1) * PAGE  # after the header of the file
        page = bytearray(whole[start : number * PAGE])
        damage(chance, page)
        path.write_bytes(whole[:start] + page + whole[number * PAGE :])
        for raised in await use(path):
            assert isinstance(raised, FlowstateError), repr(raised)
            assert "unexpectedly" not in str(raised), (number, raised)
            told += isinstance(raised, StoreError)
        for beside in (path.with_name("store.db-wal"), path.with_name("store.db-shm")):
            beside.unlink(missing_ok=True)
    assert told


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_of_a_damaged_log_what_was_whole_before_it_is_there(path: Path) -> None:
    """As after a power cut: SQLite takes the write-ahead log as far as its checksums hold, commit
    by commit."""
    copy = path.with_name("copy.db")
    log, other_log = path.with_name("store.db-wal"), path.with_name("copy.db-wal")
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        for number in range(1, 10):
            await engine.do(Commit(Pause(State(f"s{number}")), Pause(State(f"t{number}"))))
        main, whole = path.read_bytes(), log.read_bytes()
    found = set[int]()
    for part in range(1, 8):
        damaged = bytearray(whole)
        damaged[len(whole) * part // 8] ^= 1
        copy.write_bytes(main)
        other_log.write_bytes(damaged)
        try:
            async with connect(f"sqlite:///{copy}") as driver, Engine(driver) as engine:
                given, told = await read(engine.states())
        except StoreError:  # not even the tables were whole
            continue
        assert (list(range(1, len(given) + 1)), []) == (given, told)
        assert len(given) % 2 == 0
        found.add(len(given))
    assert len(found) > 2


# ---------------------------------------------------------------- what is no damage


async def test_what_another_process_writes_to_the_file_is_no_loss(path: Path) -> None:
    """Its checkpoints, what it compacts, and VACUUM, however they change the file."""
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        for number in range(1, 20):
            async with connect(f"sqlite:///{path}") as other, Engine(other) as beside:
                (state,) = await beside.do(
                    Commit(Pause(State(f"s{number}").attach("p", b"p" * 9999)))
                )
                await beside.do(Commit(End(state)))
                await other.compact(Retention(before=FAR, keep=1, ended=True), 0, 100)
            if number % 3:
                execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
            if number % 4 == 0:
                execute(path, "VACUUM")
            assert (await engine.do(Commit(Pause(State(f"t{number}")))))[0].rev == 3 * number
