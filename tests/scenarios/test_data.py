"""Data: payloads that a state carries by reference."""

from __future__ import annotations

import pytest
from msgspec import Struct

from flowstate import Command, Commit, DataRef, Driver, End, Engine, Flows, State, Transit

pytestmark = pytest.mark.anyio


class Order(Struct, frozen=True):
    item: str
    count: int


async def test_data_that_one_flow_attaches_the_next_one_loads(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def take(state: State, engine: Engine) -> Command:
        return Transit(state.attach("order", Order("tea", 2)), "fill")  # not stored: in memory

    @flows.flow
    async def fill(state: State, engine: Engine) -> Command:
        order = await engine.data(state, "order", type=Order)
        return Commit(End(state, reason=f"{order.count} x {order.item}"))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "take")))
        state = await engine.execute(state)

        assert state.transition.reason == "2 x tea"


async def test_data_that_is_committed_is_loaded_from_the_store(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def take(state: State, engine: Engine) -> Command:
        return Commit(Transit(state.attach("order", Order("tea", 2)), "fill"))

    @flows.flow
    async def fill(state: State, engine: Engine) -> Command:
        order = await engine.data(state, "order", type=Order)
        return Commit(End(state, reason=f"{order.count} x {order.item}"))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "take")))
        state = await engine.execute(state)

        assert state.transition.reason == "2 x tea"
        assert isinstance(state.data["order"], DataRef)
        stored = await engine.get("order-1")
        assert await engine.data(stored, "order", type=Order) == Order("tea", 2)


async def test_configuration_is_stored_once_and_shared_by_its_reference(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def ping(state: State, engine: Engine) -> Command:
        config = await engine.data(state, "config", type=dict[str, str])
        return Commit(End(state, reason=config["host"]))

    async with Engine(driver, flows) as engine:
        config = State("config").attach("config", {"host": "example.org"})
        (config,) = await engine.do(Commit(End(config)))
        pings = [
            Transit(State(f"ping-{n}").attach("config", config.data["config"]), "ping")
            for n in (1, 2)
        ]
        started = await engine.do(Commit(*pings))
        ended = [await engine.execute(state) for state in started]

        assert [state.transition.reason for state in ended] == ["example.org", "example.org"]
        references = {state.data["config"] for state in (config, *ended)}
        assert len(references) == 1


async def test_bytes_come_back_as_they_were(driver: Driver) -> None:
    picture = bytes(range(256))

    async with Engine(driver) as engine:
        state = State("scan-1").attach("page", picture, content_type="image/png")
        (state,) = await engine.do(Commit(End(state)))

        assert await engine.data(state, "page") == picture
        assert state.data["page"].content_type == "image/png"
