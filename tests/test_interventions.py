"""Somebody else moves a state while its flow is running: one of the two wins, quietly."""

from __future__ import annotations

import threading

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    Pause,
    Query,
    RevMismatchError,
    State,
    Status,
    Transit,
)

from .helpers import begin

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------- races


async def test_losing_a_race_ends_the_run_quietly_with_what_the_winner_wrote(
    engine: Engine, driver: Driver, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    """The winner is another process: this engine hears of it only from its own commit."""
    async with Engine(driver) as other_process:

        @flows.flow
        async def slow(state: State, engine: Engine) -> Command:
            await other_process.do(Commit(Pause(state, reason="won")))
            return Commit(End(state, reason="lost"))

        state = await engine.execute(await begin(engine, "a", "slow"))
        assert state.transition.reason == "won"
        assert caplog.records == []


async def test_what_is_running_is_not_run_a_second_time(engine: Engine, flows: Flows) -> None:
    """Starting it does nothing; executing it waits for what becomes of it."""
    runs = 0
    running, go = anyio.Event(), anyio.Event()

    @flows.flow
    async def once(state: State, engine: Engine) -> Command:
        nonlocal runs
        runs += 1
        running.set()
        await go.wait()
        return Commit(End(state))

    state = await begin(engine, "a", "once")
    await engine.start(state)
    await running.wait()
    await engine.start(state)
    results: list[State] = []

    async def execute() -> None:
        results.append(await engine.execute(state))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await anyio.wait_all_tasks_blocked()
        go.set()
    versions = [version async for version in engine.states(Query(id="a"))]
    assert [Status.RUNNING, Status.ENDED] == [one.transition.status for one in versions]
    assert (1, [versions[-1]]) == (runs, results)


async def test_of_two_that_hold_one_version_one_commits(
    engine: Engine, driver: Driver, flows: Flows
) -> None:
    """At-least-once execution, exactly-once transition: a claim that was lost, as by a store that
    forgot it, makes two; whoever commits first wins."""
    meeting = 0
    met = anyio.Event()

    @flows.flow
    async def both(state: State, engine: Engine) -> Command:
        nonlocal meeting
        meeting += 1
        if meeting == 2:
            met.set()
        await met.wait()
        return Commit(End(state))

    state = await begin(engine, "a", "both")
    await engine.start(state)
    async with Engine(driver, flows) as other:
        (holding,) = await engine.timers.holdings()
        await driver.release([holding.held], engine.owner, engine.clock.now())
        await other.execute(state)
    await engine.idle()
    assert 2 == meeting
    versions = [version.transition.status async for version in engine.states(Query(id="a"))]
    assert versions == [Status.RUNNING, Status.ENDED]


async def test_losing_a_race_over_another_state_is_the_flow_s_own_error(
    engine: Engine, flows: Flows
) -> None:
    (other,) = await engine.do(Commit(Pause(State("other"))))
    await engine.do(Commit(Pause(other)))

    @flows.flow
    async def stale(state: State, engine: Engine) -> Command:
        return Commit(End(state), Pause(other))

    with pytest.raises(RevMismatchError) as raised:
        await engine.execute(await begin(engine, "a", "stale"))
    assert set(raised.value.conflicts) == {"other"}
    retried = await engine.get("a")
    assert (retried.transition.status, retried.transition.attempt) == (Status.DELAYED, 1)


# ---------------------------------------------------------------- somebody else moves the state


async def test_moving_a_state_that_is_being_run_cancels_its_flow(
    engine: Engine, flows: Flows
) -> None:
    running, cancelled = anyio.Event(), anyio.Event()

    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    results: list[State] = []
    state = await begin(engine, "a", "forever")

    async def execute() -> None:
        results.append(await engine.execute(state))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await running.wait()
        (paused,) = await engine.do(Commit(Pause(state, reason="operator")))
        await cancelled.wait()
    assert results == [paused]  # quietly, with the newest version


async def test_ending_a_state_that_is_being_run_lets_its_sync_flow_s_result_count_for_nothing(
    engine: Engine, flows: Flows
) -> None:
    running, go = anyio.Event(), threading.Event()

    @flows.flow
    def slow(state: State, engine: Engine) -> Command:
        anyio.from_thread.run_sync(running.set)
        go.wait(timeout=10)
        return Commit(End(state, reason="late"))

    state = await begin(engine, "a", "slow")
    await engine.start(state)
    await running.wait()
    await engine.do(Commit(End(state, reason="operator")))
    await engine.idle()  # although the thread is still there
    go.set()
    assert (await engine.get("a")).transition.reason == "operator"


async def test_a_flow_that_moves_its_own_state_itself_is_not_cancelled_by_that(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def itself(state: State, engine: Engine) -> Command:
        (state,) = await engine.do(Commit(Transit(state, "itself")))
        await anyio.lowlevel.checkpoint()  # would be where it is cancelled
        return Commit(End(state, reason="went on"))

    state = await engine.execute(await begin(engine, "a", "itself"))
    assert state.transition.reason == "went on"


async def test_a_sync_flow_that_moves_its_own_state_itself_is_not_cancelled_by_that(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    def itself(state: State, engine: Engine) -> Command:
        (state,) = anyio.from_thread.run(engine.do, Commit(Transit(state, "itself")))
        anyio.from_thread.run(anyio.lowlevel.checkpoint)
        return Commit(End(state, reason="went on"))

    state = await engine.execute(await begin(engine, "a", "itself"))
    assert state.transition.reason == "went on"


async def test_a_flow_that_moves_the_state_of_another_flow_cancels_that_one(
    engine: Engine, flows: Flows
) -> None:
    running = anyio.Event()

    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        running.set()
        await anyio.sleep_forever()
        raise AssertionError

    @flows.flow
    async def stop(state: State, engine: Engine) -> Command:
        await running.wait()
        return Commit(End(await engine.get("victim")), End(state))

    await engine.start(await begin(engine, "victim", "forever"))
    await engine.execute(await begin(engine, "a", "stop"))
    await engine.idle()
    assert (await engine.get("victim")).transition.status is Status.ENDED
