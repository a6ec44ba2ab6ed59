"""A state that an engine runs and that somebody else moves: its execution is stopped."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    Engine,
    Flows,
    Pause,
    Query,
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.testing.virtual import VirtualClock

from . import begin, ends, history

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3_600


@pytest.fixture
def policy() -> RetryPolicy:
    """A lease that is not renewed while a test runs: nothing is learned by that."""
    return RetryPolicy(lease=30 * DAY_S)


async def test_it_is_stopped_as_soon_as_a_watcher_has_read_of_it(
    engine: Engine, store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    """The tail is read anyway: nobody waits for the lease."""
    stopped: list[int] = []
    runs = anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        runs.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append(clock.now())
        raise AssertionError

    caught_up = anyio.Event()

    async def watch() -> None:
        async for _ in engine.watch(Query(id="a")):
            caught_up.set()

    async with (
        anyio.create_task_group() as tasks,
        Engine(store, clock=clock) as other,
    ):
        tasks.start_soon(watch)
        began = clock.now()
        await engine.start(await begin(engine, "a", "work"))
        await runs.wait()
        await caught_up.wait()
        for _ in range(10):
            await anyio.lowlevel.checkpoint()  # it waits for what comes
        await other.do(Commit(Pause(await other.get("a"))))
        await engine.idle()
        tasks.cancel_scope.cancel()
    assert 1 == len(stopped)
    assert stopped[0] - began < 1_000
    assert [Status.RUNNING, Status.PAUSED] == [
        state.transition.status for state in await history(engine, "a")
    ]


async def test_what_a_watcher_reads_of_its_own_commits_stops_nothing(
    engine: Engine, store: Driver, flows: Flows
) -> None:
    """It may see a commit before the committer is told."""

    @flows.flow
    async def count(state: State, engine: Engine) -> Command:
        await anyio.lowlevel.checkpoint()
        done = int(state.labels.get("n", "0")) + 1
        state = state.with_labels(n=str(done))
        return ends(state) if done == 50 else Commit(Transit(state, "count"))

    async def watch() -> None:
        async for _ in engine.watch():
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for n in range(5):
            await engine.start(Commit(Transit(State(f"{n}"), "count")))
        await engine.idle()
        tasks.cancel_scope.cancel()
    for n in range(5):
        versions = await history(engine, f"{n}")
        assert 51 == len(versions)
        assert Status.ENDED is versions[-1].transition.status
