"""Calls: a flow has another state do something, and goes on when that has returned."""

from __future__ import annotations

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
    Query,
    Resume,
    State,
    Status,
    Transit,
)

pytestmark = pytest.mark.anyio


async def test_a_call_in_memory_is_never_stored(driver: Driver) -> None:
    """It is done again if the caller is: there is nothing else that it could go on from."""
    flows = Flows()

    @flows.flow
    async def order(state: State, engine: Engine) -> Command:
        payment = await engine.execute(Transit(State(f"{state.id}/payment"), "pay"))
        return Commit(End(state.with_labels(receipt=payment.transition.reason)))

    @flows.flow
    async def pay(state: State, engine: Engine) -> Command:
        return End(state, reason="receipt-7")

    async with Engine(driver, flows) as engine:
        state = await engine.execute(Commit(Transit(State("order-1"), "order")))

        assert state.labels == {"receipt": "receipt-7"}
        assert await driver.head() == state.rev == 2


async def test_a_call_with_commits_pauses_the_caller_and_resumes_it(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def order(state: State, engine: Engine) -> Command:
        payment = State(f"{state.id}/payment", annotations={"caller": state.id})
        return Commit(Pause(state, to="paid"), Transit(payment, "pay"))

    @flows.flow
    async def pay(state: State, engine: Engine) -> Command:
        caller = await engine.get(state.annotations["caller"])
        return Commit(End(state), Resume(caller.with_labels(paid="yes")))

    @flows.flow
    async def paid(state: State, engine: Engine) -> Command:
        assert state.transition.cause is Cause.RESUME
        return Commit(End(state))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "order")))
        await engine.start(state)
        state = await engine.wait("order-1", Status.ENDED)

        assert state.labels == {"paid": "yes"}
        trail = [version.transition.status async for version in engine.states(Query(id="order-1"))]
        assert trail == [Status.RUNNING, Status.PAUSED, Status.RUNNING, Status.ENDED]


async def test_a_call_through_a_watcher_keeps_the_caller_running(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def order(state: State, engine: Engine) -> Command:
        payment = State(f"{state.id}/payment", labels={"caller": state.id})
        (payment,) = await engine.do(Commit(Transit(payment, "pay")))
        await engine.start(payment)
        paid = Query(labels={"caller": state.id}, status=Status.ENDED)
        async with engine.watch(paid, after=payment.rev) as watcher:
            payment = await anext(watcher)
        return Commit(End(state.with_labels(receipt=payment.transition.reason)))

    @flows.flow
    async def pay(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="receipt-7"))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "order")))
        state = await engine.execute(state)

        assert state.labels == {"receipt": "receipt-7"}


async def test_a_call_can_be_as_plain_as_an_await(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def order(state: State, engine: Engine) -> Command:
        (payment,) = await engine.do(Commit(Transit(State(f"{state.id}/payment"), "pay")))
        payment = await engine.execute(payment)
        return Commit(End(state.with_labels(receipt=payment.transition.reason)))

    @flows.flow
    async def pay(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="receipt-7"))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "order")))
        state = await engine.execute(state)

        assert state.labels == {"receipt": "receipt-7"}
