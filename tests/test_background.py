"""Many states at once: how many run, who waits for them, and who gets a turn."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    Noop,
    Query,
    State,
    Status,
    Transit,
)
from flowstate.executor import MAX_STEPS_WITHOUT_YIELD

from .helpers import begin

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------- how much at once


async def test_start_waits_while_max_background_states_are_running(
    driver: Driver, flows: Flows
) -> None:
    """Back-pressure: whoever starts work faster than it is done is slowed down."""
    go = anyio.Event()
    running = most = 0

    @flows.flow
    async def held(state: State, engine: Engine) -> Command:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        return Commit(End(state))

    started: list[str] = []

    async def start_all(engine: Engine) -> None:
        for name in "abcd":
            await engine.start(await begin(engine, name, "held"))
            started.append(name)

    async with (
        Engine(driver, flows, max_background=2) as engine,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(start_all, engine)
        await anyio.wait_all_tasks_blocked()
        assert started == ["a", "b"]
        go.set()
        for name in "abcd":
            await engine.wait(name, Status.ENDED)
    assert started == ["a", "b", "c", "d"]
    assert most == 2


async def test_forks_never_deadlock_even_with_one_slot(driver: Driver, flows: Flows) -> None:
    """A flow that forks does not wait for a slot: it may be what holds the last one."""

    @flows.flow
    async def fork(state: State, engine: Engine) -> Command:
        depth = int(state.labels["depth"])
        if depth == 0:
            return Commit(End(state))
        children = [
            Transit(State(f"{state.id}{n}", labels={"depth": str(depth - 1)}), "fork")
            for n in (1, 2)
        ]
        grandchild = await engine.do(Transit(State(f"{state.id}+", labels={"depth": "0"}), "fork"))
        await engine.start(grandchild)
        return Commit(End(state), *children)

    async with Engine(driver, flows, max_background=1) as engine:
        root = State("r", labels={"depth": "4"})
        (root,) = await engine.do(Commit(Transit(root, "fork")))
        await engine.start(root)
        with anyio.fail_after(10):
            await engine.idle()
        ended = [state async for state in engine.states(Query(status=Status.ENDED))]
        assert len(ended) == 2**5 - 1 + 2**4 - 1


async def test_forks_keep_to_max_background(driver: Driver, flows: Flows) -> None:
    running = most = 0

    @flows.flow
    async def child(state: State, engine: Engine) -> Command:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        running -= 1
        return Commit(End(state))

    @flows.flow
    async def fork(state: State, engine: Engine) -> Command:
        return Commit(End(state), *(Transit(State(f"c{n}"), "child") for n in range(20)))

    async with Engine(driver, flows, max_background=3) as engine:
        await engine.start(await begin(engine, "a", "fork"))
        await engine.idle()
    assert most == 3


# ---------------------------------------------------------------- fairness


class Turns:
    """Counts the turns that another task gets."""

    def __init__(self) -> None:
        self.count = 0
        self.over = False

    async def take(self) -> None:
        while not self.over:
            self.count += 1
            await anyio.lowlevel.checkpoint()


async def test_a_long_run_lets_other_tasks_have_their_turn(engine: Engine, flows: Flows) -> None:
    turns = Turns()
    most_between = since = last = 0

    @flows.flow
    async def spin(state: State, engine: Engine) -> Command:
        nonlocal most_between, since, last
        since = since + 1 if turns.count == last else 1
        last = turns.count
        most_between = max(most_between, since)
        n = int(state.labels["n"]) - 1
        return Transit(state.with_labels(n=str(n)), "spin") if n else End(state)

    state = await engine.do(Transit(State("a", labels={"n": "2000"}), "spin"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turns.take)
        await anyio.lowlevel.checkpoint()
        await engine.execute(state)
        turns.over = True
    assert 0 < most_between <= 2 * MAX_STEPS_WITHOUT_YIELD


async def test_many_short_runs_in_the_background_let_other_tasks_have_their_turn(
    driver: Driver, flows: Flows
) -> None:
    turns = Turns()
    most_between = since = last = 0

    @flows.flow
    async def child(state: State, engine: Engine) -> Command:
        nonlocal most_between, since, last
        since = since + 1 if turns.count == last else 1
        last = turns.count
        most_between = max(most_between, since)
        return Noop()

    @flows.flow
    async def fork(state: State, engine: Engine) -> Command:
        for n in range(2_000):
            await engine.start(await engine.do(Transit(State(f"c{n}"), "child")))
        return Noop()

    async with (
        Engine(driver, flows, max_background=1) as engine,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(turns.take)
        await engine.start(await engine.do(Transit(State("a"), "fork")))
        await engine.idle()
        turns.over = True
    assert 0 < most_between <= 2 * MAX_STEPS_WITHOUT_YIELD
