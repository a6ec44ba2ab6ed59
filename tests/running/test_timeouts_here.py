"""When the timeout of what an engine runs comes, that engine stops it and goes on."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    Due,
    Engine,
    Flows,
    Plan,
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import VirtualClock
from flowstate.testing.wrapper import WrapperDriver

from . import add, begin, causes, ends, history, ready

pytestmark = pytest.mark.anyio


@pytest.fixture
def effects(flows: Flows) -> list[str]:
    """A flow ``pay`` that hangs; gives what it has done."""
    effects: list[str] = []

    @flows.flow
    async def pay(state: State, engine: Engine) -> Command:
        try:
            await engine.sleep_until(engine.clock.now() + 600_000)
            effects.append("paid")
        finally:
            effects.append(f"left after {engine.clock.now() - state.committed_at} ms")
        return ends(state)

    return effects


@pytest.fixture
def policy() -> RetryPolicy:
    """Two attempts, of which none is used here."""
    return RetryPolicy(lease=10, max_attempts=2)


async def test_the_flow_is_stopped_at_its_timeout_and_the_next_one_runs_here(
    engine: Engine, flows: Flows, effects: list[str]
) -> None:
    given = add(flows, "undo", ends)
    begun = await begin(engine, "a", "pay", timeout=60, on_timeout="undo")
    ended = await engine.execute(begun)
    assert ["left after 60000 ms"] == effects
    assert [Cause.ALARM] == [state.transition.cause for state in given]
    assert Status.ENDED is ended.transition.status


async def test_a_timeout_to_the_same_flow_runs_it_again(engine: Engine, flows: Flows) -> None:
    runs: list[State] = []

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        runs.append(state)
        if len(runs) == 1:
            await anyio.sleep_forever()
        return ends(state)

    await engine.execute(await begin(engine, "a", "work", timeout=60))
    assert ["command", "alarm"] == causes(runs)


async def test_a_timeout_to_a_flow_of_others_is_theirs_at_once(
    engine: Engine, effects: list[str]
) -> None:
    await engine.start(await begin(engine, "a", "pay", timeout=60, on_timeout="undo"))
    await engine.idle()
    assert ["a"] == await ready(engine, "undo")


async def test_the_leader_s_firing_and_the_engine_s_are_one(
    engine: Engine, store: Driver, flows: Flows, clock: VirtualClock, effects: list[str]
) -> None:
    add(flows, "undo", ends)
    async with Engine(store, flows, clock=clock, grace=0) as leader, Recoverer(leader):
        await engine.start(await begin(engine, "a", "pay", timeout=60, on_timeout="undo"))
        await leader.wait("a", Status.ENDED)
        await engine.idle()
    assert ["command", "alarm", "command"] == causes(await history(engine, "a"))
    assert "paid" not in effects


async def test_a_flow_that_ends_before_its_timeout_is_not_stopped(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        await engine.sleep_until(engine.clock.now() + 59_999)
        return ends(state)

    add(flows, "undo", ends)
    await engine.execute(await begin(engine, "a", "work", timeout=60, on_timeout="undo"))
    assert ["command", "command"] == causes(await history(engine, "a"))


async def test_a_timeout_also_stops_what_is_never_retried(
    engine: Engine, flows: Flows, effects: list[str]
) -> None:
    add(flows, "undo", ends)
    never = State("a", retry=RetryPolicy(enabled=False))
    (begun,) = await engine.do(Commit(Transit(never, "pay", timeout=60, on_timeout="undo")))
    ended = await engine.execute(begun)
    assert Status.ENDED is ended.transition.status
    assert ["left after 60000 ms"] == effects


async def test_an_alarm_that_came_is_no_death_though_the_clock_was_set_back_since(
    engine: Engine, clock: VirtualClock
) -> None:
    """What was due when it was asked for is fired as what it was then."""
    state = await begin(engine, "a", "pay", timeout=60, on_timeout="undo")
    before_it_came = clock.now()
    fired = await engine.timers.fire(Due(state, before_it_came + 60_000))
    assert fired is not None
    assert ("undo", Cause.ALARM, 0) == (
        fired.transition.to,
        fired.transition.cause,
        fired.transition.attempt,
    )


class SlowDriver(WrapperDriver):
    """Answers a commit an hour late, if it is told to."""

    clock: VirtualClock
    is_slow = False

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        written = await super().commit(plan)
        if self.is_slow:
            self.is_slow = False
            await self.clock.wait_until(self.clock.now() + 3_600_000)
        return written


@pytest.mark.parametrize("seconds", [None, 7_200])
async def test_a_timeout_that_comes_while_its_flow_commits_stops_nothing(
    store: Driver, flows: Flows, clock: VirtualClock, seconds: int | None
) -> None:
    """The state has moved on by then; its new timeout, if it has one, is still to come."""
    slow = SlowDriver(store)
    slow.clock = clock

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        slow.is_slow = True
        return Commit(Transit(state, "next", timeout=seconds))

    @flows.flow("next")
    async def then(state: State, engine: Engine) -> Command:
        await anyio.lowlevel.checkpoint()
        return ends(state)

    policy = RetryPolicy(lease=100_000)
    async with Engine(slow, flows, clock=clock, retry=policy, grace=0) as engine:
        state = await engine.execute(Commit(Transit(State("a"), "work", timeout=60)))
    assert Status.ENDED is state.transition.status
    async with Engine(store, clock=clock) as other:
        assert ["command", "command", "command"] == causes(await history(other, "a"))
