"""A flow that is held is begun by no worker of the store, and everybody sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Flow,
    Flows,
    InvalidValueError,
    Noop,
    Pause,
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.holds import HELD_ID
from flowstate.recovery import Recoverer, Worker
from flowstate.testing.virtual import TimedDriver, VirtualClock

from . import add, begin, ends, history, ready

pytestmark = pytest.mark.anyio

HEARD_MS = 20
"""By then every worker knows of a change."""


@pytest.fixture
async def other(
    store: Driver, flows: Flows, clock: VirtualClock, policy: RetryPolicy
) -> AsyncIterator[Engine]:
    """A second engine, with the same flows."""
    async with Engine(
        store, flows, clock=clock, retry=policy, grace=0, chance=lambda: 0.0
    ) as engine:
        yield engine


async def sleep(engine: Engine, ms: int) -> None:
    await engine.sleep_until(engine.clock.now() + ms)


async def hold(engine: Engine, *flows: str) -> None:
    """Hold these, and wait until everybody knows it."""
    for flow in flows:
        await engine.hold(flow)
    await sleep(engine, HEARD_MS)


def blocks(flows: Flows, name: str, make: Callable[[State], Command]) -> tuple[anyio.Event, ...]:
    """A flow that says that it has begun, and returns what is made of its state once it may."""
    begun, may_end = anyio.Event(), anyio.Event()

    @flows.flow(name)
    async def run(state: State, engine: Engine) -> Command:
        begun.set()
        await may_end.wait()
        return make(state)

    return begun, may_end


def raises(state: State) -> Command:
    raise ValueError("no luck")


# ---------------------------------------------------------------- what is not begun


async def test_no_worker_of_the_store_begins_with_a_held_flow(
    engine: Engine, other: Engine, flows: Flows
) -> None:
    """All else goes on; what waits is ready, uses up nothing, and is seen."""
    held, free = add(flows, "held", ends), add(flows, "free", ends)
    async with Worker(engine), Recoverer(other):
        await hold(engine, "held")
        state = await begin(engine, "a", "held")
        await begin(engine, "b", "free")
        await engine.wait("b", Status.ENDED)
        await sleep(engine, 600_000)
        assert ([], ["b"]) == (held, [given.id for given in free])
        assert [state] == await history(engine, "a")
        assert {"held": state.committed_at} == await other.timers.line()
        assert {"held": ""} == await other.held()


async def test_a_worker_that_comes_later_does_not_either(engine: Engine, flows: Flows) -> None:
    given = add(flows, "held", ends)
    await engine.hold("held")
    await begin(engine, "a", "held")
    async with Worker(engine):
        await sleep(engine, 60_000)
    assert not given


async def test_a_long_hold_costs_a_look_now_and_then(
    engine: Engine, store: TimedDriver, flows: Flows
) -> None:
    add(flows, "held", ends)
    add(flows, "fork", lambda state: Commit(End(state), Transit(State("b"), "held")))
    async with Worker(engine, look=10):
        await hold(engine, "held")
        await begin(engine, "a", "fork")
        await sleep(engine, 1_000)
        store.calls.clear()
        await sleep(engine, 600_000)
        assert 55 <= store.calls["claim"] <= 65
        assert sum(store.calls.values()) < 500


async def test_what_runs_goes_on_to_its_next_commit(
    engine: Engine, other: Engine, flows: Flows
) -> None:
    begun, may_end = blocks(flows, "held", lambda state: Commit(Transit(state, "next")))
    add(flows, "next", ends)
    async with Worker(engine), Worker(other):
        await begin(engine, "a", "held")
        await begun.wait()
        await hold(other, "held")
        may_end.set()
        await engine.wait("a", Status.ENDED)
        assert [0, 0, 0] == [state.transition.attempt for state in await history(engine, "a")]


@pytest.mark.parametrize("before", ["first", "held"])
@pytest.mark.parametrize("begins", ["start", "execute", "claim"])
async def test_what_a_flow_commits_to_a_held_flow_is_ready(
    engine: Engine, flows: Flows, clock: VirtualClock, before: str, begins: str
) -> None:
    """Its own state and forks alike, also if it is at that flow already, and whoever runs it."""
    begun, may_end = blocks(
        flows, before, lambda state: Commit(Transit(state, "held"), Transit(State("fork"), "held"))
    )
    if before != "held":
        add(flows, "held", ends)
    async with Worker(engine), anyio.create_task_group() as tasks:
        commit = Commit(Transit(State("a"), before))
        if begins == "claim":
            await engine.do(commit)
        else:
            run = engine.start if begins == "start" else engine.execute
            tasks.start_soon(run, commit)
        await begun.wait()
        await hold(engine, "held")
        may_end.set()
        await sleep(engine, 60_000)
        assert ["a", "fork"] == await ready(engine, "held")
        assert 2 == len(await history(engine, "a"))
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "make",
    [
        lambda state: Commit(Delay(state, "held", after=10)),
        lambda state: Commit(Pause(state, "elsewhere", timeout=10, on_timeout="held")),
        lambda state: Commit(Transit(state, "slow", timeout=10, on_timeout="held")),
    ],
)
async def test_an_alarm_that_leads_to_a_held_flow_fires_and_waits_ready(
    engine: Engine, flows: Flows, make: Callable[[State], Command]
) -> None:
    """Also that of what runs here."""
    given = add(flows, "held", ends)
    add(flows, "first", make)
    blocks(flows, "slow", ends)
    async with Recoverer(engine):
        await hold(engine, "held")
        await begin(engine, "a", "first")
        await sleep(engine, 11_000)
        state = await engine.get("a")
        assert (Status.RUNNING, "held") == (state.transition.status, state.transition.to)
        assert (["a"], []) == (await ready(engine, "held"), given)
        await sleep(engine, 600_000)
        assert (state, []) == (await engine.get("a"), given)
        await engine.release("held")
        await engine.wait("a", Status.ENDED)


async def test_a_retry_at_a_held_flow_waits_ready(engine: Engine, flows: Flows) -> None:
    begun, may_end = blocks(flows, "held", raises)
    async with Recoverer(engine):
        await begin(engine, "a", "held")
        await begun.wait()
        await hold(engine, "held")
        may_end.set()
        await sleep(engine, 600_000)
        state = await engine.get("a")
        assert (Cause.RETRY, 1) == (state.transition.cause, state.transition.attempt)
        assert ["a"] == await ready(engine, "held")


# ---------------------------------------------------------------- and what is begun again


async def test_a_release_wakes_workers_within_milliseconds(
    engine: Engine, other: Engine, flows: Flows
) -> None:
    given = add(flows, "held", ends)
    async with Worker(other, look=3_600):
        await hold(engine, "held")
        await begin(engine, "a", "held")
        await sleep(engine, 60_000)
        assert not given
        await engine.release("held")
        released = engine.clock.now()
        ended = await engine.wait("a", Status.ENDED)
        assert ended.committed_at - released <= HEARD_MS
        assert {} == await engine.held()


async def test_of_two_that_are_held_one_may_be_released(engine: Engine, flows: Flows) -> None:
    one, two = add(flows, "one", ends), add(flows, "two", ends)
    async with Worker(engine):
        await hold(engine, "one", "two")
        await begin(engine, "a", "one")
        await begin(engine, "b", "two")
        await engine.release("two")
        await engine.wait("b", Status.ENDED)
        await sleep(engine, 60_000)
    assert ([], 1) == (one, len(two))


# ---------------------------------------------------------------- what is run by hand


async def test_an_engine_without_a_worker_runs_a_held_flow_by_hand(
    engine: Engine, other: Engine, flows: Flows
) -> None:
    given = add(flows, "held", ends)
    async with Worker(other):
        await hold(other, "held")
        state = await engine.execute(await begin(engine, "a", "held"))
        assert Status.ENDED is state.transition.status
        state = await engine.execute(Commit(Transit(State("b"), "held")))
        assert Status.ENDED is state.transition.status
        await engine.start(await begin(engine, "c", "held"))
        await engine.wait("c", Status.ENDED)
    assert ["a", "b", "c"] == [state.id for state in given]


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("outcome", ["released", "ended"])
async def test_execute_in_an_engine_with_a_worker_waits(
    engine: Engine, other: Engine, flows: Flows, outcome: str, is_stored: bool
) -> None:
    """For the release, or until somebody has moved the state to where it rests."""
    given = add(flows, "held", ends)
    made: list[State] = []

    async def execute(work: State | Command[Any]) -> None:
        made.append(await engine.execute(work))

    async with Worker(engine), anyio.create_task_group() as tasks:
        await hold(engine, "held")
        move = Transit(State("a"), "held")
        tasks.start_soon(execute, (await engine.do(Commit(move)))[0] if is_stored else move)
        await sleep(engine, 60_000)
        assert not given
        assert not made
        if outcome == "released":
            await other.release("held")
        else:
            await other.do(Commit(End(await other.get("a"))))
        await sleep(engine, 1_000)
        tasks.cancel_scope.cancel()
    assert (Status.ENDED, outcome == "released") == (made[0].transition.status, bool(given))


@pytest.mark.parametrize("work", [Commit(Transit(State("a"), "held")), Transit(State("a"), "held")])
async def test_what_is_started_in_the_background_waits(
    engine: Engine, flows: Flows, work: Command[Any]
) -> None:
    """Also what was never committed."""
    given = add(flows, "held", ends)
    async with Worker(engine):
        await hold(engine, "held")
        await engine.start(work)
        await sleep(engine, 60_000)
        assert not given
        await engine.release("held")
        await sleep(engine, HEARD_MS)
        assert ["a"] == [state.id for state in given]


# ---------------------------------------------------------------- holding


async def test_many_who_hold_different_flows_at_the_same_moment_all_do(
    engine: Engine, other: Engine
) -> None:
    names = {f"flow {n}" for n in range(10)}
    async with anyio.create_task_group() as tasks:
        for n, name in enumerate(names):
            tasks.start_soon((engine, other)[n % 2].hold, name)
    assert names == (await engine.held()).keys()
    async with anyio.create_task_group() as tasks:
        for n, name in enumerate(names):
            tasks.start_soon((engine, other)[n % 2].release, name)
    assert {} == await engine.held()


async def test_to_hold_again_replaces_the_reason(engine: Engine, other: Engine) -> None:
    await engine.hold("held", "the bank is down")
    await engine.hold("also held", "so is this")
    await other.hold("held", "and out")
    assert {"held": "and out", "also held": "so is this"} == await engine.held()


async def test_what_changes_nothing_is_no_error_and_commits_nothing(engine: Engine) -> None:
    await engine.release("free")
    assert (0, {}) == (await engine.driver.head(), await engine.held())
    await engine.hold("held", "why")
    head = await engine.driver.head()
    await engine.hold("held", "why")
    await engine.release("free")
    assert head == await engine.driver.head()


async def test_a_flow_or_its_name(engine: Engine, flows: Flows) -> None:
    async def run(state: State, engine: Engine) -> Command:
        return Noop()

    flow: Flow = flows.add("held", run)
    await engine.hold(flow, "why")
    assert {"held": "why"} == await engine.held()
    await engine.release(flow)
    assert {} == await engine.held()


@pytest.mark.parametrize("flow", ["", None, 1, "\0", "\ud800", lambda: None])
async def test_what_names_no_flow_is_refused(engine: Engine, flow: Any) -> None:
    changes: list[Callable[[Any], Awaitable[None]]] = [engine.hold, engine.release]
    for change in changes:
        with pytest.raises(InvalidValueError, match=r"^flow: "):
            await change(flow)
    assert 0 == await engine.driver.head()


@pytest.mark.parametrize("reason", [None, 1, "\0", "\ud800"])
async def test_what_is_no_reason_is_refused(engine: Engine, reason: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^reason: "):
        await engine.hold("held", reason)
    assert {} == await engine.held()


async def test_the_state_of_the_holds_is_not_for_moving_by_hand(engine: Engine) -> None:
    await engine.hold("held")
    state = await engine.get(HELD_ID)
    with pytest.raises(InvalidValueError, match="as the kernel's own states do; choose another"):
        await engine.do(Commit(End(state)))
    assert {"held": ""} == await engine.held()
