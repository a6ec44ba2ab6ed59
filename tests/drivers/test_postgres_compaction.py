"""What compaction is on PostgreSQL: between deciding and removing, failures, and the tables."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any, LiteralString

import anyio
import anyio.to_thread
import pytest
from attrs import define

from flowstate import (
    Commit,
    Compaction,
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
    StoreReadOnlyError,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.codec import encode_state
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.schema import TABLES, key
from flowstate.drivers.postgres.session import Connection
from flowstate.drivers.url import StoreUrl
from flowstate.plan import references
from flowstate.testing.conformance.read import write_varied

from ..helpers import until
from ..postgres import Database, with_options
from ..proxy import Fault, Proxy
from .wrapped import before, driver_through, setting

pytestmark = pytest.mark.anyio

PATIENCE_S = 30
ALL = Retention(MAX_INSTANT_MS, ended=True)


@pytest.fixture
def anyio_backend() -> str:
    """The conformance suite runs on both."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database, request: pytest.FixtureRequest) -> str:
    """A store whose connections can be told from those of others."""
    return postgres.new_store(application_name=request.node.name[-60:])


@pytest.fixture
def raw(url: str) -> Iterator[Raw]:
    target = Target.from_url(StoreUrl.parse(url))
    with closing(target.connect()) as connection, closing(target.connect()) as observer:
        observer.execute("SET application_name = 'observer'")
        yield Raw(target, connection, observer)


@define
class Raw:
    """The tables behind the driver's back, and the lock that all writers take."""

    target: Target
    connection: Connection
    observer: Connection

    def rows(self, text: LiteralString) -> list[Any]:
        cursor = self.observer.execute(self.target.sql(text), ())
        return cursor.fetchall() if cursor.description else []

    def tables(self) -> dict[str, list[Any]]:
        """All there is, but for how often it was looked at."""
        return {table: self._table(table) for table in TABLES}

    def _table(self, table: str) -> list[Any]:
        text = f"SELECT t::text FROM {{s}}.{table} t ORDER BY 1"  # noqa: S608
        return [row for (row,) in self.rows(text)]

    @asynccontextmanager
    async def locked(self) -> AsyncGenerator[None]:
        """Nobody writes while the body runs. Whoever wants to does so afterwards, in the order in
        which they came."""
        with self.connection.transaction():
            self.connection.execute(self.target.sql("SELECT FROM {s}.head FOR UPDATE"), ())
            yield

    async def waiting(self, count: int) -> list[int]:
        """Return once so many wait for the lock; gives their process ids."""
        while len(pids := await anyio.to_thread.run_sync(self._waiting)) < count:
            pass
        return pids

    def _waiting(self) -> list[int]:
        rows = self.observer.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND application_name = %s",
            (self.target.parameters["application_name"],),
        )
        return [pid for (pid,) in rows]


async def commit(driver: Driver, state: State) -> State:
    async with Engine(driver) as engine:
        (committed,) = await engine.do(Commit(Pause(state, "work")))
    return committed


async def fill(driver: Driver) -> DataRef:
    """Five versions, of which two may go, and with them the payload that this gives."""
    a = await commit(driver, State("a", labels={"queue": "mail"}).attach("order", b"pears"))
    a = await commit(driver, a)
    await commit(driver, State("a", rev=a.rev))
    await commit(driver, State("b"))
    await commit(driver, State("c").attach("order", b"plums"))
    ref = a.data["order"]
    assert isinstance(ref, DataRef)
    return ref


# ---------------------------------------------------------------- between deciding and removing


async def test_a_batch_that_another_one_overtook_is_decided_again(url: str, raw: Raw) -> None:
    """Two decide on the same versions before either removes them: each is counted once."""
    counted: list[Compaction] = []

    async def compact(driver: Driver) -> None:
        counted.append(await driver.compact(ALL, 0, 1_000))

    async with connect(url) as one, connect(url) as two:
        await fill(one)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks, raw.locked():
                tasks.start_soon(compact, one)
                tasks.start_soon(compact, two)
                await raw.waiting(2)
        assert [(0, 0), (2, 1)] == sorted((batch.versions, batch.payloads) for batch in counted)
        assert [(1,)] == raw.rows("SELECT batches FROM {s}.head")


async def test_a_version_that_another_run_left_last_stays(url: str, raw: Raw) -> None:
    """What one run means to remove is decided again if another one removed what was to stay."""
    async with connect(url) as one, connect(url) as two:
        state = State("a")
        for _ in range(5):
            state = await commit(one, State("a", rev=state.rev))
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks, raw.locked():
                tasks.start_soon(two.compact, Retention(MAX_INSTANT_MS, 2), 2, 1_000)
                await raw.waiting(1)
                tasks.start_soon(one.compact, Retention(MAX_INSTANT_MS, 3), 0, 1_000)
                await raw.waiting(2)
    assert [(2,), (4,), (5,)] == raw.rows("SELECT rev FROM {s}.versions ORDER BY rev")


async def test_a_reference_that_is_committed_meanwhile_keeps_its_payload(
    url: str, raw: Raw
) -> None:
    """Nobody referred to it any more when that was decided; somebody does when it is done."""
    counted: list[Compaction] = []

    async def compact(driver: Driver) -> None:
        counted.append(await driver.compact(ALL, 0, 1_000))

    async with connect(url) as one, connect(url) as two:
        pears = await fill(one)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks, raw.locked():
                tasks.start_soon(commit, two, State("d").attach("taken", pears))
                await raw.waiting(1)
                tasks.start_soon(compact, one)
                await raw.waiting(2)
        assert [(2, 0)] == [(batch.versions, batch.payloads) for batch in counted]
        assert b"pears" == await one.load(pears)
        await commit(one, State("d", rev=6))
        assert 1 == (await one.compact(ALL, 0, 1_000)).payloads
        with pytest.raises(DataNotFoundError):
            await one.load(pears)


async def test_deciding_holds_up_nobody(url: str, raw: Raw) -> None:
    """A batch is decided, and a dry run counted, while somebody else has the lock."""
    async with connect(url) as driver:
        await fill(driver)
        with anyio.fail_after(PATIENCE_S):
            async with raw.locked():
                assert 2 == (await driver.compact(ALL, 0, 1_000, dry_run=True)).versions
                assert Compaction(5, done=True) == await driver.compact(ALL, 2, 1_000)


# ---------------------------------------------------------------- failures


async def test_a_batch_is_removed_although_its_session_was_ended(url: str, raw: Raw) -> None:
    """The driver takes another connection, and the batch holds still."""
    counted: list[Compaction] = []

    async def compact(driver: Driver) -> None:
        counted.append(await driver.compact(ALL, 0, 1_000))

    async with connect(url) as driver:
        await fill(driver)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks, raw.locked():
                tasks.start_soon(compact, driver)
                (pid,) = await raw.waiting(1)
                raw.observer.execute("SELECT pg_terminate_backend(%s::integer)", (pid,))
                while pid in await raw.waiting(1):
                    pass
        assert [(2, 1)] == [(batch.versions, batch.payloads) for batch in counted]


@pytest.mark.parametrize(("fault", "versions"), [("before", 2), ("after", 0)])
async def test_a_batch_whose_answer_was_lost_is_removed_once(
    url: str, raw: Raw, tmp_path_factory: pytest.TempPathFactory, fault: Fault, versions: int
) -> None:
    """The connection is cut between COMMIT and its answer. If it had happened, there is nothing
    left to do; what it came to is not known then."""
    server = raw.target.parameters["host"]
    counted: list[Compaction] = []

    async def compact(driver: Driver) -> None:
        counted.append(await driver.compact(ALL, 0, 1_000))

    with Proxy(tmp_path_factory.mktemp("p"), server) as proxy:
        through = with_options(url, host=str(proxy.folder), prepare="off")
        async with connect(through) as driver:
            await fill(driver)
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as tasks, raw.locked():
                    tasks.start_soon(compact, driver)
                    await raw.waiting(1)
                    proxy.faults.append(fault)
        assert 1 == proxy.cut
    assert [versions] == [batch.versions for batch in counted]
    assert [(3,), (4,), (5,)] == raw.rows("SELECT rev FROM {s}.versions ORDER BY rev")
    assert [(5,)] == raw.rows("SELECT rev FROM {s}.payloads")
    assert [(1,)] == raw.rows("SELECT batches FROM {s}.head")


async def test_an_error_leaves_all_as_it_was(url: str, raw: Raw) -> None:
    """A batch that cannot be finished has not begun: nothing of it is gone, and others go on."""
    async with connect(url) as driver:
        await fill(driver)
        raw.rows(
            "CREATE FUNCTION {s}.stop() RETURNS trigger LANGUAGE plpgsql "
            "AS 'BEGIN RAISE ''not this one''; END'"
        )
        raw.rows(
            "CREATE TRIGGER stop BEFORE DELETE ON {s}.payloads "
            "FOR EACH ROW EXECUTE FUNCTION {s}.stop()"
        )
        before = raw.tables()
        with pytest.raises(StoreError, match="not this one"):
            await driver.compact(ALL, 0, 1_000)
        assert before == raw.tables()
        await commit(driver, State("later"))
        raw.rows("DROP TRIGGER stop ON {s}.payloads")
        assert 1 == (await driver.compact(ALL, 0, 1_000)).payloads


async def test_a_damaged_version_goes_as_any_other(url: str, raw: Raw) -> None:
    """Compaction goes by the columns; what stands in the state does not hold it up."""
    async with connect(url) as driver:
        await fill(driver)
        raw.rows("UPDATE {s}.versions SET state = '[]' WHERE rev = 1")
        assert 2 == (await driver.compact(ALL, 0, 1_000)).versions


async def test_a_store_opened_read_only_can_be_looked_at(url: str) -> None:
    """A dry run needs no right to write; a real one is refused."""
    async with connect(url) as driver:
        await fill(driver)
    async with connect(with_options(url, mode="ro")) as driver:
        assert 2 == (await driver.compact(ALL, 0, 1_000, dry_run=True)).versions
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await driver.compact(ALL, 0, 1_000)


# ---------------------------------------------------------------- the tables


@pytest.mark.parametrize("limit", [3, 1_000])
async def test_every_table_agrees_with_the_versions_that_are_left(
    url: str, raw: Raw, limit: int
) -> None:
    """Of what is gone no row is left anywhere, and of what is left none is missing."""
    async with connect(url) as driver, Engine(driver) as engine:
        log = await write_varied(driver)
        await fill(driver)
        a = await engine.get("a")
        figs = a.attach("order", b"figs")
        outer, _ = await engine.do(Commit(Pause(State("outer").stack("in", figs)), End(a)))
        await commit(driver, outer.stack("in", await engine.get("c")))
        for retention in (Retention(log[-1].committed_at, 2), Retention(MAX_INSTANT_MS, 2), ALL):
            after, done = 0, False
            while not done:
                batch = await driver.compact(retention, after, limit)
                after, done = batch.upto, batch.done
                await _check_tables(driver, raw)


async def _check_tables(driver: Driver, raw: Raw) -> None:
    left = list((await driver.read(Query(), 0, 10_000)).versions)
    current = {state.id: state for state in left}
    labels = sorted((key(*pair), state.rev) for state in left for pair in state.labels.items())
    kept = sorted(
        (key(*pair), state.rev) for state in current.values() for pair in state.labels.items()
    )
    refs = sorted({(r.rev, r.checksum, state.rev) for state in left for r in references(state)})
    assert [(s.rev, s.id, len(encode_state(s))) for s in left] == raw.rows(
        "SELECT rev, id, size FROM {s}.versions ORDER BY rev"
    )
    assert sorted((id, state.rev) for id, state in current.items()) == raw.rows(
        "SELECT id, rev FROM {s}.states ORDER BY id, rev"
    )
    assert labels == raw.rows("SELECT key, rev FROM {s}.labels ORDER BY key, rev")
    assert kept == raw.rows("SELECT key, rev FROM {s}.current_labels ORDER BY key, rev")
    assert refs == raw.rows(
        "SELECT payload_rev, checksum, rev FROM {s}.payload_refs ORDER BY 1, 2, 3"
    )
    assert sorted({ref[:2] for ref in refs}) == raw.rows(
        "SELECT rev, checksum FROM {s}.payloads ORDER BY rev, checksum"
    )


async def test_a_page_looks_at_versions_and_steps_over_gaps(url: str) -> None:
    """Where much is gone, a page looks at as many versions as anywhere else, not at as many
    revisions; so reading what is left of a long log takes few pages."""
    nothing = Query(status=Status.NEW)
    async with connect(url) as driver, Engine(driver) as engine:
        states = tuple(State(f"{n}") for n in range(1_000))
        for _ in range(12):
            states = await engine.do(Commit(*map(Pause, states)))
        head = states[-1].rev
        assert (await driver.read(nothing, 0, 2_000)).upto < head, "a page has a bound"
        while (await driver.compact(ALL, 0, 4_000)).versions:
            pass
        page = await driver.read(Query(status=Status.PAUSED), 0, 2_000)
        assert (states, head) == (page.versions, page.upto)
        assert head == (await driver.read(nothing, 0, 2_000)).upto


async def test_a_process_that_hangs_while_it_decides_is_thrown_out(url: str, raw: Raw) -> None:
    """Or a snapshot would stay open, and VACUUM could clear away nothing. The batch is decided
    again."""
    hanging, go_on = threading.Event(), threading.Event()
    pids: list[int] = []

    def hang(connection: Connection) -> None:
        if not pids:
            pids.append(connection.info.backend_pid)
            setting("idle_in_transaction_session_timeout", "100ms")(connection)
            hanging.set()
            assert go_on.wait(PATIENCE_S)

    def is_gone() -> bool:
        found = raw.observer.execute("SELECT pid FROM pg_stat_activity WHERE pid = %s", (pids[0],))
        return found.fetchone() is None

    async with driver_through(url, before({"SELECT v.rev, v.id, v.committed_at": hang})) as driver:
        await write_varied(driver)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.compact, ALL, 0, 10)
                await anyio.to_thread.run_sync(hanging.wait)
                await until(is_gone)
                go_on.set()


@pytest.mark.parametrize(("asked", "found"), [("0", "1min"), ("5s", "5s")])
async def test_what_searches_has_a_bound_on_the_server(url: str, asked: str, found: str) -> None:
    """That of the role, if it has one."""
    shown: list[Any] = []

    def show(connection: Connection) -> None:
        shown.append(connection.execute("SHOW statement_timeout"))

    url = with_options(url, options=f"-c statement_timeout={asked}")
    async with driver_through(url, before({"GROUP BY": show})) as driver:
        await driver.count(Query(), "status")
    assert [[(found,)]] == [cursor.fetchall() for cursor in shown]
