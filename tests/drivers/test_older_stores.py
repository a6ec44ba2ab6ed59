"""Stores that flowstate 0.1 wrote (``tests/data``): they are migrated when they are opened, all
that is in them is as it was and goes on, and a process of 0.1 writes nothing more."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    DataRef,
    Driver,
    End,
    Engine,
    Flows,
    Query,
    RetryPolicy,
    State,
    Status,
    StoreOpenError,
    connect,
)
from flowstate.codec import decode
from flowstate.drivers.postgres import schema as postgres_schema
from flowstate.drivers.postgres.session import Connection
from flowstate.leases import Claimed, Place
from flowstate.recovery import LEADER_ID, Recoverer
from flowstate.testing.virtual import START_MS, TimedDriver, VirtualClock

from ..postgres import Database, target, with_options
from . import older_process

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
READ: dict[str, Any] = json.loads((DATA / "0.1.json").read_text())
VERSIONS = [decode(json.dumps(version), State) for version in READ["versions"]]
FOREVER = 2**62
PATIENCE_S = 60
UNDER_LOAD = 20
"""Times that the older process has done everything before the store is migrated."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that flowstate 0.1 wrote."""
    script = (DATA / f"0.1-{request.param}.sql").read_text()
    if request.param == "sqlite":
        path = tmp_path / "orders.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
            connection.execute("PRAGMA journal_mode = WAL")  # which no script has
        return f"sqlite:///{path}"
    postgres: Database = request.getfixturevalue("postgres")
    url = postgres.new_store()
    with closing(target(url).connect()) as ours:
        ours.execute(script.replace("{s}", target(url).schema).encode())
    return url


@pytest.fixture
def clock() -> VirtualClock:
    """It begins when all of the store was committed."""
    return VirtualClock()


@pytest.fixture
async def store(url: str, clock: VirtualClock) -> AsyncIterator[Driver]:
    driver = connect(url)
    driver.clock = clock  # type: ignore[attr-defined]  # both have one
    async with TimedDriver(driver, clock) as timed:
        yield timed


def flows() -> Flows:
    """Those of the states in the store; each ends its state."""
    made = Flows()
    for flow in ("work", "late", "lost", "boom", "hang"):

        @made.flow(flow)
        async def end(state: State, engine: Engine) -> Command:
            return Commit(End(state, reason=f"at {state.transition.to}"))

    return made


async def test_every_version_reads_as_it_did(store: Driver) -> None:
    assert list((await store.read(Query(), 0, 1_000)).versions) == VERSIONS
    newest = {state.id: state for state in VERSIONS}
    for state in VERSIONS:
        assert state == await store.get(state.id, state.rev)
        assert newest[state.id] == await store.get(state.id)
    current = sorted(newest.values(), key=lambda state: state.rev)
    assert tuple(current) == (await store.read(Query(latest=True), 0, 1_000)).versions
    mail = Query(labels={"queue": "mail"}, latest=True)
    assert ["paused", "delayed"] == [s.id for s in (await store.read(mail, 0, 100)).versions]
    for rev, checksum, content in READ["payloads"]:
        ref = DataRef(rev, len(content) // 2, "application/json", checksum)
        assert bytes.fromhex(content) == await store.load(ref)


async def test_what_was_due_is_due_without_a_policy(store: Driver) -> None:
    """But for what was released: that is ready."""
    due = await store.due(FOREVER, 1_000)
    expected = {(id, rev, time, None) for id, rev, time in READ["due"] if id != "released"}
    assert expected == {(d.state.id, d.state.rev, d.at, d.policy) for d in due.due}


async def test_what_was_leased_is_taken_and_what_was_released_is_ready(store: Driver) -> None:
    """Nobody knows by whom; the due time is the end of the lease. What is not to be retried is
    taken without end."""
    running = {s.id: s for s in VERSIONS if s.transition.status is Status.RUNNING}
    ends = {id: time for id, rev, time in READ["due"] if rev == running.get(id, VERSIONS[0]).rev}
    del ends["released"]
    taken = {each.id: each for each in await store.holdings()}
    assert {**ends, "unretried": None} == {id: each.place.until for id, each in taken.items()}
    for id, each in taken.items():
        assert (running[id].rev, running[id].transition.to) == (each.rev, each.flow)
        assert each.place == await store.place(id)
    assert set(await store.holdings("0.1")) == set(taken.values())
    assert {"hang": START_MS} == await store.line()
    assert Place(START_MS) == await store.place("released")
    for id in ("paused", "delayed", "ended", "nobody"):
        assert await store.place(id) is None


async def test_what_was_released_is_leased_for_as_long_as_by_default(store: Driver) -> None:
    """The policy of the engine that committed it is not known."""
    (claimed,) = await store.claim({"hang": 1}, 1, "owner", "claim", START_MS)
    assert Claimed(running("released"), None) == claimed
    assert Place(None, "owner", "claim", START_MS + 30_000) == await store.place("released")


async def test_what_is_given_back_has_its_own_alarm_and_lease(store: Driver) -> None:
    """Those of its state."""
    for id, until, due in (("timed", 5_000, 5_000), ("own policy", 90_000, None)):
        state = running(id)
        await store.release([(id, state.rev, "")], "0.1", START_MS)
        ready = {d.state.id: d.at - START_MS for d in (await store.due(FOREVER, 1_000)).due}
        assert due == ready.get(id)
        await store.take([(id, state.rev)], "owner", id, START_MS)
        taken = {d.state.id: d.at - START_MS for d in (await store.due(FOREVER, 1_000)).due}
        assert until == taken[id]


def running(id: str) -> State:
    return next(state for state in VERSIONS if state.id == id)


async def test_everything_goes_on(store: Driver, clock: VirtualClock) -> None:
    """Alarms fire, what was released is taken over, what was begun and lost is tried again."""
    policy = RetryPolicy(backoff=1)
    async with (
        clock.running(),
        Engine(store, flows(), clock=clock, retry=policy, chance=lambda: 0.0) as engine,
        Recoverer(engine, name="new"),
    ):
        ends: dict[str, State] = {}
        for id in ("paused", "stacked", "delayed", "timed", "leased", "own policy", "failing"):
            ends[id] = await engine.wait(id, Status.ENDED)
        ends["released"] = await engine.wait("released", Status.ENDED)
        before = {id: await engine.get(id, rev) for id, rev in await begun(engine, ends)}
        unretried = await engine.get("unretried")
    seconds = {id: (end.committed_at - START_MS) // 1_000 for id, end in ends.items()}
    assert {
        "released": ("at hang", Cause.COMMAND, 0, 0),
        "failing": ("at boom", Cause.RETRY, 1, 1),
        "timed": ("at late", Cause.ALARM, 0, 5),
        "stacked": ("at lost", Cause.LOST, 1, 30),
        "delayed": ("at work", Cause.ALARM, 0, 30),
        "leased": ("at work", Cause.LOST, 1, 30),
        "paused": ("at late", Cause.ALARM, 0, 60),
        "own policy": ("at work", Cause.LOST, 1, 90),
    } == {
        id: (end.transition.reason, was.transition.cause, was.transition.attempt, seconds[id])
        for id, end in ends.items()
        for was in [before[id]]
    }
    assert running("unretried") == unretried


async def begun(engine: Engine, ends: dict[str, State]) -> list[tuple[str, int]]:
    """The version before the last of each state."""
    found: list[tuple[str, int]] = []
    for id in ends:
        *_, before, _ = [state.rev async for state in engine.states(Query(id=id))]
        found.append((id, before))
    return found


async def test_the_store_is_led_at_once(store: Driver, clock: VirtualClock) -> None:
    """One leads all of it now. The states by which groups of 0.1 were led stay as they were, also
    once the lease of such a leader is over, and keep nobody busy."""
    async with clock.running(), Engine(store, flows(), clock=clock) as engine:
        async with Recoverer(engine, name="new") as recoverer:
            won = await anext(engine.watch(Query(id=LEADER_ID)))
            assert won.labels["leader"] == "new"
            assert won.committed_at < START_MS + 1_000
            await engine.wait("own policy", Status.ENDED)
            assert 0 == recoverer.stats().errors
        night = "flowstate.recovery/night"
        assert running(night) == await engine.get(night)


async def test_watchers_and_compaction_go_on(store: Driver, clock: VirtualClock) -> None:
    """A watcher that begins at 0 is given all of it, then what is new; what was superseded goes,
    and payloads with the last version that refers to them."""
    async with Engine(store, flows(), clock=clock) as engine:
        async with engine.watch(after=0) as watcher:
            assert VERSIONS == [await anext(watcher) for _ in VERSIONS]
            await clock.advance(1)
            (ended,) = await engine.do(Commit(End(await engine.get("stacked"))))
            assert ended == await anext(watcher)
        run = [total async for total in engine.compact(0, ended=True)]
        left = [state async for state in engine.states()]
    superseded = {state.rev for state in VERSIONS if is_superseded(state)}
    assert {1, 10, 11, 14, 17} == superseded
    whole = {13, 15}  # "given up" and "ended", which ended before
    expected = [state for state in VERSIONS if state.rev not in {4, *superseded, *whole}]
    assert [*expected, ended] == left
    assert (8, 2, 1) == (run[-1].versions, run[-1].states, run[-1].payloads)


def is_superseded(state: State) -> bool:
    return any(other.id == state.id and other.rev > state.rev for other in VERSIONS)


async def test_a_store_that_may_only_be_read_is_read_as_it_is(url: str) -> None:
    """SQLite reads an older store; PostgreSQL's has to be brought to the present version first."""
    if not url.startswith("sqlite"):
        with pytest.raises(StoreOpenError, match="open it once without mode=ro"):
            await connect(f"{url}&mode=ro").open()
        return
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes()
    async with connect(f"{url}?mode=ro") as driver:
        await test_every_version_reads_as_it_did(driver)
        await test_what_was_due_is_due_without_a_policy(driver)
        await test_what_was_leased_is_taken_and_what_was_released_is_ready(driver)
        assert (await driver.due(START_MS, 1)).next == START_MS + 1_000
    assert before == path.read_bytes()


async def test_who_may_not_change_the_tables_is_told(postgres: Database) -> None:
    """On PostgreSQL; nothing was changed, and once the owner was there this role can work."""
    url, role = postgres.new_store(), f"writer_{os.getpid()}"
    schema = target(url).schema
    grants = (
        f"CREATE ROLE {role} LOGIN PASSWORD 'a word'; GRANT USAGE ON SCHEMA {schema} TO {role}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
    )
    theirs = with_options(url, user=role, password="a word")  # noqa: S106  (of a test)
    with closing(target(url).connect()) as ours:
        ours.execute((DATA / "0.1-postgresql.sql").read_text().replace("{s}", schema).encode())
        ours.execute(grants.encode())
        try:
            before = tables(url)
            with pytest.raises(StoreOpenError, match="Open the store once as their owner"):
                await connect(theirs).open()
            assert before == tables(url)
            async with connect(url):
                pass
            async with connect(theirs) as driver, Engine(driver) as engine:
                await engine.do(Commit(End(await engine.get("shared"))))
        finally:
            ours.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


# ---------------------------------------------------------------- a process of 0.1


async def test_an_older_process_writes_nothing_more(url: str) -> None:
    """It commits, renews and compacts while the store is migrated, and goes on trying: each is
    refused from then on, and what was acknowledged before is all that is there."""
    command = [sys.executable, "-m", older_process.__name__, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            with anyio.fail_after(PATIENCE_S):
                assert process.stdout is not None
                did = await anyio.to_thread.run_sync(read_lines, process.stdout, 3 * UNDER_LOAD)
                assert not [line for line in did if "error" in line]
                async with connect(url):
                    before = tables(url)
                did += await anyio.to_thread.run_sync(read_lines, process.stdout)
            assert 0 == process.wait(PATIENCE_S)
        finally:
            process.kill()
    assert before == tables(url)
    for what in ("commit", "renew", "compact"):
        refused = ["error" in line for line in did if line["did"] == what]
        assert refused == sorted(refused)
        assert older_process.REFUSALS <= refused.count(True)
        assert UNDER_LOAD <= refused.count(False)
    committed = [line["rev"] for line in did if line["did"] == "commit" and "rev" in line]
    removed = [line["rev"] for line in did if line["did"] == "compact" and "rev" in line]
    assert committed[-1] == max(revs(url))
    assert not set(removed) & revs(url)
    assert set(committed) - set(removed) <= revs(url)
    async with connect(url) as driver:
        newest = await driver.get(older_process.ID)
        assert newest is not None
        assert committed[-1] == newest.rev


def read_lines(file: IO[str], most: int = 10_000) -> list[dict[str, Any]]:
    """So many lines, or all that are to come."""
    return [json.loads(line) for line in islice(file, most)]


def tables(url: str) -> dict[str, list[Any]]:
    """All rows of all tables."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return {"all": list(connection.iterdump())}
    with closing(target(url).connect()) as ours:
        read: Any = "SELECT t.xmin::text, t.* FROM {s}.TABLE t ORDER BY t.ctid"
        return {
            table: ours.execute(target(url).sql(read.replace("TABLE", table)), ()).fetchall()
            for table in postgres_schema.TABLES
            if has_table(ours, url, table)
        }


def has_table(ours: Connection, url: str, table: str) -> bool:
    """Whether a store is new enough to have that table."""
    found = ours.execute("SELECT to_regclass(%s)", (f'"{target(url).schema}".{table}',))
    return found.fetchone() != (None,)


def revs(url: str) -> set[int]:
    """The revisions that are stored."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return {rev for (rev,) in connection.execute("SELECT rev FROM versions")}
    with closing(target(url).connect()) as ours:
        return {rev for (rev,) in ours.execute(target(url).sql("SELECT rev FROM {s}.versions"), ())}
