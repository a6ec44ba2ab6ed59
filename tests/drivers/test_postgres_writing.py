"""PostgreSQL: a group of commits is one transaction, and each plan has an outcome of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest

from flowstate import (
    Commit,
    Driver,
    Engine,
    Pause,
    RetryPolicy,
    RevMismatchError,
    State,
    StoreBusyError,
    StoreError,
    StoreReadOnlyError,
    Transit,
    UnknownOutcomeError,
    connect,
)
from flowstate.drivers.postgres import rows
from flowstate.drivers.postgres.session import Connection
from flowstate.leases import Claimed, ready
from flowstate.transitions import plan

from ..postgres import Database, target, with_options
from .test_postgres_faults import PATIENCE_S, pause, stored
from .wrapped import LOCKS, WRITES, Wrapped, before, driver_through, setting

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What is written is written in a thread."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store()


async def test_a_lock_that_is_held_too_long_is_told(url: str) -> None:
    """Somebody keeps the head row: the commit is refused, and works once the lock is gone."""
    url = with_options(url, reconnect="0")
    store = target(url)
    impatient = before({LOCKS: setting("lock_timeout", "100ms")})
    async with driver_through(url, impatient) as driver:
        with store.connect() as holder, holder.transaction():
            holder.execute(store.sql("SELECT FROM {s}.head FOR UPDATE"))
            with pytest.raises(StoreBusyError, match="nothing was written"):
                await driver.commit(pause("a", "one"))
            with pytest.raises(StoreBusyError):
                await driver.release([("a", 1, "")], "w", 100)
        assert [1] == [state.rev for state in await driver.commit(pause("a", "two"))]


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
async def test_a_transaction_that_has_to_be_done_again_is(url: str, state: str) -> None:
    """Serialization failures and deadlocks, here because somebody's trigger says so, twice."""
    store = target(url)
    async with connect(url) as driver:
        with store.connect() as connection:
            for text in AGAIN_TWICE:
                connection.execute(store.sql(text.replace("STATE", state)), ())
        (a,) = await driver.commit(pause("a", "one"))
        assert frozenset() == (await driver.renew([("a", a.rev, "")], "w", 5)).moved
        with store.connect() as connection:
            (tries,) = connection.execute(store.sql("SELECT last_value FROM {s}.tries")).fetchall()
    assert 3 <= tries[0]
    assert stored(url) == {"one": 1}


AGAIN_TWICE: list[Any] = [
    "CREATE SEQUENCE {s}.tries",  # counts also what is rolled back
    """CREATE FUNCTION {s}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('{s}.tries') <= 2 THEN RAISE EXCEPTION 'again' USING ERRCODE = 'STATE'; END IF;
        RETURN NULL; END $$""",
    "CREATE TRIGGER refuse AFTER INSERT ON {s}.versions EXECUTE FUNCTION {s}.refuse()",
]


async def test_commits_and_claims_in_any_order_never_deadlock(url: str) -> None:
    """Two drivers move, claim, renew and release the same states, each in another order: nobody
    who has locked a row waits for another."""
    failed: list[psycopg.Error] = []
    given: set[str] = set()

    class Noting(Wrapped):
        """Notes what a driver would see to by itself."""

        @contextmanager
        def pipeline(self) -> Iterator[Any]:
            try:
                with super().pipeline() as pipeline:
                    yield pipeline
            except psycopg.Error as error:
                failed.append(error)
                raise

    async def claim(driver: Driver, owner: str) -> None:
        await driver.wait(len(names))  # until some of them are ready
        for number in range(60):
            claimed = await driver.claim({"on": 12}, 12, owner, f"{number}", number)
            states = [each.state for each in claimed if isinstance(each, Claimed)]
            held = [(state.id, state.rev, f"{number}") for state in states]
            await driver.renew(held[::-1], owner, number)
            await driver.release(held, owner, number)
            given.update(state.id for state in states)

    async def work(driver: Driver, ids: list[str]) -> None:
        for number in range(60):
            found = [await driver.get(id) for id in ids]
            states = [state for state in found if state is not None]
            moves = plan(
                Commit(*(Transit(state, "on") for state in states)),
                commit_id=f"{ids[0]}-{number}",
                now=0,
                policy=RetryPolicy(),
                place_of=ready,
            )
            with suppress(RevMismatchError):
                await driver.commit(moves)

    names = [f"{n}" for n in range(20)]
    async with driver_through(url, Noting) as one, driver_through(url, Noting) as two:
        for name in names:
            await one.commit(pause(name, name))
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work, one, names)
                tasks.start_soon(work, two, names[::-1])
                tasks.start_soon(claim, one, "one")
                tasks.start_soon(claim, two, "two")
        assert 20 < await one.head()
    assert len(given) > 10
    assert [] == failed


async def test_a_process_that_hangs_while_committing_is_thrown_out(url: str) -> None:
    """It keeps others waiting for a bounded time, and finds out what became of its commit."""
    hanging, go_on = threading.Event(), threading.Event()

    def hang(_: Connection) -> None:
        hanging.set()
        assert go_on.wait(PATIENCE_S)

    idle = setting("idle_in_transaction_session_timeout", "100ms")
    driver = driver_through(url, before({LOCKS: idle, WRITES: hang}))
    async with driver, connect(url) as other:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.commit, pause("a", "hangs"))
                await anyio.to_thread.run_sync(hanging.wait)
                assert [1] == [state.rev for state in await other.commit(pause("b", "waits"))]
                go_on.set()
    assert stored(url) == {"hangs": 1, "waits": 1}


async def test_a_plan_that_the_server_does_not_take_fails_alone(url: str) -> None:
    """Here because of a rule that somebody gave the table; the others of its group are written."""
    store = target(url)
    outcomes: dict[str, Any] = {}

    async def commit(driver: Driver, id: str) -> None:
        try:
            outcomes[id] = await driver.commit(pause(id, id))
        except StoreError as error:
            outcomes[id] = error

    async with connect(url) as driver:
        with store.connect() as connection:
            connection.execute(store.sql("ALTER TABLE {s}.versions ADD CHECK (id <> 'bad')"))
        async with anyio.create_task_group() as tasks:  # one turn of the loop: one group
            for id in ("a", "b", "bad", "c", "d"):
                tasks.start_soon(commit, driver, id)
        failure = outcomes.pop("bad")
        assert isinstance(failure, StoreError)
        assert "versions_id_check" in str(failure)
        assert [1, 2, 3, 4] == sorted(state.rev for (state,) in outcomes.values())
        assert 4 == await driver.head()


async def test_large_commits_go_in_several_messages(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message has a bound; a commit of many large states and payloads has not."""
    monkeypatch.setattr(rows, "MAX_MESSAGE", 1_000)
    messages: list[Connection] = []
    states = [
        State(f"{n}", annotations={"text": "x" * (n * 100)}).attach("data", bytes([n]) * (n * 100))
        for n in range(30)
    ]
    counting = before({WRITES: messages.append})
    async with driver_through(url, counting) as driver, Engine(driver) as engine:
        written = await engine.do(Commit(*map(Pause, states)))
        assert len(messages) > 10
        assert list(range(1, 31)) == [state.rev for state in written]
        assert list(written) == [state async for state in engine.states()]
        for n, state in enumerate(written):
            assert bytes([n]) * (n * 100) == await engine.data(state, "data")


async def test_a_mistake_of_the_driver_is_told_and_leaves_no_lock(url: str) -> None:
    """Whatever is raised while the head row is locked: it is the outcome, and the lock is gone."""
    mistakes = [ZeroDivisionError("of the test")]

    def mistake(_: Connection) -> None:
        if mistakes:
            raise mistakes.pop()

    idle = setting("idle_in_transaction_session_timeout", "60s")  # or the server would help out
    driver = driver_through(url, before({LOCKS: idle, WRITES: mistake}))
    async with driver, connect(url) as other:
        with pytest.raises(UnknownOutcomeError) as told:
            await driver.commit(pause("a", "one"))
        assert isinstance(told.value.__cause__, ZeroDivisionError)
        with anyio.fail_after(PATIENCE_S):
            assert [1] == [state.rev for state in await other.commit(pause("a", "two"))]
            assert [2] == [state.rev for state in await driver.commit(pause("b", "three"))]


async def test_a_server_that_does_not_commit_for_now_is_no_failure_of_each_plan(url: str) -> None:
    """...but of all at once: none is tried again by itself where that would be of no use."""
    read_only = with_options(url, options="-c default_transaction_read_only=on")
    tried: list[Connection] = []
    refused: list[StoreReadOnlyError] = []

    async def commit(driver: Driver, id: str) -> None:
        with pytest.raises(StoreReadOnlyError) as told:
            await driver.commit(pause(id, id))
        refused.append(told.value)

    async with connect(url):
        pass
    driver = driver_through(read_only, before({LOCKS: tried.append}))
    async with driver, anyio.create_task_group() as tasks:
        for number in range(1_000):  # one turn of the loop: one group
            tasks.start_soon(commit, driver, f"{number}")
    assert (1_000, 1) == (len(refused), len(tried))


@pytest.mark.parametrize("asked", ["on", "local", "off", "remote_apply"])
async def test_commits_are_as_synchronous_as_the_url_says(url: str, asked: str) -> None:
    """Whatever the role, the database or the server is set to."""
    url = with_options(url, synchronous=asked, options="-c synchronous_commit=remote_write")
    shown: list[psycopg.Cursor[Any]] = []

    def show(connection: Connection) -> None:
        shown.append(connection.execute("SHOW synchronous_commit"))

    async with driver_through(url, before({WRITES: show})) as driver:
        await driver.commit(pause("a", "one"))
    assert [[(asked,)]] == [cursor.fetchall() for cursor in shown]


# ---------------------------------------------------------------- claims


async def line_up(driver: Driver, *ids: str) -> list[State]:
    """New states that are ready, each committed by itself."""
    states: list[State] = []
    for id in ids:
        running = Commit(Transit(State(id), "work"))
        ready_now = plan(running, commit_id=id, now=0, policy=RetryPolicy(), place_of=ready)
        states.extend(await driver.commit(ready_now))
    return states


async def test_a_claim_waits_for_nobody_who_commits(url: str) -> None:
    """While somebody else has the head row and one of the states, the others are given."""
    store = target(url)
    async with connect(url) as driver:
        a, b, c = await line_up(driver, "a", "b", "c")
        with store.connect() as holder, holder.transaction(), anyio.fail_after(PATIENCE_S):
            holder.execute(store.sql("SELECT FROM {s}.head FOR UPDATE"))
            holder.execute(store.sql("SELECT FROM {s}.states WHERE id = 'a' FOR UPDATE"))
            assert (Claimed(b, RetryPolicy()),) == await driver.claim({"work": 2}, 2, "w", "1", 5)
            assert () == await driver.take([("a", a.rev)], "w", "2", 5)
            assert (Claimed(c, RetryPolicy()),) == await driver.take([("c", c.rev)], "w", "3", 5)
        assert (Claimed(a, RetryPolicy()),) == await driver.claim({"work": 2}, 2, "w", "4", 5)


async def test_those_who_take_at_the_same_time_share_a_transaction(url: str) -> None:
    """Each has what it asked for, and of what two ask for the first; a server that refuses refuses
    all of them."""
    begun: list[Connection] = []
    given: dict[int, Any] = {}
    refused: list[StoreError] = []

    async def take(driver: Driver, number: int) -> None:
        state = states[min(number, 18)]
        try:
            taken = await driver.take([(state.id, state.rev)], "w", f"{number}", 5)
            given[number] = [each.state for each in taken if isinstance(each, Claimed)]
        except StoreError as error:
            refused.append(error)

    async def take_all(driver: Driver) -> None:
        async with anyio.create_task_group() as tasks:  # one turn of the loop
            for number in range(20):
                tasks.start_soon(take, driver, number)

    async with connect(url) as driver:
        states = await line_up(driver, *(f"{number}" for number in range(19)))
    read_only = with_options(url, options="-c default_transaction_read_only=on")
    async with connect(read_only) as driver:
        await take_all(driver)
    assert [StoreReadOnlyError] * 20 == [type(error) for error in refused]
    async with driver_through(url, before({"FOR UPDATE OF s SKIP LOCKED": begun.append})) as driver:
        await take_all(driver)
        assert 1 == len(begun)
        assert {**{n: [state] for n, state in enumerate(states)}, 19: []} == given
        (holding,) = [each for each in await driver.holdings("w") if each.id == "18"]
        assert "18" == holding.place.claim
