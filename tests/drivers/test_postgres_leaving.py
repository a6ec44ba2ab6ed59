"""PostgreSQL: what a version left in a store that was migrated, and content that was forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, LiteralString

import pytest

from flowstate import (
    Commit,
    DataRef,
    Driver,
    End,
    Engine,
    Pause,
    Query,
    Retention,
    SchemaVersionError,
    State,
    Status,
    Transit,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.postgres import schema
from flowstate.drivers.postgres.session import Connection
from flowstate.query import Left
from flowstate.testing.conformance.base import move, put
from flowstate.testing.model import Model

from ..postgres import Database, target
from .test_unreadable import DAMAGES, Damage, PostgresRows

pytestmark = pytest.mark.anyio

ALL = Retention(MAX_INSTANT_MS)
MAIL = {"queue": "mail"}

UNMIGRATE: tuple[LiteralString, ...] = (
    "DROP INDEX {s}.states_resting",
    "ALTER TABLE {s}.states DROP COLUMN resting",
    "DROP TABLE {s}.left_labels",
    """ALTER TABLE {s}.versions DROP COLUMN flow, DROP COLUMN labels, DROP COLUMN was_labels,
        DROP COLUMN was_status, DROP COLUMN was_flow""",
    "ALTER TABLE {s}.payloads ALTER COLUMN content SET NOT NULL",
    "UPDATE {s}.meta SET version = 2",
)
"""Makes of a store what it would be at version 2 of the schema."""

TOLD: tuple[LiteralString, ...] = (
    """SELECT rev, flow, labels::text, was_labels::text, was_status, was_flow
        FROM {s}.versions ORDER BY rev""",
    "SELECT key, rev FROM {s}.left_labels ORDER BY key, rev",
    "SELECT id, resting FROM {s}.states ORDER BY id",
)
"""What version 3 adds."""


@pytest.fixture
def anyio_backend() -> str:
    """Tables are the same for every loop."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store()


@pytest.fixture
async def driver(url: str) -> AsyncIterator[Driver]:
    async with connect(url) as driver:
        yield driver


@pytest.fixture
def ours(url: str) -> Iterator[Connection]:
    """A connection behind the driver's back."""
    with closing(target(url).connect()) as connection:
        yield connection


def run(ours: Connection, url: str, *texts: LiteralString) -> list[list[Any]]:
    """What each of these statements gives."""
    cursors = [ours.execute(target(url).sql(text), ()) for text in texts]
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


async def fill(url: str) -> list[State]:
    """A history in which labels, statuses and flows come and go; all of it."""
    async with connect(url) as driver, Engine(driver) as engine:
        (a,) = await engine.do(Commit(Pause(State("a", labels={**MAIL, "urgent": "yes"}), "work")))
        (b,) = await engine.do(Commit(Transit(State("b"), "work")))
        (a,) = await engine.do(Commit(Pause(a.without_labels("urgent"))))
        (b,) = await engine.do(Commit(Pause(b.with_labels(MAIL), "other")))
        (a,) = await engine.do(Commit(Pause(a.with_labels(queue="post"), "other")))
        await engine.do(Commit(End(b.without_labels("queue"))))
        await engine.do(Commit(Pause(a), Transit(State("c", labels=MAIL), "work")))
        return list((await driver.read(Query(), 0, 100)).versions)


def model_of(versions: list[State]) -> Model:
    """A plain store with these versions."""
    model = Model(log=versions)
    newest: dict[str, State] = {}
    for version in versions:
        if version.id in newest:
            model.previous[version.rev] = newest[version.id]
        newest[version.id] = version
    return model


QUERIES = (
    Query(labels=MAIL, leaving=True),
    Query(labels=[{"urgent": "yes"}, {"queue": "post"}], leaving=True),
    Query(labels=MAIL, status=Status.PAUSED, leaving=True),
    Query(status=Status.RUNNING, leaving=True),
    Query(flow="work", leaving=True),
    Query(id="a", flow="work", leaving=True),
    Query(flow="other"),
    Query(labels=MAIL),
)


# ---------------------------------------------------------------- migrated stores


async def test_a_migrated_store_tells_what_it_would_if_it_had_been_so_from_the_beginning(
    url: str, ours: Connection
) -> None:
    versions = await fill(url)
    before = run(ours, url, *TOLD)
    assert all(before)
    run(ours, url, *UNMIGRATE)
    async with connect(url) as driver:
        assert before == run(ours, url, *TOLD)
        model = model_of(versions)
        for query in QUERIES:
            page = await driver.read(query, 0, 100)
            expected = model.read(query, 0)
            assert expected
            assert expected == list(page.versions)
            if query.leaving:
                lefts = {state.rev: model.left(state) for state in expected}
                assert page.left == {rev: left for rev, left in lefts.items() if left is not None}
        assert await driver.count(Query(), "flow") == model.count(Query(), "flow")
        newest = model.find(Query(status=Status.ENDED))
        assert newest
        assert newest == await driver.find(Query(status=Status.ENDED))


async def test_what_a_version_left_that_was_removed_is_not_known(
    url: str, ours: Connection
) -> None:
    """Of what is still there it is."""
    versions = await fill(url)
    async with connect(url) as driver:
        await driver.compact(Retention(MAX_INSTANT_MS, keep=2), 0, 100)
    run(ours, url, *UNMIGRATE)
    async with connect(url) as driver:
        kept = list((await driver.read(Query(), 0, 100)).versions)
        assert len(kept) < len(versions)
        model = model_of(kept)
        for query in QUERIES:
            page = await driver.read(query, 0, 100)
            assert model.read(query, 0) == list(page.versions)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_rows_that_cannot_be_read_stop_no_migration(
    url: str, ours: Connection, damage: Damage
) -> None:
    """They are told as before; nothing is known of what they left, nor of what left them but the
    columns that there were."""
    versions = await fill(url)
    run(ours, url, *UNMIGRATE)
    PostgresRows(url).damage(versions[2].rev, versions[-1].rev, by=damage)
    async with connect(url) as driver:
        page = await driver.read(Query(), 0, 100)
        bad = [versions[2], versions[-1]]
        assert [state for state in versions if state not in bad] == list(page.versions)
        assert [state.rev for state in bad] == [each.rev for each in page.unreadable]
        mail = await driver.read(Query(labels=MAIL, leaving=True), 0, 100)
        assert [state.rev for state in bad] == [each.rev for each in mail.unreadable]
        assert versions[5] in mail.versions, "b lost its label, and none of it is damaged"
        counts = await driver.count(Query(), "status")
        assert {"paused": 1, "ended": 1, "running": 1} == counts
        a = versions[-2]
        moved = await move(driver, a)
        assert moved == await driver.get("a")


async def test_what_may_have_any_flow_matches_as_far_as_can_be_told(
    url: str, ours: Connection
) -> None:
    """Nothing is known of the flow of a row that could not be read when the store was migrated."""
    versions = await fill(url)
    run(ours, url, *UNMIGRATE)
    PostgresRows(url).damage(versions[2].rev)
    async with connect(url) as driver:
        page = await driver.read(Query(flow="another"), 0, 100)
        assert ((), [versions[2].rev]) == (page.versions, [each.rev for each in page.unreadable])


async def test_whoever_may_use_the_other_tables_may_use_the_new_one(
    url: str, ours: Connection
) -> None:
    await fill(url)
    run(ours, url, *UNMIGRATE, "GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO PUBLIC")
    async with connect(url):
        pass
    ((granted,),) = run(
        ours,
        url,
        """SELECT privilege_type FROM information_schema.role_table_grants g
        WHERE g.table_name = 'left_labels' AND g.grantee = 'PUBLIC'
        AND g.table_schema = (SELECT relnamespace::regnamespace::text FROM pg_class
            WHERE oid = (SELECT tableoid FROM {s}.meta))""",
    )
    assert ("SELECT",) == granted


# ---------------------------------------------------------------- what cannot be read


async def test_a_version_that_cannot_be_read_is_told_and_counted_by_its_columns(
    url: str, driver: Driver
) -> None:
    """Also one whose state leaves what matches, and what comes after it knows what it left."""
    (first,) = await put(driver, Pause(State("a", labels=MAIL), "work"))
    (lost,) = await put(driver, Pause(first.without_labels("queue"), "other"))
    PostgresRows(url).damage(lost.rev)
    page = await driver.read(Query(labels=MAIL, leaving=True), 0, 10)
    assert ((first,), [lost.rev]) == (page.versions, [each.rev for each in page.unreadable])
    assert () == (await driver.read(Query(labels=MAIL), 0, 10)).unreadable
    assert {"other": 1} == await driver.count(Query(status=Status.PAUSED), "flow")
    assert {} == await driver.count(Query(labels=MAIL), "flow")
    (found,) = await put(driver, Pause(lost.with_labels(MAIL), "work"))
    page = await driver.read(Query(flow="other", leaving=True), 0, 10)
    assert (found,) == page.versions
    assert Left({}, None, "other") == page.left[found.rev]


# ---------------------------------------------------------------- compaction


async def test_compaction_removes_what_removed_versions_left_and_nothing_else(
    url: str, driver: Driver, ours: Connection
) -> None:
    """What a kept version left is known though the one before is gone."""
    (state,) = await put(driver, Pause(State("a", labels={"n": "0", **MAIL}), "work"))
    for n in range(1, 5):
        (state,) = await put(driver, Pause(state.with_labels(n=f"{n}"), "work"))
    lost: LiteralString = "SELECT rev FROM {s}.left_labels ORDER BY rev"
    assert [[(2,), (3,), (4,), (5,)]] == run(ours, url, lost)
    await driver.compact(ALL, 0, 100)
    assert [[(5,)]] == run(ours, url, lost)
    page = await driver.read(Query(labels={"n": "3"}, leaving=True), 0, 100)
    assert (state,) == page.versions
    assert {state.rev: Left({"n": "3", **MAIL})} == page.left
    await put(driver, End(state.without_labels("n")), Pause(State("last")))
    await driver.compact(Retention(MAX_INSTANT_MS, ended=True), 0, 100)
    assert [[]] == run(ours, url, lost)


# ---------------------------------------------------------------- forgetting


async def test_nothing_is_forgotten_in_a_store_that_was_migrated(
    url: str, driver: Driver, ours: Connection
) -> None:
    """By a process that knows nothing of what is there now."""
    (state,) = await put(driver, Pause(State("a").attach("order", b"pears"), "work"))
    ref = state.data["order"]
    assert isinstance(ref, DataRef)
    run(ours, url, "UPDATE {s}.meta SET version = version + 1")
    with pytest.raises(SchemaVersionError, match=f"knows {schema.VERSION}"):
        await driver.forget("a", [(ref.rev, ref.checksum)])
    assert b"pears" == await driver.load(ref)


async def test_content_that_was_forgotten_is_no_more_in_the_table(
    url: str, driver: Driver, ours: Connection
) -> None:
    """Its row stays."""
    (state,) = await put(driver, Pause(State("a").attach("order", b"pears" * 3), "work"))
    ref = state.data["order"]
    assert isinstance(ref, DataRef)
    assert 0 == await driver.forget("a", [(ref.rev, ref.checksum)])
    assert [[(ref.rev, ref.checksum, None)]] == run(ours, url, "SELECT * FROM {s}.payloads")
