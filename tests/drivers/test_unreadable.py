"""A version that cannot be read is told and passed by, on every driver that has rows to damage; it
stops nobody else.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, field, frozen

from flowstate import (
    Command,
    Commit,
    CompactedError,
    DataNotFoundError,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    Pause,
    Query,
    Retention,
    RetryPolicy,
    State,
    Status,
    Transit,
    Unreadable,
    UnreadableVersionError,
    Versions,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.leases import Claimed, Place, Renewal
from flowstate.recovery import LEADER_ID, Recoverer
from flowstate.testing.conformance.base import create, move, plan, put, read_all, revs
from flowstate.testing.wrapper import WrapperDriver

from ..helpers import until
from ..postgres import Database, target

pytestmark = pytest.mark.anyio

MAIL = {"queue": "mail"}

# ---------------------------------------------------------------- damage

Damage = Callable[[dict[str, Any]], object]


def of_unknown_status(state: dict[str, Any]) -> object:
    return {**state, "transition": {**state["transition"], "status": "frozen"}}


DAMAGES: dict[str, Damage] = {
    "a wrong shape": lambda _: {"id": 7},
    "a wrong type": lambda _: ["a"],
    "null": lambda _: None,
    "a text": lambda _: "",
    "nothing in it": lambda _: {},
    "labels of a wrong type": lambda state: {**state, "labels": [1]},
    "an annotation of a wrong type": lambda state: {**state, "annotations": {"x": 1}},
    "a status of newer code": of_unknown_status,
    "another state": lambda state: {**state, "id": "other"},
    "another revision": lambda state: {**state, "rev": 1_000_000},
    "no revision": lambda state: {"id": state["id"]},
}
"""What the row has instead of the state."""
NO_JSON: dict[str, object] = {
    "cut short": '{"id": "a", "re',
    "blank": "",
    "not UTF-8": b'{"id": "\xff"}',
    "a number": 5,
    "too deep": '{"x": ' + "[" * 100_000,
}
"""What only a column of texts takes."""


class Rows(ABC):
    """A store, and its rows behind the driver's back."""

    shared: bool = True

    @abstractmethod
    def driver(self) -> Driver:
        """A driver on it, not open."""

    @abstractmethod
    def damage(self, *revs: int, by: Damage = DAMAGES["a wrong shape"]) -> None: ...

    @abstractmethod
    def rename_status(self, rev: int, name: str) -> None: ...


@frozen
class SQLiteRows(Rows):
    path: Path

    def driver(self) -> Driver:
        return connect(f"sqlite:///{self.path}")

    def damage(self, *revs: int, by: Damage = DAMAGES["a wrong shape"]) -> None:
        with self.connected() as connection:
            for rev in revs:
                (text,) = connection.execute("SELECT state FROM versions WHERE rev = ?", [rev])
                self._put(connection, rev, json.dumps(by(json.loads(text[0]))))

    def put(self, rev: int, content: object) -> None:
        with self.connected() as connection:
            self._put(connection, rev, content)

    def rename_status(self, rev: int, name: str) -> None:
        with self.connected() as connection:
            connection.execute("UPDATE versions SET status = ? WHERE rev = ?", (name, rev))

    def _put(self, connection: sqlite3.Connection, rev: int, content: object) -> None:
        connection.execute(
            "UPDATE versions SET state = CASE WHEN typeof(?1) = 'blob' THEN CAST(?1 AS TEXT) "
            "ELSE ?1 END WHERE rev = ?2",
            (content, rev),
        )

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            yield connection


@frozen
class PostgresRows(Rows):
    url: str

    def driver(self) -> Driver:
        return connect(self.url)

    def damage(self, *revs: int, by: Damage = DAMAGES["a wrong shape"]) -> None:
        store = target(self.url)
        with store.connect() as connection:
            for rev in revs:
                read = store.sql("SELECT state FROM {s}.versions WHERE rev = %s")
                ((state,),) = connection.execute(read, [rev]).fetchall()
                write = store.sql("UPDATE {s}.versions SET state = %s::jsonb WHERE rev = %s")
                connection.execute(write, [json.dumps(by(state)), rev])

    def rename_status(self, rev: int, name: str) -> None:
        store = target(self.url)
        with store.connect() as connection:
            write = store.sql("UPDATE {s}.versions SET status = %s WHERE rev = %s")
            connection.execute(write, [name, rev])


@define
class LMDBRows(Rows):
    """LMDB opens a store only once in a process: this looks at it as the driver has it open."""

    module: Any
    path: Path
    opened: Any = None

    shared = False

    def driver(self) -> Driver:
        self.opened = self.module.LMDBDriver(self.path)
        made: Driver = self.opened
        return made

    def damage(self, *revs: int, by: Damage = DAMAGES["a wrong shape"]) -> None:
        for rev in revs:
            row = self._row(rev)
            row.state = json.dumps(by(json.loads(row.state))).encode()
            self._put(row)

    def rename_status(self, rev: int, name: str) -> None:
        row = self._row(rev)
        row.status = name
        self._put(row)

    @property
    def _tables(self) -> Any:
        return sys.modules["lmdb_tables"]

    def _row(self, rev: int) -> Any:
        with self.opened.env.begin() as txn:
            return self._tables.row(txn, rev)

    def _put(self, row: Any) -> None:
        with self.opened.env.begin(write=True) as txn:
            key = self._tables.key(self._tables.VERSION, row.rev)
            txn.put(key, self._tables.encode(row))


@pytest.fixture
def sqlite_rows(tmp_path: Path) -> SQLiteRows:
    return SQLiteRows(tmp_path / "store.db")


@pytest.fixture(params=["sqlite", "postgres", "lmdb"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Rows:
    """Every driver that has rows, that of the page on writing one too."""
    if request.param == "sqlite":
        return SQLiteRows(tmp_path / "store.db")
    if request.param == "lmdb":
        return LMDBRows(request.getfixturevalue("lmdb_driver"), tmp_path / "store")
    database: Database = request.getfixturevalue("postgres")
    return PostgresRows(database.new_store())


@pytest.fixture
async def driver(rows: Rows) -> AsyncIterator[Driver]:
    async with rows.driver() as driver:
        yield driver


async def fill(driver: Driver) -> Sequence[State]:
    """Three states in two queues, due one after the other."""
    commands = [
        Delay(State(id, labels={"queue": queue}), "work", at=at)
        for id, queue, at in [("a", "mail", 10), ("b", "mail", 20), ("c", "post", 30)]
    ]
    return await put(driver, *commands)


async def told(versions: Versions, number: int) -> list[State | tuple[str, int]]:
    """The next so many versions; of one that cannot be read, the id and revision of the error."""
    found: list[State | tuple[str, int]] = []
    with anyio.fail_after(30):
        for _ in range(number):
            try:
                found.append(await anext(versions))
            except UnreadableVersionError as error:
                found.append((error.id, error.rev))
    return found


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_it_is_told_by_its_id_and_revision_and_hides_no_other(
    rows: Rows, driver: Driver, damage: Damage
) -> None:
    """By every way of reading, whatever stands in its row."""
    a, b, c = await fill(driver)
    rows.damage(b.rev, by=damage)
    await check_that_only_b_is_told(driver, a, b, c)


@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
async def test_a_text_that_is_no_json_is_told_the_same_way(
    sqlite_rows: SQLiteRows, content: object
) -> None:
    """In a file, a row may hold anything."""
    async with sqlite_rows.driver() as driver:
        a, b, c = await fill(driver)
        sqlite_rows.put(b.rev, content)
        await check_that_only_b_is_told(driver, a, b, c)


async def check_that_only_b_is_told(driver: Driver, a: State, b: State, c: State) -> None:
    for rev in (None, b.rev):
        with pytest.raises(UnreadableVersionError, match=rf"revision {b.rev} \(state 'b'\)") as got:
            await driver.get("b", rev)
        assert (b.id, b.rev) == (got.value.id, got.value.rev)
    assert a == await driver.get("a")
    for query, versions in [
        (Query(), (a, c)),
        (Query(latest=True), (a, c)),
        (Query(labels=MAIL), (a,)),
        (Query(labels=MAIL, latest=True), (a,)),
        (Query(labels=[MAIL, {"queue": "post"}], status=Status.DELAYED), (a, c)),
        (Query(id="b"), ()),
        (Query(id="b", labels=MAIL, latest=True), ()),
        (Query(id_prefix="b"), ()),
    ]:
        page = await driver.read(query, 0, 10)
        assert versions == page.versions
        assert [(b.id, b.rev)] == [(each.id, each.rev) for each in page.unreadable], query
        assert c.rev == page.upto
    for query in (Query(id="a"), Query(id_prefix="c"), Query(labels={"queue": "post"})):
        assert () == (await driver.read(query, 0, 10)).unreadable


async def test_pages_go_on_after_it(rows: Rows, driver: Driver) -> None:
    """However small they are, each looks further than the one before, and none is full of it."""
    states = await create(driver, *"abcdef")
    rows.damage(*revs(states[::2]))
    assert list(states[1::2]) == await read_all(driver, limit=1)
    page = await driver.read(Query(), 0, 2)
    assert (2, states[1].rev) == (len(page.entries), page.upto)


async def test_the_newest_that_matches_is_told_if_it_cannot_be_read(
    rows: Rows, driver: Driver
) -> None:
    """And one that is older than what was found is not in the way."""
    a, b, c = await fill(driver)
    rows.damage(b.rev)
    for query in (Query(labels=MAIL), Query(id="b"), Query(id_prefix="b")):
        with pytest.raises(UnreadableVersionError) as got:
            await driver.find(query)
        assert b.rev == got.value.rev
    for query in (Query(), Query(labels=[MAIL, {"queue": "post"}])):
        assert c == await driver.find(query)
    assert a == await driver.find(Query(id="a"))


# ---------------------------------------------------------------- what is due


async def test_what_is_due_and_cannot_be_read_is_left_out_and_told(
    rows: Rows, driver: Driver
) -> None:
    """The page holds as many others as it may, and says when the next one is due."""
    a, b, c = await fill(driver)
    rows.damage(a.rev)
    for until_ms, limit, due, following in [
        (10, 10, [], 20),
        (10, 0, [], 20),
        (20, 0, [], 20),
        (20, 1, [b], 30),
        (30, 1, [b], 30),
        (30, 2, [b, c], None),
    ]:
        page = await driver.due(until_ms, limit)
        assert (due, following) == ([each.state for each in page.due], page.next)
        assert [("a", a.rev)] == [(each.id, each.rev) for each in page.unreadable]
    assert () == (await driver.due(9, 10)).unreadable, "it is not due yet"


async def test_many_that_cannot_be_read_do_not_starve_one(rows: Rows, driver: Driver) -> None:
    """1,500 are due before it."""
    damaged = await put(driver, *(Delay(State(f"{n}"), "work", at=n) for n in range(1, 1_501)))
    (good,) = await put(driver, Delay(State("good"), "work", at=2_000))
    rows.damage(*revs(damaged))
    page = await driver.due(2_000, 1)
    assert [good] == [due.state for due in page.due]
    assert revs(damaged) == [each.rev for each in page.unreadable]
    assert 2_000 == (await driver.due(2_000, 0)).next
    assert 2_000 == (await driver.due(1_999, 0)).next


async def test_what_has_a_policy_beside_it_that_cannot_be_read_is_passed_by_too(
    sqlite_rows: SQLiteRows,
) -> None:
    """Nobody can tell what is to become of it; the state itself can be read."""
    async with sqlite_rows.driver() as driver:
        begin = (Transit(State(id), "work") for id in "ab")
        a, b = await driver.commit(plan(*begin, policy=RetryPolicy()))
        with sqlite_rows.connected() as connection:
            connection.execute("UPDATE versions SET policy = '?' WHERE rev = ?", [a.rev])
        damaged, good = await driver.claim({"work": 2}, 2, "owner", "claim", 0)
        assert (("a", a.rev), Claimed(b, RetryPolicy())) == (which(damaged), good)
        page = await driver.due(MAX_INSTANT_MS, 10)
        assert [b] == [due.state for due in page.due]
        assert [("a", a.rev)] == [(each.id, each.rev) for each in page.unreadable]
        assert a == await driver.get("a")


# ---------------------------------------------------------------- writing


async def test_it_is_taken_so_that_it_is_out_of_the_line(rows: Rows, driver: Driver) -> None:
    """Whoever claims it is told, also when it asks again, and can renew and release it."""
    begin = [Transit(State(id), "work") for id in "abc"]
    a, b, c = await driver.commit(plan(*begin, policy=RetryPolicy()))
    rows.damage(a.rev, c.rev)
    for _ in range(2):
        claimed = await driver.claim({"work": 2}, 5, "owner", "first", 0)
        assert [("a", a.rev), b] == [which(each) for each in claimed]
    assert [("c", c.rev)] == [which(each) for each in await take(driver, "second", c)]
    assert {} == await driver.line()
    assert {"a", "b", "c"} == {each.id for each in await driver.holdings("owner")}
    held = [("a", a.rev, "first"), ("c", c.rev, "first")]
    assert Renewal(frozenset(), frozenset("c")) == await driver.renew(held, "owner", 5)
    assert Place(None, "owner", "first", 30_005) == await driver.place("a")
    await driver.release(held, "owner", 7)
    assert Place(7) == await driver.place("a")
    assert [("a", a.rev)] == [which(each) for each in await take(driver, "third", a, b, c)]
    moved = await move(driver, a)
    assert moved == await driver.get("a")
    assert {"b", "c"} == {each.id for each in await driver.holdings()}


async def take(driver: Driver, claim: str, *states: State) -> Sequence[Claimed | Unreadable]:
    return await driver.take([(state.id, state.rev) for state in states], "owner", claim, 8)


def which(claimed: Claimed | Unreadable) -> State | tuple[str, int]:
    """Its state; the id and revision of what cannot be read."""
    return claimed.state if isinstance(claimed, Claimed) else (claimed.id, claimed.rev)


# ---------------------------------------------------------------- compaction


@pytest.mark.parametrize(
    "damage",
    [*DAMAGES.values(), lambda state: {**state, "labels": {"queue": 7}}],
    ids=[*DAMAGES, "a label of a wrong type"],
)
async def test_compaction_goes_by_its_columns(rows: Rows, driver: Driver, damage: Damage) -> None:
    """It removes what was superseded, and no payload that what stays refers to."""
    (old,) = await put(driver, Pause(State("a", labels=MAIL).attach("kept", b"pears"), "work"))
    old = await move(driver, old.attach("freed", b"plums"))
    (new,) = await put(driver, Pause(old.detach("freed"), "work"))
    (last,) = await create(driver, "last")
    rows.damage(old.rev, new.rev, by=damage)
    rows.rename_status(new.rev, "frozen")
    retention = Retention(MAX_INSTANT_MS, ended=True, failed=True)
    would = await driver.compact(retention, 0, 10, dry_run=True)
    did = await driver.compact(retention, 0, 10)
    assert (2, 0, 1) == (did.versions, did.states, did.payloads)
    assert did == would
    kept = new.data["kept"]
    assert b"pears" == await driver.load(kept)  # type: ignore[arg-type]  # it was stored
    with pytest.raises(DataNotFoundError):
        await driver.load(old.data["freed"])  # type: ignore[arg-type]  # it was stored
    page = await driver.read(Query(), 0, 10)
    assert ((last,), new.rev) == (page.versions, page.unreadable[0].rev)


# ---------------------------------------------------------------- watching


async def test_a_list_goes_on_after_it(rows: Rows, driver: Driver) -> None:
    """The error takes its place."""
    a, b, c = await fill(driver)
    rows.damage(b.rev)
    async with Engine(driver) as engine:
        versions = engine.states()
        assert [a, ("b", b.rev), c] == await told(versions, 3)
        assert [] == [state async for state in versions]


async def test_watchers_are_told_of_it_once_and_go_on(rows: Rows, driver: Driver) -> None:
    """Each whom it may concern, whether it reads from the tail or further behind; and who goes on
    after its revision is not told again."""
    if not rows.shared:
        pytest.skip("the store does not declare that drivers may share it")
    async with rows.driver() as other, Engine(driver) as engine:
        (first,) = await create(other, "first")
        everything, labelled = engine.watch(), engine.watch(Query(labels=MAIL, latest=True))
        others = engine.watch(Query(id="c"))
        assert [first] == await told(everything, 1)
        a, b, c = await fill(other)
        rows.damage(b.rev)
        assert [a, ("b", b.rev), c] == await told(everything, 3)
        assert [a, ("b", b.rev)] == await told(labelled, 2)
        assert [c] == await told(others, 1)
        assert b.rev < everything.rev
        late = engine.watch(after=a.rev)
        assert [("b", b.rev)] == await told(late, 1)
        assert b.rev == late.rev
        assert [c] == await told(engine.watch(after=late.rev), 1)
        newer = await move(other, c)
        for watcher in (everything, late, others):
            assert newer == (await told(watcher, 1 + (watcher is late)))[-1]


@define(eq=False)
class HeldDriver(WrapperDriver):
    """Whoever waits for a commit learns of it only when ``go`` is set."""

    waiting: int = 0
    go: anyio.Event = field(factory=anyio.Event)

    async def wait(self, after: int) -> int:
        self.waiting += 1
        await self.go.wait()
        return await super().wait(after)


async def test_whoever_is_served_by_the_tail_is_told_of_it(rows: Rows, driver: Driver) -> None:
    """One read is for all who wait, each of whom is told if it may match, as far as can be told."""
    (first,) = await create(driver, "first")
    found: dict[str, list[State | tuple[str, int]]] = {}
    held = HeldDriver(driver)

    async def watch(name: str, query: Query, number: int) -> None:
        found[name] = await told(engine.watch(query, after=first.rev), number)

    async with Engine(held) as engine, anyio.create_task_group() as tasks:
        tasks.start_soon(watch, "all", Query(), 3)
        tasks.start_soon(watch, "mail", Query(labels=MAIL), 2)
        tasks.start_soon(watch, "post", Query(labels={"queue": "post"}), 2)
        tasks.start_soon(watch, "b", Query(id="b"), 1)
        tasks.start_soon(watch, "c", Query(id="c"), 1)
        await until(lambda: held.waiting == 5)
        a, b, c = await fill(driver)
        rows.damage(b.rev)
        held.go.set()
    damaged = ("b", b.rev)
    assert found == {
        "all": [a, damaged, c],
        "mail": [a, damaged],
        "post": [damaged, c],
        "b": [damaged],
        "c": [c],
    }


async def test_it_does_not_hide_that_history_is_missing(rows: Rows, driver: Driver) -> None:
    """What was compacted before it is told first."""
    (old,) = await create(driver, "a")
    a = await move(driver, old)
    (last,) = await create(driver, "last")
    rows.damage(a.rev)
    await driver.compact(Retention(MAX_INSTANT_MS), 0, 10)
    async with Engine(driver) as engine:
        with pytest.raises(CompactedError) as got:
            await anext(engine.watch(after=0))
        watcher = engine.watch(after=got.value.oldest - 1)
        assert [("a", a.rev), last] == await told(watcher, 2)


# ---------------------------------------------------------------- recovery


async def test_it_stops_nobody_else_in_recovery(
    rows: Rows, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and what else is due for the same flow runs."""
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    async with Engine(driver, flows) as engine:
        first, *others = await engine.do(
            Commit(*(Delay(State(f"{n}"), "work", after=0) for n in range(20)))
        )
        rows.damage(first.rev)
        async with Recoverer(engine) as recoverer:
            for state in others:
                await engine.wait(state.id, Status.ENDED)
            await engine.do(Commit(Delay(State("late"), "work", after=0.05)))
            await engine.wait("late", Status.ENDED)
            assert 1 == recoverer.stats().errors
    lines = [line for line in caplog.messages if "cannot be read" in line]
    assert 1 == len(lines)
    assert f"revision {first.rev} (state '0')" in lines[0]


@pytest.mark.parametrize("damage", [DAMAGES["a wrong shape"], of_unknown_status])
async def test_a_leader_is_elected_if_the_state_of_the_last_one_cannot_be_read(
    rows: Rows, driver: Driver, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the lease is over that was left of it; its state can be read again then."""
    async with Engine(driver) as engine:
        group = State(LEADER_ID, retry=RetryPolicy(lease=1))
        (left,) = await put(driver, Transit(group, group.id))
        ends = engine.clock.now() + 200
        await driver.take([(left.id, left.rev)], "other", "term", ends - 1_000)
        rows.damage(left.rev, by=damage)
        watcher = engine.watch(Query(id=group.id), after=left.rev)
        async with Recoverer(engine, name="me", lease=1):
            won = await anext(watcher)
            assert "me" == won.labels["leader"]
            assert ends <= engine.clock.now()
        assert "cannot be read" in caplog.text
        assert (await engine.get(group.id)).rev > won.rev
