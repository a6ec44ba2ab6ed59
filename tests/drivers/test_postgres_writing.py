"""PostgreSQL: a group of commits is one transaction, and each plan has an outcome of its own."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
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
    Transit,
    connect,
)
from flowstate.drivers.postgres import rows, writer
from flowstate.drivers.postgres.driver import PostgresDriver
from flowstate.transitions import plan

from ..postgres import Database, target, with_options
from .test_postgres_faults import PATIENCE_S, pause, stored

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What is written is written in a thread."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store()


async def test_a_lock_that_is_held_too_long_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody keeps the head row: the commit is refused, and works once the lock is gone."""
    monkeypatch.setattr(writer, "LOCK_TIMEOUT", "100ms")
    store = target(url)
    async with connect(url) as driver:
        with store.connect() as holder, holder.transaction():
            holder.execute(store.sql("SELECT FROM {s}.head FOR UPDATE"))
            with pytest.raises(StoreBusyError, match="nothing was written"):
                await driver.commit(pause("a", "one"))
            with pytest.raises(StoreBusyError):
                await driver.renew([("a", 1)], 100)
        assert [1] == [state.rev for state in await driver.commit(pause("a", "two"))]


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_transaction_that_has_to_be_done_again_is(url: str, state: str) -> None:
    """Serialization failures and deadlocks, here because somebody's trigger says so, twice."""
    store = target(url)
    async with connect(url) as driver:
        with store.connect() as connection:
            for text in AGAIN_TWICE:
                connection.execute(store.sql(text.replace("STATE", state)), ())
        (a,) = await driver.commit(pause("a", "one"))
        assert frozenset() == await driver.renew([("a", a.rev)], 5)
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


async def test_commits_and_renewals_in_any_order_never_deadlock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drivers move and renew the same states, each in another order: whoever writes has locked
    the head row first, so nobody waits for two things at once."""
    monkeypatch.setattr(writer, "RETRYABLE", frozenset())  # a deadlock would be told, then

    async def work(driver: Driver, ids: list[str]) -> None:
        for number in range(60):
            found = [await driver.get(id) for id in ids]
            states = [state for state in found if state is not None]
            moves = plan(
                Commit(*(Transit(state, "on") for state in states)),
                commit_id=f"{ids[0]}-{number}",
                now=0,
                policy=RetryPolicy(),
            )
            with suppress(RevMismatchError):
                await driver.commit(moves)
            await driver.renew([(state.id, state.rev) for state in states], number)

    names = [f"{n}" for n in range(20)]
    async with connect(url) as one, connect(url) as two:
        for name in names:
            await one.commit(pause(name, name))
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work, one, names)
                tasks.start_soon(work, two, names[::-1])
        assert 20 < await one.head()


async def test_a_process_that_hangs_while_committing_is_thrown_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps others waiting for a bounded time, and finds out what became of its commit."""
    monkeypatch.setattr(writer, "IDLE_TIMEOUT", "100ms")
    hanging, go_on = threading.Event(), threading.Event()
    decide = writer.Writer._next_versions

    driver = connect(url)
    assert isinstance(driver, PostgresDriver)

    def hang(self: writer.Writer, *arguments: Any) -> Any:
        if threading.current_thread() is driver._committer._thread and not go_on.is_set():
            hanging.set()
            assert go_on.wait(PATIENCE_S)
        return decide(self, *arguments)

    monkeypatch.setattr(writer.Writer, "_next_versions", hang)
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
    states = [
        State(f"{n}", annotations={"text": "x" * (n * 100)}).attach("data", bytes([n]) * (n * 100))
        for n in range(30)
    ]
    async with connect(url) as driver, Engine(driver) as engine:
        written = await engine.do(Commit(*map(Pause, states)))
        assert list(range(1, 31)) == [state.rev for state in written]
        assert list(written) == [state async for state in engine.states()]
        for n, state in enumerate(written):
            assert bytes([n]) * (n * 100) == await engine.data(state, "data")


async def test_a_mistake_of_the_driver_is_told_and_leaves_no_lock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised while the head row is locked: it is the outcome, and the lock is gone."""
    monkeypatch.setattr(writer, "IDLE_TIMEOUT", "60s")  # or the server would help out
    async with connect(url) as driver, connect(url) as other:
        with monkeypatch.context() as patch:
            patch.setattr(writer, "statements", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await driver.commit(pause("a", "one"))
        with anyio.fail_after(PATIENCE_S):
            assert [1] == [state.rev for state in await other.commit(pause("a", "two"))]
            assert [2] == [state.rev for state in await driver.commit(pause("b", "three"))]


async def test_a_server_that_does_not_commit_for_now_is_no_failure_of_each_plan(url: str) -> None:
    """...but of all at once: none is tried again by itself where that would be of no use."""
    read_only = with_options(url, options="-c default_transaction_read_only=on")
    async with connect(url):
        pass
    async with connect(read_only) as driver:
        assert isinstance(driver, PostgresDriver)
        plans = [pause(f"{number}", f"{number}") for number in range(1_000)]
        outcomes = await anyio.to_thread.run_sync(driver._writer.write, plans)
    assert 1 == len(set(map(id, outcomes)))


@pytest.mark.parametrize("asked", ["on", "local", "off", "remote_apply"])
async def test_commits_are_as_synchronous_as_the_url_says(url: str, asked: str) -> None:
    """Whatever the role, the database or the server is set to."""
    url = with_options(url, synchronous=asked, options="-c synchronous_commit=remote_write")
    async with connect(url) as driver:
        assert isinstance(driver, PostgresDriver)
        connection = driver._writer.connection
        with connection.pipeline():
            driver._writer._begin()
            shown = connection.execute("SHOW synchronous_commit").fetchall()
            connection.execute("ROLLBACK")
        assert [(asked,)] == shown
