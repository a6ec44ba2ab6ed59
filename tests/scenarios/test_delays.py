"""Delays: a state sleeps in the store, whoever dies meanwhile, and wakes in time."""

from __future__ import annotations

import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    Noop,
    Pause,
    Resume,
    RevMismatchError,
    State,
    Status,
    Transit,
)
from flowstate.testing.virtual import VirtualClock

from ..helpers import begin
from . import history, recovering

pytestmark = pytest.mark.anyio

HOUR = 3600


def make_flows(wakes: list[tuple[int, Cause]]) -> Flows:
    flows = Flows()

    @flows.flow
    async def nap(state: State, engine: Engine) -> Command:
        return Commit(Delay(state, "wake", after=HOUR))

    @flows.flow
    async def nap_itself(state: State, engine: Engine) -> Command:
        await engine.do(Commit(Delay(state, "wake", after=HOUR)))
        return Noop()

    @flows.flow
    async def wake(state: State, engine: Engine) -> Command:
        wakes.append((engine.clock.now(), state.transition.cause))
        return Commit(End(state))

    return flows


@pytest.mark.parametrize("flow", ["nap", "nap_itself"])
async def test_a_flow_sleeps_for_an_hour_and_goes_on(
    store: Driver, clock: VirtualClock, flow: str
) -> None:
    """Whether it returns the delay or does it itself."""
    wakes: list[tuple[int, Cause]] = []
    async with clock.running(), recovering(store, make_flows(wakes), clock) as engine:
        await engine.start(await begin(engine, "order-1", flow))
        await engine.wait("order-1", Status.ENDED)

        _, asleep, awake, _ = await history(engine, "order-1")
        assert asleep.transition.status is Status.DELAYED
        assert awake.transition.cause is Cause.ALARM
        assert asleep.transition.alarm is not None
        ((woken, cause),) = wakes
        assert 0 <= woken - asleep.transition.alarm.at < 1_000  # never early, and prompt
        assert cause is Cause.ALARM


async def test_states_wake_in_the_order_of_their_alarms(store: Driver, clock: VirtualClock) -> None:
    woken: list[str] = []
    flows = Flows()

    @flows.flow
    async def wake(state: State, engine: Engine) -> Command:
        woken.append(state.id)
        return Commit(End(state))

    async with clock.running(), recovering(store, flows, clock) as engine:
        for id, hours in (("late", 3), ("soon", 1), ("later", 10 * 365 * 24), ("next", 2)):
            await engine.do(Commit(Delay(State(id), "wake", after=hours * HOUR)))
        await engine.do(Commit(Delay(State("past"), "wake", at=0)))
        await engine.wait("later", Status.ENDED)
    assert woken == ["past", "soon", "next", "late", "later"]


async def test_a_paused_state_may_be_delayed_and_a_delayed_one_resumed(
    store: Driver, clock: VirtualClock
) -> None:
    wakes: list[tuple[int, Cause]] = []
    async with clock.running(), recovering(store, make_flows(wakes), clock) as engine:
        (paused,) = await engine.do(Commit(Pause(State("order-1"), "wake")))
        (delayed,) = await engine.do(Commit(Delay(paused, after=HOUR)))
        await engine.wait("order-1", Status.ENDED)

        (delayed,) = await engine.do(Commit(Delay(State("order-2"), "wake", after=HOUR)))
        (resumed,) = await engine.do(Commit(Resume(delayed)))
        await engine.execute(resumed)
    assert [cause for _, cause in wakes] == [Cause.ALARM, Cause.RESUME]


async def test_a_state_that_moved_before_its_alarm_never_sees_it(
    store: Driver, clock: VirtualClock
) -> None:
    """The transit wins: the alarm was bound to the version that slept."""
    wakes: list[tuple[int, Cause]] = []
    async with clock.running(), recovering(store, make_flows(wakes), clock) as engine:
        (asleep,) = await engine.do(Commit(Delay(State("order-1"), "wake", after=HOUR)))
        await engine.do(Commit(Pause(asleep, reason="held by an operator")))

        await engine.do(Commit(Delay(State("order-2"), "wake", after=2 * HOUR)))
        await engine.wait("order-2", Status.ENDED)  # an hour after the other's alarm
        held = await engine.get("order-1")
        assert held.transition.reason == "held by an operator"
    assert len(wakes) == 1


async def test_an_alarm_that_fired_first_makes_the_slower_commit_lose(
    store: Driver, clock: VirtualClock
) -> None:
    """The delay wins: whoever still holds the version that slept is told so."""
    wakes: list[tuple[int, Cause]] = []
    async with clock.running(), recovering(store, make_flows(wakes), clock) as engine:
        (asleep,) = await engine.do(Commit(Delay(State("order-1"), "wake", after=HOUR)))
        ended = await engine.wait("order-1", Status.ENDED)

        with pytest.raises(RevMismatchError):
            await engine.do(Commit(Transit(asleep, "wake")))
        assert ended == await engine.get("order-1")
    assert len(wakes) == 1
