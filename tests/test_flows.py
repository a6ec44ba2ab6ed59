"""Flows: what can be one, what it is called, and where it runs."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import anyio.from_thread
import msgspec
import pytest

from flowstate import (
    Command,
    Commit,
    Delay,
    End,
    Engine,
    Flow,
    FlowNotFoundError,
    Flows,
    InvalidValueError,
    Pause,
    RetryPolicy,
    State,
    Status,
    Transit,
    connect,
)
from flowstate.drivers.memory import MemoryDriver

from .helpers import begin

pytestmark = pytest.mark.anyio


async def end(state: State, engine: Engine) -> Command:
    return Commit(End(state))


async def documented(state: State, engine: Engine) -> Command:
    """What it does."""
    return Commit(End(state))


class AsyncCall:
    async def __call__(self, state: State, _: Engine) -> Command:
        return Commit(End(state, "called"))


class SyncCall:
    def __call__(self, state: State, _: Engine) -> Command:
        return Commit(End(state, "called"))


class Methods:
    async def run(self, state: State, _: Engine) -> Command:
        return Commit(End(state, "called"))


async def configured(reason: str, state: State, engine: Engine) -> Command:
    return Commit(End(state, reason))


# ---------------------------------------------------------------- names


def test_a_flow_is_named_after_its_function(flows: Flows) -> None:
    flows.flow(end)
    assert [flow.name for flow in flows] == ["end"]


def test_a_flow_may_be_given_another_name(flows: Flows) -> None:
    flows.flow("finish-it")(end)
    assert [flow.name for flow in flows] == ["finish-it"]


def test_a_class_is_named_after_itself_and_called_through_an_object(flows: Flows) -> None:
    @flows.flow
    class Refund:
        async def __call__(self, state: State, _: Engine) -> Command:
            return Commit(End(state))

    assert isinstance(flows["Refund"].function, Refund)


async def test_calling_a_flow_calls_its_function(flows: Flows) -> None:
    flow = flows.flow("other")(end)
    state = State("a")
    assert flow.name == "other"
    assert Commit(End(state)) == await flow(state, engine=Engine(MemoryDriver()))


def test_a_flow_looks_like_its_function(flows: Flows) -> None:
    flow = flows.flow("other")(documented)
    assert ("documented", "What it does.") == (flow.__name__, flow.__doc__)  # type: ignore[attr-defined]
    assert inspect.signature(documented) == inspect.signature(flow)
    assert documented is inspect.unwrap(flow)
    assert repr(flow) == f"Flow(name='other', function={documented!r})"


def test_a_function_that_has_attributes_of_its_own_changes_no_flow(flows: Flows) -> None:
    class Named:
        name = "another"

        def __init__(self) -> None:
            self.run = self.function = None

        def __call__(self, state: State, _: Engine) -> Command:
            return Commit(End(state))

    assert flows.add("it", Named()).name == "it"
    assert callable(flows["it"].run)


def test_a_decorated_class_stays_the_class(flows: Flows) -> None:
    assert flows.flow(SyncCall) is SyncCall
    assert flows.flow("other")(SyncCall) is SyncCall
    assert [flow.name for flow in flows] == ["SyncCall", "other"]


async def test_a_flow_may_be_registered_elsewhere_too(engine: Engine, flows: Flows) -> None:
    """Also one that is ``async def``: what is registered is its function, not the flow."""
    flow = flows.flow("again")(Flows().flow(end))
    assert flow.function is end
    state = await engine.execute(await begin(engine, "a", "again"))
    assert state.transition.status is Status.ENDED


# ---------------------------------------------------------------- in place of their names

NEW = State("a")


@pytest.mark.parametrize(
    ("by_flow", "by_name"),
    [
        (lambda flow: Transit(NEW, flow), Transit(NEW, "finish-it")),
        (
            lambda flow: Transit(NEW, "wait", timeout=1, on_timeout=flow),
            Transit(NEW, "wait", timeout=1, on_timeout="finish-it"),
        ),
        (lambda flow: Pause(NEW, to=flow), Pause(NEW, to="finish-it")),
        (
            lambda flow: Pause(NEW, timeout=1, on_timeout=flow),
            Pause(NEW, timeout=1, on_timeout="finish-it"),
        ),
        (lambda flow: Delay(NEW, to=flow, after=1), Delay(NEW, to="finish-it", after=1)),
        (lambda flow: RetryPolicy(on_give_up=flow), RetryPolicy(on_give_up="finish-it")),
    ],
    ids=["Transit", "its timeout", "Pause", "its timeout", "Delay", "RetryPolicy"],
)
def test_a_flow_stands_for_its_name(
    flows: Flows, by_flow: Callable[[Flow], object], by_name: object
) -> None:
    given = by_flow(flows.flow("finish-it")(end))
    assert by_name == given
    assert msgspec.to_builtins(by_name) == msgspec.to_builtins(given)  # the name itself is kept


@pytest.mark.parametrize(
    "no_flow", [end, SyncCall, SyncCall()], ids=["function", "class", "object"]
)
def test_what_was_not_registered_stands_for_no_name(no_flow: Any) -> None:
    problem = r"takes a flow or its name, not .*; decorate it with @flows\.flow, or give what"
    with pytest.raises(InvalidValueError, match=r"Transit\.to: " + problem):
        Transit(NEW, no_flow)
    with pytest.raises(InvalidValueError, match=r"Pause\.on_timeout: " + problem):
        Pause(NEW, timeout=1, on_timeout=no_flow)
    with pytest.raises(InvalidValueError, match=r"retry\.on_give_up: " + problem):
        RetryPolicy(on_give_up=no_flow)


def test_a_name_is_taken_once(flows: Flows) -> None:
    flows.flow(end)
    with pytest.raises(InvalidValueError, match="flow 'end': is already registered, by <function"):
        flows.flow(end)


@pytest.mark.parametrize("name", ["", "a\0b", "a\ud800b"])
def test_a_name_must_be_one_that_a_store_can_keep(flows: Flows, name: str) -> None:
    with pytest.raises(InvalidValueError, match="flow name: "):
        flows.add(name, end)


@pytest.mark.parametrize("function", [lambda: None, lambda _a: None, lambda _a, _b, _c: None])
def test_what_does_not_take_a_state_and_the_engine_is_no_flow(function: Any) -> None:
    """Else each of its attempts would be in vain."""
    flows = Flows()
    with pytest.raises(
        InvalidValueError, match=r"flow 'odd': is called with a state and the engin"
    ):
        flows.add("odd", function)
    assert "odd" not in flows.by_name


@pytest.mark.parametrize(
    "function", [lambda *_: None, lambda _a, _b, _c=1: None, functools.partial(end), max]
)
def test_what_can_be_called_with_two_may_be_one(function: Any) -> None:
    flows = Flows()
    assert flows.add("fine", function).name == "fine"


def test_what_cannot_be_called_is_no_flow(flows: Flows) -> None:
    with pytest.raises(InvalidValueError, match="flow 'five': takes a callable, not 5"):
        flows.add("five", 5)  # type: ignore[arg-type]


def test_what_has_no_name_must_be_given_one(flows: Flows) -> None:
    nameless = functools.partial(end)
    with pytest.raises(InvalidValueError, match=r"has no name; use flows\.add\(name, flow\)"):
        flows.flow(nameless)


def test_a_flow_that_is_not_there_is_an_error_that_names_those_that_are(flows: Flows) -> None:
    flows.flow(end)
    with pytest.raises(FlowNotFoundError, match=r"'ship' is not registered here \(registered: end"):
        flows["ship"]


def test_flows_of_several_modules_are_put_together(flows: Flows) -> None:
    other = Flows()
    other.flow("ship")(end)
    flows.flow(end)
    assert sorted(flow.name for flow in flows.include(other)) == ["end", "ship"]
    assert "ship" in flows
    assert len(flows) == 2


def test_flows_that_share_a_name_cannot_be_put_together(flows: Flows) -> None:
    other = Flows()
    other.flow(end)
    flows.flow(end)
    with pytest.raises(InvalidValueError, match="flow 'end': is in both"):
        flows.include(other)


# ---------------------------------------------------------------- where they run


async def thread_of(engine: Engine, flow: str, ran_in: list[int]) -> int:
    state = await engine.execute(await begin(engine, "a", flow))
    assert state.transition.status is Status.ENDED
    (thread,) = ran_in
    return thread


async def test_an_async_flow_runs_on_the_event_loop(engine: Engine, flows: Flows) -> None:
    ran_in: list[int] = []

    @flows.flow
    async def look(state: State, engine: Engine) -> Command:
        ran_in.append(threading.get_ident())
        return Commit(End(state))

    assert threading.get_ident() == await thread_of(engine, "look", ran_in)


async def test_a_sync_flow_runs_in_another_thread(engine: Engine, flows: Flows) -> None:
    ran_in: list[int] = []

    @flows.flow
    def look(state: State, engine: Engine) -> Command:
        ran_in.append(threading.get_ident())
        return Commit(End(state))

    assert threading.get_ident() != await thread_of(engine, "look", ran_in)


async def test_an_inline_flow_runs_on_the_event_loop(engine: Engine, flows: Flows) -> None:
    ran_in: list[int] = []

    @flows.flow(inline=True)
    def look(state: State, engine: Engine) -> Command:
        ran_in.append(threading.get_ident())
        return Commit(End(state))

    assert threading.get_ident() == await thread_of(engine, "look", ran_in)


async def test_a_sync_flow_may_use_the_engine_from_its_thread(engine: Engine, flows: Flows) -> None:
    @flows.flow
    def fork(state: State, engine: Engine) -> Command:
        anyio.from_thread.run(engine.do, Commit(End(State("child"))))
        return Commit(End(state))

    await engine.execute(await begin(engine, "a", "fork"))
    assert (await engine.get("child")).transition.status is Status.ENDED


@pytest.mark.parametrize(
    "flow",
    [
        AsyncCall(),
        SyncCall(),
        AsyncCall,
        SyncCall,
        Methods().run,
        functools.partial(configured, "called"),
        lambda state, _: Commit(End(state, "called")),
    ],
    ids=["object", "sync object", "class", "sync class", "method", "partial", "lambda"],
)
async def test_whatever_can_be_called_with_a_state_and_an_engine_is_a_flow(
    engine: Engine, flows: Flows, flow: Any
) -> None:
    flows.add("it", flow)
    state = await engine.execute(await begin(engine, "a", "it"))
    assert state.transition.reason == "called"


async def test_a_flow_that_is_registered_later_is_found(engine: Engine, flows: Flows) -> None:
    state = await begin(engine, "a", "late")
    flows.flow("late")(end)
    assert (await engine.execute(state)).transition.status is Status.ENDED


async def test_sync_flows_run_at_once_up_to_max_threads(flows: Flows) -> None:
    """As many threads as the engine may have; no flow waits for the one before it."""
    meeting = threading.Barrier(3)

    @flows.flow
    def meet(state: State, engine: Engine) -> Command:
        meeting.wait(timeout=5)  # breaks, and raises, unless three are here at once
        return Commit(End(state))

    async with connect("memory:") as driver, Engine(driver, flows, max_threads=3) as engine:
        states = await engine.do(Commit(*(Transit(State(f"s{n}"), "meet") for n in range(3))))
        for state in states:
            await engine.start(state)
        for state in states:
            await engine.wait(state.id, Status.ENDED)
        assert engine.threads.total_tokens == 3
