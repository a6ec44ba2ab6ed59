"""A flow that raises is not lost and not silent: it is retried later, or given up."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from flowstate import (
    Alarm,
    Cause,
    Command,
    Commit,
    Driver,
    Due,
    End,
    Engine,
    Flows,
    RetryPolicy,
    State,
    Status,
    StoreError,
    Transit,
    Transition,
)
from flowstate.drivers.memory import MemoryDriver
from flowstate.plan import Plan

from .helpers import NOW, FixedClock, begin

pytestmark = pytest.mark.anyio


async def finish(state: State, engine: Engine) -> Command:
    return Commit(End(state))


class BoomError(Exception):
    pass


async def boom(state: State, engine: Engine) -> Command:
    raise BoomError("it broke")


async def test_a_flow_that_raises_is_retried_later_and_execute_raises(
    engine: Engine, flows: Flows, clock: FixedClock
) -> None:
    flows.flow(boom)
    begun = await begin(engine, "a", "boom")
    clock.ms = NOW + 500
    with pytest.raises(BoomError, match="it broke"):
        await engine.execute(begun)
    retried = (await engine.get("a")).transition
    assert retried.traceback.endswith("BoomError: it broke")
    assert replace(retried, traceback="") == Transition(
        to="boom",
        status=Status.DELAYED,
        cause=Cause.RETRY,
        attempt=1,
        reason="BoomError: it broke",
        alarm=Alarm(NOW + 1_500, "boom"),
    )


async def test_a_retry_is_due_when_its_backoff_is_over(
    engine: Engine, flows: Flows, driver: Driver
) -> None:
    flows.flow(boom)
    with pytest.raises(BoomError):
        await engine.execute(await begin(engine, "a", "boom"))
    retried = await engine.get("a")
    assert (await driver.due(NOW + 999, 10)).due == ()
    assert (await driver.due(NOW + 1_000, 10)).due == (Due(retried, NOW + 1_000, RetryPolicy()),)


async def test_a_state_that_was_never_committed_just_raises(engine: Engine, flows: Flows) -> None:
    flows.flow(boom)
    state = await engine.do(Transit(State("a"), "boom"))
    with pytest.raises(BoomError):
        await engine.execute(state)
    assert await engine.driver.head() == 0


async def test_an_error_in_a_later_flow_that_was_reached_in_memory_is_retried_there(
    engine: Engine, flows: Flows
) -> None:
    flows.flow(boom)

    @flows.flow
    async def first(state: State, engine: Engine) -> Command:
        return Transit(state.attach("found", {"x": 1}), "boom")

    with pytest.raises(BoomError):
        await engine.execute(await begin(engine, "a", "first"))
    retried = await engine.get("a")
    assert (retried.transition.status, retried.transition.to) == (Status.DELAYED, "boom")
    assert await engine.data(retried, "found") == {"x": 1}


async def test_an_error_in_the_background_is_logged_with_the_state_and_the_flow(
    engine: Engine, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    flows.flow(boom)
    await engine.start(await begin(engine, "a", "boom"))
    await engine.idle()
    assert "state 'a': flow 'boom' raised BoomError: it broke" in caplog.text
    assert (await engine.get("a")).transition.status is Status.DELAYED


async def test_a_failure_in_the_background_stops_nothing_else(engine: Engine, flows: Flows) -> None:
    flows.flow(boom)
    flows.flow(finish)
    await engine.start(await begin(engine, "a", "boom"))
    await engine.start(await begin(engine, "b", "finish"))
    await engine.idle()
    assert (await engine.get("b")).transition.status is Status.ENDED


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("a\0b", "BoomError: a\\0b"),
        ("a\ud800b", "BoomError: a\\ud800b"),
        ("x" * 5_000, "BoomError: " + "x" * 989 + "…"),
    ],
    ids=["NUL", "lone surrogate", "long"],
)
async def test_the_reason_of_a_retry_can_always_be_stored(
    engine: Engine, flows: Flows, message: str, reason: str
) -> None:
    @flows.flow
    async def fail(state: State, engine: Engine) -> Command:
        raise BoomError(message)

    with pytest.raises(BoomError):
        await engine.execute(await begin(engine, "a", "fail"))
    assert reason == (await engine.get("a")).transition.reason


async def test_an_error_whose_retry_cannot_be_committed_is_still_the_one_that_is_raised(
    flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryDriver):
        async def commit(self, plan: Plan) -> tuple[State, ...]:
            if plan.writes[0].state.transition.cause is Cause.RETRY:
                raise StoreError("memory:", "is out of order")
            return await super().commit(plan)

    flows.flow(boom)
    async with Failing() as driver, Engine(driver, flows) as engine:
        with pytest.raises(BoomError):
            await engine.execute(await begin(engine, "a", "boom"))
    assert "its retry could not be committed" in caplog.text


async def test_a_flow_that_raises_after_somebody_else_moved_its_state_is_not_retried(
    engine: Engine, driver: Driver, flows: Flows
) -> None:
    async with Engine(driver) as other_process:

        @flows.flow
        async def fail(state: State, engine: Engine) -> Command:
            await other_process.do(Commit(End(state, reason="operator")))
            raise BoomError

        with pytest.raises(BoomError):
            await engine.execute(await begin(engine, "a", "fail"))
        assert (await engine.get("a")).transition.reason == "operator"
