"""Leaving the engine: running flows finish, or are another engine's to run, at once."""

from __future__ import annotations

import threading

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    End,
    Engine,
    EngineClosedError,
    Flows,
    Query,
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.leases import Place

from .helpers import FixedClock, begin

pytestmark = pytest.mark.anyio


async def finish(state: State, engine: Engine) -> Command:
    return Commit(End(state))


class BoomError(Exception):
    pass


async def ready_now(engine: Engine, flow: str) -> list[str]:
    """The states that are in line for a flow, by their revisions."""
    found: list[str] = []
    async for state in engine.states(Query(status=Status.RUNNING, latest=True)):
        place = await engine.timers.place(state.id)
        if place is not None and place.since is not None and state.transition.to == flow:
            found.append(state.id)
    return found


async def test_leaving_the_engine_lets_running_flows_finish(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    running, leaving = anyio.Event(), anyio.Event()

    @flows.flow
    async def held(state: State, engine: Engine) -> Command:
        running.set()
        await leaving.wait()
        await anyio.lowlevel.checkpoint()
        return Commit(End(state))

    async with Engine(driver, flows, clock=clock) as engine:
        await engine.start(await begin(engine, "a", "held"))
        await running.wait()
        leaving.set()
    (state,) = [state async for state in engine.states(Query(latest=True))]
    assert state.transition.status is Status.ENDED


async def test_leaving_the_engine_lets_sync_flows_finish(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    running, leaving = anyio.Event(), threading.Event()

    @flows.flow
    def held(state: State, engine: Engine) -> Command:
        anyio.from_thread.run_sync(running.set)
        leaving.wait(timeout=10)
        return Commit(End(state))

    async with Engine(driver, flows, clock=clock) as engine:
        await engine.start(await begin(engine, "a", "held"))
        await running.wait()
        leaving.set()
    assert (await engine.get("a")).transition.status is Status.ENDED


async def test_after_the_grace_period_a_flow_is_cancelled_and_its_lease_given_up(
    driver: Driver, flows: Flows, clock: FixedClock
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

    async with Engine(driver, flows, clock=clock, grace=0.01) as engine:
        begun = await begin(engine, "a", "forever")
        await engine.start(begun)
        await running.wait()
        assert await ready_now(engine, "forever") == []
    assert cancelled.is_set()
    assert await ready_now(engine, "forever") == ["a"]
    assert begun == await driver.get("a")  # no new version: only the lease ended


async def test_what_is_never_retried_is_not_given_up(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    """It has no lease, and stays taken; its timeout, which is a due time, stays what it is."""
    running = anyio.Event()

    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        running.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with Engine(driver, flows, clock=clock, grace=0.01) as engine:
        never = State("a", retry=RetryPolicy(enabled=False))
        await engine.start(Commit(Transit(never, "forever", timeout=60)))
        begun = await engine.get("a")
        await running.wait()
    assert begun.transition.alarm is not None
    assert (await engine.timers.due(0)).next == begun.transition.alarm.at
    assert await engine.timers.place("a") == Place(None, engine.owner, "", None)


async def test_after_the_grace_period_a_sync_flow_is_abandoned_and_its_lease_given_up(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    running, go, returned = anyio.Event(), threading.Event(), threading.Event()

    @flows.flow
    def slow(state: State, engine: Engine) -> Command:
        anyio.from_thread.run_sync(running.set)
        go.wait(timeout=10)
        returned.set()
        return Commit(End(state))

    async with Engine(driver, flows, clock=clock, grace=0.01) as engine:
        begun = await begin(engine, "a", "slow")
        await engine.start(begun)
        await running.wait()
    assert await ready_now(engine, "slow") == ["a"]
    go.set()
    await anyio.to_thread.run_sync(returned.wait)
    await anyio.wait_all_tasks_blocked()
    assert begun == await driver.get("a")  # what the thread returned counts for nothing


async def test_what_waits_for_a_slot_when_the_engine_is_left_is_given_up_too(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    running = anyio.Event()

    @flows.flow
    async def fork(state: State, engine: Engine) -> Command:
        children = [Transit(State(f"child-{n}"), "child") for n in (1, 2)]
        for child in await engine.do(Commit(*children)):
            await engine.start(child)
        running.set()
        await anyio.sleep_forever()
        raise AssertionError

    flows.flow("child")(finish)
    async with Engine(driver, flows, clock=clock, max_background=1, grace=0) as engine:
        await engine.start(await begin(engine, "a", "fork"))
        await running.wait()
    assert await ready_now(engine, "fork") == ["a"]
    assert await ready_now(engine, "child") == ["child-1", "child-2"]


async def test_what_was_started_right_before_the_engine_is_left_is_given_up_or_done(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    flows.flow(finish)
    async with Engine(driver, flows, clock=clock) as engine:
        await engine.start(await begin(engine, "a", "finish"))
    state = await engine.get("a")
    is_done = state.transition.status is Status.ENDED
    assert is_done or await ready_now(engine, "finish") == ["a"]


async def test_while_the_engine_is_left_a_committed_step_is_the_last_one(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    """The running flow finishes; the next one is another engine's to run, at once."""
    running, leaving = anyio.Event(), anyio.Event()

    @flows.flow
    async def first(state: State, engine: Engine) -> Command:
        running.set()
        await leaving.wait()
        await anyio.lowlevel.checkpoint()
        return Commit(Transit(state, "second"), Transit(State("child"), "second"))

    @flows.flow
    async def second(state: State, engine: Engine) -> Command:
        raise AssertionError

    async with Engine(driver, flows, clock=clock) as engine:
        await engine.start(await begin(engine, "a", "first"))
        await running.wait()
        leaving.set()
    assert sorted(await ready_now(engine, "second")) == ["a", "child"]


async def test_an_engine_that_is_being_left_takes_no_new_work(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    running, go = anyio.Event(), anyio.Event()
    refused: list[type[Exception]] = []

    @flows.flow
    async def held(state: State, engine: Engine) -> Command:
        running.set()
        await go.wait()
        return Commit(End(state))

    flows.flow(finish)

    async with anyio.create_task_group() as tasks:

        async def come_late(engine: Engine, state: State) -> None:
            await leaving.wait()
            await anyio.wait_all_tasks_blocked()  # now it waits for the running flow
            for work in (engine.start, engine.execute):
                try:
                    await work(state)
                except EngineClosedError as error:
                    refused.append(type(error))
            go.set()

        leaving = anyio.Event()
        async with Engine(driver, flows, clock=clock) as engine:
            await engine.start(await begin(engine, "a", "held"))
            late = await begin(engine, "late", "finish")
            tasks.start_soon(come_late, engine, late)
            await running.wait()
            leaving.set()
    assert refused == [EngineClosedError, EngineClosedError]
    assert (await engine.get("a")).transition.status is Status.ENDED


async def test_a_start_that_waits_for_a_slot_is_refused_when_the_engine_is_left(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    refused = anyio.Event()

    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        await anyio.sleep_forever()
        raise AssertionError

    async def start_one_too_many(engine: Engine) -> None:
        state = await begin(engine, "b", "forever")
        with pytest.raises(EngineClosedError, match="takes no new work"), anyio.fail_after(5):
            await engine.start(state)
        refused.set()

    async with (
        anyio.create_task_group() as tasks,
        Engine(driver, flows, clock=clock, max_background=1, grace=0) as engine,
    ):
        await engine.start(await begin(engine, "a", "forever"))
        tasks.start_soon(start_one_too_many, engine)
        await anyio.wait_all_tasks_blocked()
    assert refused.is_set()


async def test_an_execute_that_is_cut_off_by_leaving_the_engine_says_so(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    running = anyio.Event()
    cut_off = anyio.Event()

    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        running.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def execute(engine: Engine) -> None:
        state = await begin(engine, "a", "forever")
        with pytest.raises(EngineClosedError, match="left before state 'a' came to rest"):
            await engine.execute(state)
        cut_off.set()

    async with (
        anyio.create_task_group() as tasks,
        Engine(driver, flows, clock=clock, grace=0) as engine,
    ):
        tasks.start_soon(execute, engine)
        await running.wait()
    assert cut_off.is_set()
    assert await ready_now(engine, "forever") == ["a"]


async def test_an_execute_that_is_cancelled_gives_its_lease_up_when_the_engine_is_left(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        scope.cancel()
        await anyio.sleep_forever()
        raise AssertionError

    async with Engine(driver, flows, clock=clock) as engine:
        with anyio.CancelScope() as scope:
            await engine.execute(await begin(engine, "a", "forever"))
    assert await ready_now(engine, "forever") == ["a"]


async def test_an_engine_that_is_cancelled_gives_its_leases_up_too(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    running = anyio.Event()

    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        running.set()
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.CancelScope() as scope:
        async with Engine(driver, flows, clock=clock, grace=10) as engine:
            await engine.start(await begin(engine, "background", "forever"))
            foreground = await begin(engine, "foreground", "forever")
            await running.wait()
            scope.cancel()
            await engine.execute(foreground)
    assert sorted(await ready_now(engine, "forever")) == ["background", "foreground"]


async def test_an_error_in_the_engine_s_block_comes_out_as_it_is(
    driver: Driver, flows: Flows
) -> None:
    with pytest.raises(BoomError):
        async with Engine(driver, flows):
            raise BoomError


async def test_what_was_given_back_and_is_another_s_now_is_not_given_back_again(
    driver: Driver, flows: Flows, clock: FixedClock
) -> None:
    """A run that was cancelled leaves nothing behind for when its engine is left."""
    again = anyio.Event()

    @flows.flow
    async def forever(state: State, engine: Engine) -> Command:
        if scope.cancel_called:
            again.set()
        scope.cancel()
        await anyio.sleep_forever()
        raise AssertionError

    async with Engine(driver, flows, clock=clock, grace=0) as other:
        async with Engine(driver, flows, clock=clock, grace=0) as engine:
            begun = await begin(engine, "a", "forever")
            with anyio.CancelScope() as scope:
                await engine.execute(begun)
            assert await ready_now(engine, "forever") == ["a"]
            await other.start(begun)
            await again.wait()
        (holding,) = await other.timers.holdings()
        assert ("a", other.owner) == (holding.id, holding.place.owner)
