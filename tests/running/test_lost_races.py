"""Losing a race on another state is no failure: the flow is run again, with the same state."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    End,
    Engine,
    EngineClosedError,
    Execute,
    Flows,
    Pause,
    RetryPolicy,
    RevMismatchError,
    Save,
    State,
    Status,
    Transit,
)
from flowstate.races import MAX_RACES
from flowstate.testing.virtual import VirtualClock

from . import begin, ends, history, ready

pytestmark = pytest.mark.anyio

COUNTER = State("counter", labels={"n": "0"})


async def move_counter(engine: Engine) -> None:
    """What makes whoever read the counter before lose."""
    await engine.do(Commit(Save(await engine.get("counter"))))


@pytest.fixture
async def counter(engine: Engine) -> State:
    (counter,) = await engine.do(Commit(Pause(COUNTER)))
    return counter


@pytest.fixture
def runs(flows: Flows) -> list[State]:
    """A flow ``lose`` that loses as many races as its label says; gives its runs."""
    runs: list[State] = []

    @flows.flow
    async def lose(state: State, engine: Engine) -> Command:
        runs.append(state)
        counter = await engine.get("counter")
        if len(runs) <= int(state.labels["times"]):
            await move_counter(engine)
        return Commit(End(state), Save(counter))

    return runs


async def losing(engine: Engine, times: int) -> State:
    (state,) = await engine.do(Commit(Transit(State("a", labels={"times": str(times)}), "lose")))
    return state


async def test_thirty_flows_that_count_in_one_state_are_thirty(
    engine: Engine, flows: Flows, counter: State, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="flowstate")

    @flows.flow
    async def count(state: State, engine: Engine) -> Command:
        counter = await engine.get("counter")
        await engine.sleep_until(engine.clock.now() + 5)
        n = int(counter.labels["n"]) + 1
        return Commit(End(state), Save(counter.with_labels(n=str(n))))

    for n in range(30):
        await engine.start(await begin(engine, f"job-{n}", "count"))
    await engine.idle()
    assert "30" == (await engine.get("counter")).labels["n"]
    made = [[s.transition.cause for s in await history(engine, f"job-{n}")] for n in range(30)]
    assert [[Cause.COMMAND] * 2] * 30 == made  # begun and ended: nothing was tried again
    assert [] == caplog.records


async def test_a_flow_that_lost_a_race_is_run_again_with_the_same_state(
    engine: Engine, runs: list[State], counter: State
) -> None:
    begun = await losing(engine, 3)
    ended = await engine.execute(begun)
    assert [begun] * 4 == runs
    assert Status.ENDED is ended.transition.status


async def test_an_error_of_do_that_a_flow_let_out_is_a_lost_race_too(
    engine: Engine, flows: Flows, counter: State
) -> None:
    runs = 0

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        nonlocal runs
        runs += 1
        if runs == 1:
            await engine.do(Commit(Save(counter)))
            await engine.do(Commit(Save(counter)))
        return ends(state)

    ended = await engine.execute(await begin(engine, "a", "work"))
    assert (2, 0) == (runs, ended.transition.attempt)


async def test_the_first_time_it_is_run_again_at_once_then_after_growing_waits(
    store: Driver, flows: Flows, clock: VirtualClock, runs: list[State]
) -> None:
    waits: list[int] = []

    async with Engine(store, flows, clock=clock, grace=0, chance=lambda: 1.0) as engine:
        await engine.do(Commit(Pause(COUNTER)))
        began = clock.now()

        @flows.flow("timed")
        async def timed(state: State, engine: Engine) -> Command:
            waits.append(clock.now() - began)
            counter = await engine.get("counter")
            if len(waits) < 13:
                await move_counter(engine)
            return Commit(End(state), Save(counter))

        await engine.execute(await begin(engine, "a", "timed"))
    grown = [after - before for before, after in pairwise(waits)]
    assert [0, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000, 1_000] == grown


async def test_after_a_hundred_lost_races_it_is_a_failure_like_any_other(
    engine: Engine, runs: list[State], counter: State
) -> None:
    begun = await losing(engine, 10 * MAX_RACES)
    with pytest.raises(RevMismatchError):
        await engine.execute(begun)
    assert MAX_RACES + 1 == len(runs)
    retried = (await engine.get("a")).transition
    assert (Cause.RETRY, 1) == (retried.cause, retried.attempt)


async def test_races_are_counted_for_each_step_by_itself(
    engine: Engine, flows: Flows, counter: State
) -> None:
    """A long execution may lose some now and then for as long as it likes."""
    lost: Counter[str] = Counter()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        step = state.labels.get("step", "0")
        counter = await engine.get("counter")
        if lost[step] < MAX_RACES // 2:
            lost[step] += 1
            await move_counter(engine)
        onward = state.with_labels(step=str(int(step) + 1))
        return Commit(End(state) if step == "3" else Transit(onward, "work"), Save(counter))

    ended = await engine.execute(await begin(engine, "a", "work"))
    assert Status.ENDED is ended.transition.status
    assert 2 * MAX_RACES == lost.total()


async def test_a_duplicate_is_looked_at_once_more_and_then_fails(
    engine: Engine, flows: Flows
) -> None:
    await engine.do(Commit(Pause(State("child"))))
    runs = 0

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        nonlocal runs
        runs += 1
        return Commit(End(state), Pause(State("child")))

    with pytest.raises(RevMismatchError):
        await engine.execute(await begin(engine, "a", "work"))
    assert 2 == runs
    retried = (await engine.get("a")).transition
    assert (Cause.RETRY, 1) == (retried.cause, retried.attempt)


async def test_whoever_looks_whether_it_is_there_creates_it_once(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        there = [one async for one in engine.states({"kind": "total"})]
        await anyio.lowlevel.checkpoint()
        total = there[-1] if there else State("total", labels={"kind": "total"})
        return Commit(End(state), Pause(total))

    for n in range(10):
        await engine.start(await begin(engine, f"a{n}", "work"))
    await engine.idle()
    ended = [(await engine.get(f"a{n}")).transition for n in range(10)]
    assert [(Status.ENDED, Cause.COMMAND)] * 10 == [(one.status, one.cause) for one in ended]


async def test_an_execution_whose_own_state_was_moved_ends_quietly(
    engine: Engine,
    store: Driver,
    flows: Flows,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="flowstate")
    async with Engine(store, clock=clock) as other:

        @flows.flow
        async def work(state: State, engine: Engine) -> Command:
            await other.do(Commit(Pause(state, reason="by hand")))
            return ends(state)

        rested = await engine.execute(await begin(engine, "a", "work"))
    assert "by hand" == rested.transition.reason
    assert [] == caplog.records


async def test_a_flow_that_moved_its_own_state_before_it_lost_goes_on_with_what_it_holds(
    engine: Engine, flows: Flows, counter: State
) -> None:
    runs: list[State] = []

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        runs.append(state)
        counter = await engine.get("counter")
        if len(runs) > 1:
            return ends(state)
        await move_counter(engine)
        (moved,) = await engine.do(Commit(Transit(state.with_labels(step="1"), "work")))
        return Commit(End(moved), Save(counter))

    ended = await engine.execute(await begin(engine, "a", "work"))
    assert ["", "1"] == [state.labels.get("step", "") for state in runs]
    assert (Status.ENDED, 0) == (ended.transition.status, ended.transition.attempt)


async def test_a_lost_race_is_one_after_execute_of_its_own_state(
    engine: Engine, flows: Flows, counter: State
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        (moved,) = await engine.do(Commit(Transit(state, "two")))
        return Execute(moved)

    runs = 0

    @flows.flow
    async def two(state: State, engine: Engine) -> Command:
        nonlocal runs
        runs += 1
        counter = await engine.get("counter")
        if runs == 1:
            await move_counter(engine)
        return Commit(End(state), Save(counter))

    ended = await engine.execute(await begin(engine, "a", "one"))
    assert (2, Status.ENDED) == (runs, ended.transition.status)


async def test_leaving_stops_reruns_at_once_and_gives_the_state_back(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    policy = RetryPolicy(lease=10, max_attempts=1)
    runs = 0
    left = anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        nonlocal runs
        runs += 1
        counter = await engine.get("counter")
        await move_counter(engine)
        if runs == 3:
            left.set()
            await engine.closing.wait()
        return Commit(End(state), Save(counter))

    async with Engine(store, flows, clock=clock, retry=policy, grace=60) as engine:
        await engine.do(Commit(Pause(COUNTER)))
        await engine.start(await begin(engine, "a", "work"))
        await left.wait()
    assert 3 == runs
    async with Engine(store, clock=clock) as other:
        assert ["a"] == await ready(other, "work")


async def test_an_execute_that_is_left_while_it_races_says_so(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    raised: list[BaseException] = []
    running = anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        counter = await engine.get("counter")
        await move_counter(engine)
        running.set()
        await engine.closing.wait()
        return Commit(End(state), Save(counter))

    async def execute(engine: Engine, state: State) -> None:
        with pytest.raises(EngineClosedError) as caught:
            await engine.execute(state)
        raised.append(caught.value)

    async with (
        anyio.create_task_group() as tasks,
        Engine(store, flows, clock=clock, grace=60) as engine,
    ):
        await engine.do(Commit(Pause(COUNTER)))
        tasks.start_soon(execute, engine, await begin(engine, "a", "work"))
        await running.wait()
    assert 1 == len(raised)
