"""A store that is migrated while a process with older code has it open: that process writes nothing
more, and is told why."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from attrs import define

from flowstate import (
    Commit,
    Driver,
    Pause,
    Plan,
    Retention,
    RetryPolicy,
    SchemaVersionError,
    State,
    Transit,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.data import checksum
from flowstate.drivers.postgres import schema as postgres_schema
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.session import Connection
from flowstate.drivers.sqlite import schema as sqlite_schema
from flowstate.leases import Place, ready
from flowstate.transitions import plan

from ..helpers import until
from ..postgres import Database, target

pytestmark = pytest.mark.anyio

PATIENCE_S = 30
ALL = Retention(MAX_INSTANT_MS)


@pytest.fixture
def anyio_backend() -> str:
    """What is written is written in a thread."""
    return "asyncio"


class Raw(ABC):
    """A store behind the driver's back, by a connection of our own."""

    version: int
    """The schema's version that this code knows."""

    @abstractmethod
    def migrate(self, to: int) -> None:
        """Change the version as a migration does: in a transaction that excludes writers."""

    @abstractmethod
    def rows(self) -> Sequence[Any]:
        """All rows of all tables."""

    @abstractmethod
    def commit_ids(self) -> set[str]:
        """The commits that are stored."""

    @abstractmethod
    def is_locked(self) -> bool:
        """Whether somebody has a transaction open that writes."""


@define
class RawSQLite(Raw):
    connection: sqlite3.Connection
    version = sqlite_schema.VERSION

    def migrate(self, to: int) -> None:
        self.connection.executescript(f"BEGIN IMMEDIATE; PRAGMA user_version = {to}; COMMIT")

    def rows(self) -> Sequence[Any]:
        return list(self.connection.iterdump())

    def commit_ids(self) -> set[str]:
        return {id for (id,) in self.connection.execute("SELECT commit_id FROM versions")}

    def is_locked(self) -> bool:
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            self.connection.executescript("BEGIN IMMEDIATE; ROLLBACK")
        except sqlite3.OperationalError:
            return True
        return False


@define
class RawPostgres(Raw):
    connection: Connection
    target: Target
    version = postgres_schema.VERSION

    def migrate(self, to: int) -> None:
        with self.connection.transaction():
            self.connection.execute(self.target.sql("SELECT FROM {s}.head FOR UPDATE"), ())
            self.connection.execute(self.target.sql("LOCK TABLE {s}.states"), ())
            self.connection.execute(self.target.sql("UPDATE {s}.meta SET version = %s"), (to,))

    def rows(self) -> Sequence[Any]:
        read: Any = "SELECT t.xmin::text, t.* FROM {s}.TABLE t ORDER BY t.ctid"
        return [
            self.connection.execute(self.target.sql(read.replace("TABLE", table)), ()).fetchall()
            for table in postgres_schema.TABLES
        ]

    def commit_ids(self) -> set[str]:
        read = self.target.sql("SELECT commit_id FROM {s}.versions")
        return {id for (id,) in self.connection.execute(read, ())}

    def is_locked(self) -> bool:
        try:
            self.connection.execute(self.target.sql("SELECT FROM {s}.head FOR UPDATE NOWAIT"), ())
        except psycopg.errors.LockNotAvailable:
            return True
        return False


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/orders.db"
    postgres: Database = request.getfixturevalue("postgres")
    return postgres.new_store()


@contextmanager
def raw_of(url: str) -> Iterator[Raw]:
    """A store that exists."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(
            sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ) as connection:
            yield RawSQLite(connection)
    else:
        with closing(target(url).connect()) as ours:
            yield RawPostgres(ours, target(url))


def pausing(id: str, rev: int = 0) -> Plan:
    commit = Commit(Pause(State(id, rev=rev, labels={"queue": "mail"}).attach("order", b"pears")))
    return plan(commit, commit_id=f"{id}-{rev}", now=0, policy=RetryPolicy(), place_of=ready)


async def fill(driver: Driver) -> None:
    """Versions that compaction would remove, one that is ready, and one that is taken."""
    for rev in range(3):
        await driver.commit(pausing("paused", rev))
    for id, place in (("running", Place(0)), ("taken", Place(None, "one", "", 30_000))):
        running = plan(
            Commit(Transit(State(id), "work")),
            commit_id=id,
            now=0,
            policy=RetryPolicy(),
            place_of=partial(_placed, place),
        )
        await driver.commit(running)


def _placed(place: Place, _state: State, _now: int, _lease: int) -> Place:
    return place


WRITING: dict[str, Callable[[Driver], Awaitable[object]]] = {
    "commit": lambda driver: driver.commit(pausing("new")),
    "claim": lambda driver: driver.claim({"work": 1}, 1, "another", "1", 5),
    "take": lambda driver: driver.take([("running", 4)], "another", "1", 5),
    "renew": lambda driver: driver.renew([("taken", 5, "")], "one", 5),
    "release": lambda driver: driver.release([("taken", 5, "")], "one", 5),
    "end_leases": lambda driver: driver.end_leases("one", 5),
    "compact": lambda driver: driver.compact(ALL, 0, 1_000),
    "forget": lambda driver: driver.forget("paused", [(1, checksum(b"pears"))]),
}


@pytest.mark.parametrize("write", WRITING.values(), ids=WRITING)
async def test_nothing_is_written_to_a_store_that_was_migrated(
    url: str, write: Callable[[Driver], Awaitable[object]]
) -> None:
    """The error says which version was found and which is known; no transaction stays open."""
    async with connect(url) as driver:
        await fill(driver)
        with raw_of(url) as raw:
            raw.migrate(raw.version + 1)
            before = raw.rows()
            versions = rf"version {raw.version + 1} now, and this flowstate knows {raw.version}"
            with pytest.raises(SchemaVersionError, match=rf"{versions}.*Nothing was written"):
                await write(driver)
            assert not raw.is_locked()
            assert before == raw.rows()


@pytest.mark.parametrize("write", WRITING.values(), ids=WRITING)
async def test_the_connection_can_be_used_again(
    url: str, write: Callable[[Driver], Awaitable[object]]
) -> None:
    """Once the store has the version again that this code knows, e.g. from a backup."""
    async with connect(url) as driver:
        await fill(driver)
        with raw_of(url) as raw:
            raw.migrate(raw.version + 1)
            with pytest.raises(SchemaVersionError):
                await write(driver)
            before = raw.rows()
            raw.migrate(raw.version)
            await write(driver)
            assert before != raw.rows()


async def test_a_store_without_versions_is_checked_too(url: str) -> None:
    async with connect(url) as driver:
        with raw_of(url) as raw:
            raw.migrate(raw.version + 1)
            with pytest.raises(SchemaVersionError):
                await driver.commit(pausing("first"))
            assert not raw.commit_ids()


async def test_every_plan_of_a_group_is_refused(url: str) -> None:
    """Whoever shares the transaction has the same error, also if the plan does not hold."""
    refused: list[str] = []

    async def commit(driver: Driver, id: str) -> None:
        with pytest.raises(SchemaVersionError):
            await driver.commit(pausing(id))
        refused.append(id)

    ids = ["paused", *(f"new-{number}" for number in range(100))]
    async with connect(url) as driver:
        await fill(driver)
        with raw_of(url) as raw:
            raw.migrate(raw.version + 1)
            before = raw.rows()
            async with anyio.create_task_group() as tasks:  # one turn of the loop: one group
                for id in ids:
                    tasks.start_soon(commit, driver, id)
            assert before == raw.rows()
    assert sorted(ids) == sorted(refused)


async def test_what_was_acknowledged_before_a_migration_is_all_that_is_stored(url: str) -> None:
    """Tasks commit as fast as they can while the store is migrated."""
    acknowledged: set[str] = set()

    async def commit_until_refused(driver: Driver, task: int) -> None:
        for number in range(100_000):
            try:
                await driver.commit(pausing(f"{task}-{number}"))
            except SchemaVersionError:
                return
            acknowledged.add(f"{task}-{number}-0")
        pytest.fail("it was never refused")

    async with connect(url) as driver:
        with anyio.fail_after(PATIENCE_S), raw_of(url) as raw:
            async with anyio.create_task_group() as tasks:
                for task in range(20):
                    tasks.start_soon(commit_until_refused, driver, task)
                await until(lambda: len(acknowledged) > 200)
                migrate = partial(raw.migrate, raw.version + 1)
                await anyio.to_thread.run_sync(migrate)
                stored = raw.commit_ids()
            assert stored == raw.commit_ids()
    assert stored == acknowledged


async def test_a_migration_waits_for_a_transaction_that_writes(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL: else it might miss what a writer is about to commit that asked for the version
    before."""
    url = postgres.new_store(application_name="migrating")
    async with connect(url):
        pass
    migrations = (*postgres_schema.MIGRATIONS, ("ALTER TABLE {s}.states ADD COLUMN place text",))
    monkeypatch.setattr(postgres_schema, "MIGRATIONS", migrations)
    monkeypatch.setattr(postgres_schema, "VERSION", len(migrations))
    head = target(url).sql("SELECT FROM {s}.head FOR UPDATE")
    version = target(url).sql("SELECT version FROM {s}.meta")
    with closing(target(url).connect()) as writer, closing(target(url).connect()) as observer:

        def is_waiting() -> bool:
            found = observer.execute(
                "SELECT query FROM pg_stat_activity "
                "WHERE application_name = 'migrating' AND wait_event_type = 'Lock'"
            )
            return any("head" in query for (query,) in found)

        newer = connect(url)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                with writer.transaction():
                    writer.execute(head, ())
                    tasks.start_soon(newer.open)
                    await until(is_waiting)
                    assert [(len(migrations) - 1,)] == writer.execute(version, ()).fetchall()
            assert [(len(migrations),)] == writer.execute(version, ()).fetchall()
        await newer.close()
