"""A clock that is wrong for a while is survived: whatever waits goes on once it is right, within a
third of a lease, and nothing is done before its time or twice."""

from __future__ import annotations

from collections.abc import Awaitable

import anyio
import pytest
from attrs import define

from flowstate import (
    Cause,
    Command,
    Commit,
    Delay,
    Driver,
    DuePage,
    End,
    Engine,
    Flows,
    RetryPolicy,
    RevMismatchError,
    State,
    Status,
    Transit,
)
from flowstate.clock import pause
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import VirtualClock
from flowstate.testing.wrapper import WrapperDriver

from . import add, ends, history

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
LEASE = RetryPolicy(lease=6)
THIRD_MS = 2_000


class WrongClock:
    """A clock that may be set wrong, on top of one that is right."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.off_ms = 0

    def now(self) -> int:
        return self.clock.now() + self.off_ms

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        await self.clock.wait_until(instant - self.off_ms, event)


@pytest.fixture
def wrong(clock: VirtualClock) -> WrongClock:
    return WrongClock(clock)


async def rested(clock: VirtualClock, ms: int) -> None:
    end = clock.now() + ms
    while clock.now() < end:
        await clock.wait_until(end)


async def took(clock: VirtualClock, doing: Awaitable[object]) -> int:
    began = clock.now()
    await doing
    return clock.now() - began


async def set_clock(clock: VirtualClock, wrong: WrongClock, after_ms: int, off_ms: int) -> None:
    await rested(clock, after_ms)
    wrong.off_ms = off_ms


# ---------------------------------------------------------------- pauses


@pytest.mark.parametrize(
    ("first_ms", "then_ms"),
    [(0, -HOUR_MS), (0, HOUR_MS), (-HOUR_MS, 0), (HOUR_MS, 0), (HOUR_MS, -HOUR_MS)],
)
async def test_a_pause_takes_at_most_twice_as_long(
    store: Driver, clock: VirtualClock, wrong: WrongClock, first_ms: int, then_ms: int
) -> None:
    """If the clock is set wrong meanwhile, or was wrong when it began."""
    wrong.off_ms = first_ms
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(set_clock, clock, wrong, 300, then_ms)
        assert await took(clock, pause(wrong, 1_000)) <= 2_000
    assert await took(clock, pause(wrong, 1_000)) == 1_000


@pytest.mark.parametrize("off_ms", [-HOUR_MS, HOUR_MS])
async def test_the_grace_period_is_one(
    store: Driver, flows: Flows, clock: VirtualClock, wrong: WrongClock, off_ms: int
) -> None:
    """Also if the clock is set wrong in it."""

    async def work(state: State, engine: Engine) -> Command:
        await rested(clock, 10 * HOUR_MS)
        return Commit(End(state))

    flows.add("work", work)
    async with anyio.create_task_group() as tasks:
        async with Engine(store, flows, clock=wrong, retry=LEASE, grace=2) as engine:
            await engine.start(Commit(Transit(State("a"), "work")))
            await rested(clock, 1_000)
            tasks.start_soon(set_clock, clock, wrong, 500, off_ms)
            began = clock.now()
        assert clock.now() - began <= 4_000


async def test_sleeping_until_an_instant_ends_soon_after_the_clock_is_right(
    store: Driver, clock: VirtualClock, wrong: WrongClock
) -> None:
    async with Engine(store, clock=wrong) as engine, anyio.create_task_group() as tasks:
        instant = clock.now() + 5_000
        wrong.off_ms = -HOUR_MS
        tasks.start_soon(set_clock, clock, wrong, 500, 0)
        assert 5_000 <= await took(clock, engine.sleep_until(instant)) <= 10_000


async def test_a_flow_that_lost_a_race_is_run_again(
    store: Driver, flows: Flows, clock: VirtualClock, wrong: WrongClock
) -> None:
    """Although the clock is set back while it waits for that."""
    left = 6

    async def work(state: State, engine: Engine) -> Command:
        nonlocal left
        left -= 1
        if left:
            raise RevMismatchError({"other": (1, 2)})
        return Commit(End(state))

    flows.add("work", work)
    async with (
        Engine(store, flows, clock=wrong, chance=lambda: 1.0) as engine,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(set_clock, clock, wrong, 50, -HOUR_MS)  # it waits 4, 8, 16 and 32 ms
        assert 60 <= await took(clock, engine.execute(Commit(Transit(State("a"), "work")))) <= 92


# ---------------------------------------------------------------- leases and alarms


@pytest.mark.parametrize("off_ms", [-HOUR_MS, HOUR_MS])
async def test_a_clock_that_was_wrong_for_a_moment_costs_a_third_of_a_lease(
    store: Driver, flows: Flows, clock: VirtualClock, wrong: WrongClock, off_ms: int
) -> None:
    add(flows, "send", ends)
    async with (
        Engine(store, flows, clock=wrong, grace=0) as engine,
        Recoverer(engine, lease=6) as recoverer,
    ):
        await rested(clock, 1_000)
        assert recoverer.stats().term
        wrong.off_ms = off_ms
        await rested(clock, 2_000)
        wrong.off_ms = 0
        began = clock.now()
        await engine.do(Commit(Delay(State("mail"), "send", after=0.2)))
        await engine.wait("mail", Status.ENDED)
    assert clock.now() - began < 8_000  # by its lease it has to be elected again, at the worst


async def test_who_waits_for_a_dead_owner_goes_on_once_the_clock_is_right(
    store: Driver, flows: Flows, clock: VirtualClock, wrong: WrongClock
) -> None:
    """``execute``, in an engine whose clock was set back when it began to wait."""
    add(flows, "send", ends)
    async with Engine(store, flows, clock=clock, retry=LEASE) as other:
        (state,) = await other.do(Commit(Transit(State("a"), "send")))
        await store.claim({"send": 1}, 1, "dead", "claim", clock.now())
    async with Engine(store, flows, clock=wrong, retry=LEASE) as engine:
        async with anyio.create_task_group() as tasks:
            wrong.off_ms = -HOUR_MS
            tasks.start_soon(set_clock, clock, wrong, 500, 0)
            assert 5_900 <= await took(clock, engine.execute(state)) <= 6_000 + THIRD_MS
        assert [Cause.LOST] == [s.transition.cause for s in await history(engine, "a")][1:2]


@pytest.mark.parametrize("off_ms", [-HOUR_MS, HOUR_MS])
async def test_an_engine_keeps_what_it_runs(
    store: Driver, flows: Flows, clock: VirtualClock, wrong: WrongClock, off_ms: int
) -> None:
    """Another one whose clock is right leads all the while, and runs nothing of it: the clock was
    wrong for less than is left of a lease that was renewed in time."""

    async def work(state: State, engine: Engine) -> Command:
        await rested(clock, 60_000)
        return Commit(End(state))

    flows.add("work", work)
    async with (
        Engine(store, Flows(), clock=clock, retry=LEASE) as right,
        Recoverer(right, lease=6),
        Engine(store, flows, clock=wrong, retry=LEASE) as engine,
    ):
        await engine.start(Commit(Transit(State("a"), "work")))
        for _ in range(5):
            await rested(clock, 5_000)
            wrong.off_ms = off_ms
            await rested(clock, 1_000)
            wrong.off_ms = 0
        await engine.wait("a", Status.ENDED)
        assert [0, 0] == [state.transition.attempt for state in await history(engine, "a")]


async def test_a_clock_that_is_behind_fires_nothing_early_and_nothing_twice(
    store: Driver, flows: Flows, clock: VirtualClock, wrong: WrongClock
) -> None:
    """A leader whose clock falls behind again and again."""
    given = add(flows, "send", ends)
    async with Engine(store, flows, clock=wrong, retry=LEASE) as engine:
        began = clock.now()
        for n in range(20):
            await engine.do(Commit(Delay(State(f"{n}"), "send", after=n)))
        async with Recoverer(engine, lease=6):
            while clock.now() < began + 60_000:
                await rested(clock, 1_300)
                wrong.off_ms = 0 if wrong.off_ms else -HOUR_MS
            wrong.off_ms = 0
            for n in range(20):
                await engine.wait(f"{n}", Status.ENDED)
        assert sorted(str(n) for n in range(20)) == sorted(state.id for state in given)
        for n in range(20):
            assert (await history(engine, f"{n}"))[1].committed_at >= began + 1_000 * n


@define(eq=False)
class SetsClockBack(WrapperDriver):
    """While it is looked for the first time at what is due, the clock is set back; soon after, it
    is right again."""

    clock: VirtualClock
    wrong: WrongClock
    looks: int = 0

    async def due(self, until: int, limit: int) -> DuePage:
        self.looks += 1
        if self.looks == 1:
            self.wrong.off_ms = -HOUR_MS
        page = await self.driver.due(until, limit)
        await rested(self.clock, 100)
        return page


async def test_a_leader_whose_clock_is_set_back_while_it_looks_looks_again_soon(
    store: Driver, flows: Flows, clock: VirtualClock, wrong: WrongClock
) -> None:
    """What falls due afterwards is not late by more than a third of a lease."""
    add(flows, "send", ends)
    async with (
        Engine(SetsClockBack(store, clock, wrong), flows, clock=wrong, retry=LEASE) as engine,
        anyio.create_task_group() as tasks,
    ):
        await engine.do(Commit(Delay(State("a"), "send", after=4)))
        due_at = clock.now() + 4_000
        tasks.start_soon(set_clock, clock, wrong, 1_000, 0)
        async with Recoverer(engine, lease=6):
            await rested(clock, 8_000)  # nothing is committed that would wake it
            assert due_at <= (await engine.get("a")).committed_at <= due_at + THIRD_MS
