"""Flows in a row: a flow names the next one, with or without a commit in between."""

from __future__ import annotations

import pytest

from flowstate import Command, Commit, Driver, End, Engine, Flows, Query, State, Status, Transit

pytestmark = pytest.mark.anyio


async def test_one_flow_ends_its_state(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def greet(state: State, engine: Engine) -> Command:
        return Commit(End(state.with_annotations(greeting="hello")))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("visit-1"), "greet")))
        state = await engine.execute(state)

        assert state.transition.status is Status.ENDED
        assert state.annotations == {"greeting": "hello"}
        assert state == await engine.get("visit-1")


async def test_two_flows_in_a_row_without_a_commit_leave_no_trace_between(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def first(state: State, engine: Engine) -> Command:
        return Transit(state, "second")

    @flows.flow
    async def second(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("visit-1"), "first")))
        await engine.execute(state)

        trail = [version.transition.to async for version in engine.states(Query(id="visit-1"))]
        assert trail == ["first", ""]


async def test_two_flows_in_a_row_with_a_commit_keep_each_step(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def first(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "second"))

    @flows.flow
    async def second(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("visit-1"), "first")))
        await engine.execute(state)

        trail = [version.transition.to async for version in engine.states(Query(id="visit-1"))]
        assert trail == ["first", "second", ""]


async def test_three_flows_in_a_row_hand_on_what_they_add(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def pick(state: State, engine: Engine) -> Command:
        return Transit(state.with_annotations(picked="yes"), "pack")

    @flows.flow
    async def pack(state: State, engine: Engine) -> Command:
        return Commit(Transit(state.with_annotations(packed="yes"), "ship"))

    @flows.flow
    async def ship(state: State, engine: Engine) -> Command:
        return Commit(End(state.with_annotations(shipped="yes")))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("parcel-1"), "pick")))
        state = await engine.execute(state)

        assert state.annotations == {"picked": "yes", "packed": "yes", "shipped": "yes"}


async def test_three_flows_in_a_row_without_any_commit_never_touch_the_store(
    driver: Driver,
) -> None:
    flows = Flows()

    @flows.flow
    async def pick(state: State, engine: Engine) -> Command:
        return Transit(state, "pack")

    @flows.flow
    async def pack(state: State, engine: Engine) -> Command:
        return Transit(state, "ship")

    @flows.flow
    async def ship(state: State, engine: Engine) -> Command:
        return End(state, reason="shipped")

    async with Engine(driver, flows) as engine:
        state = await engine.do(Transit(State("parcel-1"), "pick"))
        state = await engine.execute(state)

        assert state.transition.reason == "shipped"
        assert await driver.head() == 0


@pytest.mark.parametrize(("amount", "expected"), [("5", "cheap"), ("500", "dear")])
async def test_a_condition_is_an_if_in_a_flow(driver: Driver, amount: str, expected: str) -> None:
    flows = Flows()

    @flows.flow
    async def decide(state: State, engine: Engine) -> Command:
        return Transit(state, "dear" if int(state.labels["amount"]) > 100 else "cheap")

    @flows.flow
    async def cheap(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="cheap"))

    @flows.flow
    async def dear(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="dear"))

    async with Engine(driver, flows) as engine:
        order = State("order-1", labels={"amount": amount})
        (order,) = await engine.do(Commit(Transit(order, "decide")))
        order = await engine.execute(order)

        assert order.transition.reason == expected
