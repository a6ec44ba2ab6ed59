"""Running flows: what execute and start do, and what a flow may return."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio.lowlevel
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Execute,
    FlowReturnError,
    Flows,
    IllegalTransitionError,
    InvalidValueError,
    Noop,
    Pause,
    Require,
    Resume,
    State,
    Status,
    Transit,
)

from .helpers import FixedClock, begin

pytestmark = pytest.mark.anyio


async def finish(state: State, engine: Engine) -> Command:
    return Commit(End(state))


# ---------------------------------------------------------------- execute and start


async def test_execute_runs_until_the_state_rests_and_gives_it(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def first(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "second"))

    @flows.flow
    async def second(state: State, engine: Engine) -> Command:
        return Commit(Pause(state, reason="rests"))

    state = await engine.execute(await begin(engine, "a", "first"))
    assert state.transition.reason == "rests"
    assert state == await engine.get("a")


@pytest.mark.parametrize(
    "make",
    [
        Pause,
        lambda state: Delay(state, after=1),
        End,
    ],
    ids=["Pause", "Delay", "End"],
)
async def test_execute_also_stops_at_a_rest_that_is_in_memory_only(
    engine: Engine, flows: Flows, make: Callable[[State], Command]
) -> None:
    @flows.flow
    async def rest(state: State, engine: Engine) -> Command:
        return make(state)

    begun = await begin(engine, "a", "rest")
    rested = await engine.execute(begun)
    assert rested.transition.status is not Status.RUNNING
    assert begun == await engine.get("a")  # not committed: lost


async def test_executing_a_state_that_rests_gives_it_back(engine: Engine) -> None:
    (paused,) = await engine.do(Commit(Pause(State("a"))))
    assert paused is await engine.execute(paused)


async def test_executing_an_ended_state_is_illegal(engine: Engine) -> None:
    (ended,) = await engine.do(Commit(End(State("a"))))
    with pytest.raises(IllegalTransitionError, match="Execute is not legal while ENDED"):
        await engine.execute(ended)
    with pytest.raises(IllegalTransitionError, match="Execute is not legal while ENDED"):
        await engine.start(ended)


async def test_executing_a_state_that_is_at_no_flow_says_what_to_do(engine: Engine) -> None:
    with pytest.raises(InvalidValueError, match="is at no flow yet: do Transit"):
        await engine.execute(State("a"))
    with pytest.raises(InvalidValueError, match="is at no flow yet: do Transit"):
        await engine.start(State("a"))


async def test_start_runs_a_state_in_the_background(engine: Engine, flows: Flows) -> None:
    go = anyio.Event()

    @flows.flow
    async def held(state: State, engine: Engine) -> Command:
        await go.wait()
        return Commit(End(state))

    await engine.start(await begin(engine, "a", "held"))
    go.set()
    assert (await engine.wait("a", Status.ENDED)).transition.status is Status.ENDED


async def test_idle_waits_for_all_that_is_running(engine: Engine, flows: Flows) -> None:
    @flows.flow
    async def fork(state: State, engine: Engine) -> Command:
        await anyio.lowlevel.checkpoint()
        return Commit(End(state), Transit(State("child"), "finish"))

    flows.flow(finish)
    await engine.start(await begin(engine, "a", "fork"))
    await engine.idle()
    assert (await engine.get("child")).transition.status is Status.ENDED


async def test_a_flow_that_is_not_registered_here_is_left_for_another_engine(
    engine: Engine, driver: Driver, clock: FixedClock
) -> None:
    """Whoever executes it here waits for that."""
    elsewhere = Flows()
    elsewhere.flow("elsewhere")(finish)
    state = await begin(engine, "a", "elsewhere")
    async with (
        Engine(driver, elsewhere, clock=clock) as other,
        anyio.create_task_group() as tasks,
    ):
        await engine.start(state)
        await engine.idle()
        assert state == await engine.get("a")
        tasks.start_soon(other.execute, state)
        assert (await engine.execute(state)).transition.status is Status.ENDED


async def test_a_run_that_goes_well_logs_nothing(
    engine: Engine, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    flows.flow(finish)
    caplog.set_level(logging.DEBUG, logger="flowstate")
    await engine.execute(await begin(engine, "a", "finish"))
    assert caplog.records == []


# ---------------------------------------------------------------- what a flow returns


async def test_uncommitted_transitions_are_lost_and_the_last_commit_stays(
    engine: Engine, flows: Flows
) -> None:
    seen: list[State] = []

    @flows.flow
    async def first(state: State, engine: Engine) -> Command:
        return Transit(state.with_labels(step="2"), "second")

    @flows.flow
    async def second(state: State, engine: Engine) -> Command:
        seen.append(await engine.get("a"))
        return Noop()

    begun = await begin(engine, "a", "first")
    await engine.start(begun)
    await engine.idle()
    assert seen == [begun]


@pytest.mark.parametrize("returned", [None, 42, "next", State("a"), Require(State("a"))])
async def test_what_is_no_command_is_an_error_that_names_the_flow_and_what_it_returned(
    engine: Engine, flows: Flows, returned: Any
) -> None:
    @flows.flow
    async def wrong(state: State, engine: Engine) -> Any:
        return returned

    with pytest.raises(FlowReturnError, match="flow 'wrong' returned ") as raised:
        await engine.execute(await begin(engine, "a", "wrong"))
    assert raised.value.flow == "wrong"
    assert raised.value.returned is returned
    assert repr(returned)[:50] in str(raised.value)


async def test_a_flow_may_not_move_another_state_in_memory(engine: Engine, flows: Flows) -> None:
    @flows.flow
    async def wrong(state: State, engine: Engine) -> Command:
        return Transit(State("b"), "wrong")

    with pytest.raises(FlowReturnError, match=r"it moves state 'b' in memory only, but .* for 'a'"):
        await engine.execute(await begin(engine, "a", "wrong"))


async def test_a_flow_that_returns_noop_ends_the_run_where_the_state_is_now(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def elsewhere(state: State, engine: Engine) -> Command:
        await engine.do(Commit(End(state, "ended here")))
        return Noop()

    state = await engine.execute(await begin(engine, "a", "elsewhere"))
    assert state.transition.reason == "ended here"


async def test_a_flow_that_returns_execute_hands_over_to_that_state(
    engine: Engine, flows: Flows
) -> None:
    flows.flow(finish)

    @flows.flow
    async def hand_over(state: State, engine: Engine) -> Command:
        (moved,) = await engine.do(Commit(Transit(state, "finish")))
        return Execute(moved)

    await engine.start(await begin(engine, "a", "hand_over"))
    await engine.idle()
    assert (await engine.get("a")).transition.status is Status.ENDED


async def test_other_states_that_a_commit_leaves_running_are_started(
    engine: Engine, flows: Flows
) -> None:
    flows.flow(finish)

    @flows.flow
    async def fork(state: State, engine: Engine) -> Command:
        return Commit(
            Transit(State("runs"), "finish"),
            Pause(State("rests"), to="finish"),
            End(state),
        )

    await engine.execute(await begin(engine, "a", "fork"))
    await engine.idle()
    assert (await engine.get("runs")).transition.status is Status.ENDED
    assert (await engine.get("rests")).transition.status is Status.PAUSED


async def test_a_state_that_a_commit_only_requires_is_not_started(
    engine: Engine, flows: Flows
) -> None:
    ran: list[str] = []

    @flows.flow
    async def other(state: State, engine: Engine) -> Command:
        ran.append(state.id)
        return Commit(End(state))

    required = await begin(engine, "required", "other")

    @flows.flow
    async def require(state: State, engine: Engine) -> Command:
        return Commit(End(state), Require(required))

    await engine.execute(await begin(engine, "a", "require"))
    await engine.idle()
    assert ran == []


async def test_a_commit_that_leaves_the_flow_s_own_state_alone_ends_the_run(
    engine: Engine, flows: Flows
) -> None:
    runs = 0

    @flows.flow
    async def once(state: State, engine: Engine) -> Command:
        nonlocal runs
        runs += 1
        return Commit(Require(state), Pause(State("b")))

    begun = await begin(engine, "a", "once")
    await engine.start(begun)
    await engine.idle()
    assert begun == await engine.get("a")
    assert runs == 1


# ---------------------------------------------------------------- resuming


async def test_a_resumed_state_is_run_with_cause_resume(engine: Engine, flows: Flows) -> None:
    causes: list[Cause] = []

    @flows.flow
    async def look(state: State, engine: Engine) -> Command:
        causes.append(state.transition.cause)
        return Commit(End(state))

    (paused,) = await engine.do(Commit(Pause(State("a"), to="look")))
    (resumed,) = await engine.do(Commit(Resume(paused)))
    await engine.execute(resumed)
    assert causes == [Cause.RESUME]
