"""Leaving: waits of flows end as soon as it begins, and give their states back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import anyio
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    Engine,
    EngineClosedError,
    Flows,
    Plan,
    Query,
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.testing.virtual import VirtualClock
from flowstate.testing.wrapper import WrapperDriver

from . import begin, ends, history, ready

pytestmark = pytest.mark.anyio

ONCE = RetryPolicy(lease=10, max_attempts=1)
GRACE = 1_000
"""Longer than anything here takes (s): who waits for it is seen by the clock."""


async def watches(engine: Engine) -> None:
    async for _ in engine.watch(Query(id="never")):
        pass


async def waits(engine: Engine) -> None:
    await engine.wait("a", Status.ENDED)


async def sleeps(engine: Engine) -> None:
    await engine.sleep_until(engine.clock.now() + 10 * GRACE * 1_000)


WAITS = [watches, waits, sleeps]


@pytest.mark.parametrize("wait", WAITS)
async def test_leaving_takes_no_grace_period_for_a_flow_that_waits(
    store: Driver,
    flows: Flows,
    clock: VirtualClock,
    wait: Callable[[Engine], Coroutine[None, None, None]],
) -> None:
    running = anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        running.set()
        await wait(engine)
        raise AssertionError

    async with Engine(store, flows, clock=clock, retry=ONCE, grace=GRACE) as engine:
        begun = await begin(engine, "a", "work")
        await engine.start(begun)
        await running.wait()
        began = clock.now()
    assert clock.now() - began < 1_000
    async with Engine(store, clock=clock) as other:
        assert ["a"] == await ready(other, "work")
        assert [begun] == await history(other, "a")


@pytest.mark.parametrize("wait", WAITS)
async def test_a_wait_that_begins_while_the_engine_is_left_does_not_begin(
    store: Driver,
    flows: Flows,
    clock: VirtualClock,
    wait: Callable[[Engine], Coroutine[None, None, None]],
) -> None:
    running = anyio.Event()
    raised: list[type[BaseException]] = []

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        running.set()
        await engine.closing.wait()
        try:
            await wait(engine)
        except EngineClosedError as error:
            raised.append(type(error))
        return ends(state)

    async with Engine(store, flows, clock=clock, retry=ONCE, grace=GRACE) as engine:
        await engine.start(await begin(engine, "a", "work"))
        await running.wait()
    assert [EngineClosedError] == raised


async def test_a_flow_that_swallows_it_has_its_grace_period(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    running = anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        running.set()
        try:
            await engine.wait("a", Status.ENDED)
        except EngineClosedError:
            end = clock.now() + 60_000
            while clock.now() < end:
                await clock.wait_until(end)
        return ends(state)

    async with Engine(store, flows, clock=clock, retry=ONCE, grace=GRACE) as engine:
        await engine.start(await begin(engine, "a", "work"))
        await running.wait()
    async with Engine(store, clock=clock) as other:
        assert Status.ENDED is (await other.get("a")).transition.status


async def test_a_wait_outside_a_flow_goes_on_while_the_engine_is_left(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    """The state that it waits for ends within the grace period."""
    running = anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        running.set()
        await engine.closing.wait()
        return ends(state)

    waits = anyio.Event()
    seen: list[State] = []

    def has_ended(state: State) -> bool:
        waits.set()
        return state.transition.status is Status.ENDED

    async def wait(engine: Engine) -> None:
        seen.append(await engine.wait("a", has_ended))

    async with (
        anyio.create_task_group() as tasks,
        Engine(store, flows, clock=clock, retry=ONCE, grace=GRACE) as engine,
    ):
        await engine.start(await begin(engine, "a", "work"))
        tasks.start_soon(wait, engine)
        await running.wait()
        await waits.wait()
    assert ["a"] == [state.id for state in seen]


async def test_closing_is_not_set_before_the_engine_is_left(engine: Engine) -> None:
    assert not engine.closing.is_set()


# ---------------------------------------------------------------- commits on their way


class SlowDriver(WrapperDriver):
    """Holds each commit up until it is told to, once it was sent."""

    sent: anyio.Event
    answer: anyio.Event
    is_slow = False

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        if self.is_slow:
            self.sent.set()
            await self.answer.wait()
        return await super().commit(plan)


@pytest.fixture
def slow(store: Driver) -> SlowDriver:
    slow = SlowDriver(store)
    slow.sent, slow.answer = anyio.Event(), anyio.Event()
    return slow


@pytest.mark.parametrize("by", ["returned", "done"])
async def test_what_is_committed_while_its_flow_is_cancelled_is_what_is_given_back(
    slow: SlowDriver, store: Driver, flows: Flows, clock: VirtualClock, by: str
) -> None:
    """Else the version before were released, and the new one waited for its lease to run out."""

    @flows.flow
    async def returned(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "next"))

    @flows.flow
    async def done(state: State, engine: Engine) -> Command:
        await engine.do(Commit(Transit(state, "next")))
        await anyio.sleep_forever()
        raise AssertionError

    async def answer() -> None:
        await slow.sent.wait()
        await engine.closing.wait()
        slow.answer.set()

    async with (
        anyio.create_task_group() as tasks,
        Engine(slow, flows, clock=clock, retry=ONCE, grace=0) as engine,
    ):
        begun = await begin(engine, "a", by)
        slow.is_slow = True
        tasks.start_soon(answer)
        await engine.start(begun)
        await slow.sent.wait()
    async with Engine(store, clock=clock) as other:
        assert 2 == len(await history(other, "a"))
        assert ["a"] == await ready(other, by, "next")


async def test_a_flow_whose_caller_is_cancelled_while_its_attempt_is_committed_is_retried(
    slow: SlowDriver, flows: Flows, clock: VirtualClock
) -> None:
    @flows.flow
    async def fails(state: State, engine: Engine) -> Command:
        slow.is_slow = True
        raise ValueError("no")

    async def cancel(scope: anyio.CancelScope) -> None:
        await slow.sent.wait()
        scope.cancel()
        slow.answer.set()

    async with (
        anyio.create_task_group() as tasks,
        Engine(slow, flows, clock=clock, grace=0) as engine,
    ):
        begun = await begin(engine, "a", "fails")
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel, scope)
            with pytest.raises(ValueError, match="no"):
                await engine.execute(begun)
        assert Status.DELAYED is (await engine.get("a")).transition.status


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("by", ["returned", "done"])
async def test_what_asyncio_itself_cancels_knows_the_revision_that_it_holds(
    slow: SlowDriver, store: Driver, flows: Flows, clock: VirtualClock, by: str
) -> None:
    """``asyncio.wait_for`` around an execution cancels its task, and no scope shields from that."""

    @flows.flow
    async def returned(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "next"))

    @flows.flow
    async def done(state: State, engine: Engine) -> Command:
        await engine.do(Commit(Transit(state, "next")))
        raise AssertionError

    async with Engine(slow, flows, clock=clock, retry=ONCE, grace=0) as engine:
        begun = await begin(engine, "a", by)
        slow.is_slow = True
        execution = asyncio.create_task(engine.execute(begun))
        await slow.sent.wait()
        execution.cancel()
        slow.answer.set()
        with pytest.raises(asyncio.CancelledError):
            await execution
    async with Engine(store, clock=clock) as other:
        assert 2 == len(await history(other, "a"))
        assert ["a"] == await ready(other, by, "next")
