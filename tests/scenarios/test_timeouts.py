"""Timeouts: of a running flow, and of waiting for someone. Whichever comes first wins."""

from __future__ import annotations

import anyio
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    Pause,
    Resume,
    RevMismatchError,
    State,
    Status,
    Transit,
)
from flowstate.testing.virtual import VirtualClock

from . import history, recovering

pytestmark = pytest.mark.anyio


def make_flows(hung: anyio.Event, cancelled: anyio.Event) -> Flows:
    flows = Flows()

    @flows.flow
    async def hang(state: State, engine: Engine) -> Command:
        hung.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    @flows.flow
    async def step(state: State, engine: Engine) -> Command:
        return Transit(state, "hang")

    @flows.flow
    async def quick(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="in time"))

    @flows.flow
    async def late(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="too late"))

    return flows


async def test_a_flow_that_hangs_is_cancelled_when_its_time_is_up(
    store: Driver, clock: VirtualClock
) -> None:
    """Whoever executes it gets the state as it has become."""
    hung, cancelled = anyio.Event(), anyio.Event()
    async with clock.running(), recovering(store, make_flows(hung, cancelled), clock) as engine:
        timed = Transit(State("order-1"), "hang", timeout=60, on_timeout="late")
        (state,) = await engine.do(Commit(timed))
        moved = await engine.execute(state)
        assert cancelled.is_set()
        assert moved.rev > state.rev

        await engine.wait("order-1", Status.ENDED)
        _, fired, ended = await history(engine, "order-1")
        assert (fired.transition.to, fired.transition.cause) == ("late", Cause.ALARM)
        assert ended.transition.reason == "too late"


async def test_a_flow_that_hangs_in_another_process_is_cancelled_there(
    store: Driver, clock: VirtualClock
) -> None:
    """The executor learns from the store that its state has moved on, and frees the place."""
    hung, cancelled = anyio.Event(), anyio.Event()
    flows = make_flows(hung, cancelled)
    async with (
        clock.running(),
        Engine(store, flows, clock=clock, grace=0) as executor,
        recovering(store, flows, clock) as recoverer,
    ):
        timed = Transit(State("order-1"), "hang", timeout=5, on_timeout="late")
        (state,) = await executor.do(Commit(timed))
        await executor.start(state)
        await recoverer.wait("order-1", Status.ENDED)
        await cancelled.wait()
        await executor.idle()


async def test_a_timeout_holds_through_steps_in_memory(store: Driver, clock: VirtualClock) -> None:
    """It belongs to the committed version: the lease is renewed up to it, whatever the flows have
    done since in memory."""
    hung, cancelled = anyio.Event(), anyio.Event()
    async with clock.running(), recovering(store, make_flows(hung, cancelled), clock) as engine:
        timed = Transit(State("order-1"), "step", timeout=100, on_timeout="late")
        (state,) = await engine.do(Commit(timed))
        await engine.execute(state)
        assert cancelled.is_set()
        ended = await engine.wait("order-1", Status.ENDED)
        assert 100_000 <= ended.committed_at - state.committed_at < 110_000


async def test_a_flow_that_is_done_in_time_never_sees_its_timeout(
    store: Driver, clock: VirtualClock
) -> None:
    async with (
        clock.running(),
        recovering(store, make_flows(anyio.Event(), anyio.Event()), clock) as engine,
    ):
        timed = Transit(State("order-1"), "quick", timeout=60, on_timeout="late")
        (state,) = await engine.do(Commit(timed))
        ended = await engine.execute(state)

        (pause,) = await engine.do(Commit(Pause(State("later"), "late", timeout=120)))
        await engine.wait(pause.id, Status.ENDED)  # a minute after the other's timeout
        assert ended == await engine.get("order-1")
        assert ended.transition.reason == "in time"


def make_payment() -> Flows:
    flows = Flows()

    @flows.flow
    async def order(state: State, engine: Engine) -> Command:
        return Commit(Pause(state, "paid", reason="payment", timeout=900, on_timeout="unpaid"))

    @flows.flow
    async def paid(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason=f"paid with {state.annotations['card']}"))

    @flows.flow
    async def unpaid(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="not paid in a quarter of an hour"))

    return flows


async def test_a_signal_that_comes_in_time_wins(store: Driver, clock: VirtualClock) -> None:
    async with clock.running(), recovering(store, make_payment(), clock) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "order")))
        waiting = await engine.execute(state)
        (signalled,) = await engine.do(Commit(Resume(waiting.with_annotations(card="visa"))))
        ended = await engine.execute(signalled)
        assert ended.transition.reason == "paid with visa"


async def test_a_signal_that_does_not_come_is_given_up_and_then_comes_too_late(
    store: Driver, clock: VirtualClock
) -> None:
    async with clock.running(), recovering(store, make_payment(), clock) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "order")))
        waiting = await engine.execute(state)
        ended = await engine.wait("order-1", Status.ENDED)
        assert ended.transition.reason == "not paid in a quarter of an hour"
        with pytest.raises(RevMismatchError):
            await engine.do(Commit(Resume(waiting.with_annotations(card="visa"))))
