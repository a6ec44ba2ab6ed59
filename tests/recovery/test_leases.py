"""Leases: who works says so in time, at the least cost, and who lost its lease stops."""

from __future__ import annotations

from collections.abc import Collection

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Command,
    Commit,
    Driver,
    Engine,
    Flows,
    Pause,
    Query,
    RetryPolicy,
    State,
    StoreError,
    Transit,
)
from flowstate.drivers.memory import MemoryDriver
from flowstate.testing.virtual import VirtualClock
from flowstate.testing.wrapper import WrapperDriver

from .conftest import Cluster

pytestmark = pytest.mark.anyio

POLICY = RetryPolicy(lease=9)


@define(eq=False)
class Renewals(WrapperDriver):
    """Notes every renewal, and fails while it is told to."""

    clock: VirtualClock
    calls: list[tuple[int, tuple[str, ...], int]] = field(factory=list)
    """now, ids, until"""
    fails: bool = False

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        self.calls.append((self.clock.now(), tuple(id for id, _ in leases), until))
        if self.fails:
            raise StoreError("test", "the store is out")
        return await self.driver.renew(leases, until)


@define(eq=False)
class Skewed:
    """The clock of another machine."""

    clock: VirtualClock
    ahead_ms: int = 0

    def now(self) -> int:
        return self.clock.now() + self.ahead_ms

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        await self.clock.wait_until(instant - self.ahead_ms, event)


@define
class Bench:
    clock: VirtualClock
    driver: Renewals
    store_clock: Skewed
    engine: Engine
    ended: list[str]

    async def begin(self, id: str, **options: float) -> State:
        (state,) = await self.engine.do(Commit(Transit(State(id), "hang", **options)))  # type: ignore[arg-type]
        await self.engine.start(state)
        return state


@pytest.fixture
async def bench() -> object:
    clock = VirtualClock()
    flows, ended = Flows(), list[str]()

    @flows.flow
    async def hang(state: State, engine: Engine) -> Command:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(state.id)
        raise AssertionError

    store_clock = Skewed(clock)
    driver = Renewals(MemoryDriver(clock=store_clock), clock)
    async with (
        clock.running(),
        driver,
        Engine(driver, flows, clock=clock, retry=POLICY, grace=0) as engine,
    ):
        yield Bench(clock, driver, store_clock, engine, ended)


async def sleep(clock: VirtualClock, seconds: float) -> None:
    await clock.wait_until(clock.now() + round(seconds * 1000))


async def test_all_leases_are_renewed_in_one_call(bench: Bench) -> None:
    """However many executions, the store hears of them once a third of a lease."""
    for n in range(500):
        await bench.begin(f"s{n}")
    began = bench.clock.now()
    await sleep(bench.clock, 10)
    assert [began + 3000, began + 6000, began + 9000] == [now for now, _, _ in bench.driver.calls]
    assert {500} == {len(ids) for _, ids, _ in bench.driver.calls}


async def test_a_lease_is_renewed_well_before_it_runs_out(bench: Bench) -> None:
    """Two thirds of it are left for trouble, for as long as the flow takes."""
    state = await bench.begin("s")
    ends = state.committed_at + 9000
    await sleep(bench.clock, 3600)
    for now, _, until in bench.driver.calls:
        assert ends - now >= 6000
        ends = until
    assert ends > bench.clock.now()


async def test_who_needs_no_renewal_yet_is_left_out(bench: Bench) -> None:
    """Each lease has its own beginning."""
    began = bench.clock.now()
    await bench.begin("a")
    await sleep(bench.clock, 2)
    await bench.begin("b")
    await sleep(bench.clock, 3.5)
    assert [(began + 3000, ("a",)), (began + 5000, ("b",))] == [
        (now, ids) for now, ids, _ in bench.driver.calls
    ]


async def test_a_lease_never_outlasts_the_timeout(bench: Bench) -> None:
    """Otherwise renewing would put the timeout off."""
    state = await bench.begin("s", timeout=10)
    await sleep(bench.clock, 9)
    assert state.transition.alarm is not None
    assert state.transition.alarm.at == max(until for _, _, until in bench.driver.calls)


async def test_who_lost_its_lease_stops(bench: Bench) -> None:
    """Somebody else moved the state, behind this engine's back."""
    state = await bench.begin("s")
    async with Engine(bench.driver.driver, clock=bench.clock) as other:
        await other.do(Commit(Pause(state)))
    moved = bench.clock.now()
    assert [] == bench.ended
    await sleep(bench.clock, 9)
    assert ["s"] == bench.ended
    assert bench.clock.now() == moved + 9000


@pytest.mark.parametrize("ahead_s", [-3600, -4, 4, 3600])
async def test_the_store_s_clock_may_be_another(bench: Bench, ahead_s: int) -> None:
    """Leases are counted by the engine's clock; the store's may be ahead of it, or behind."""
    bench.store_clock.ahead_ms = ahead_s * 1000
    state = await bench.begin("s")
    assert bench.clock.now() + ahead_s * 1000 == state.committed_at
    await sleep(bench.clock, 60)
    ends = bench.clock.now() - 60_000 + 9000
    assert bench.driver.calls
    for now, _, until in bench.driver.calls:
        assert ends - now >= 3000
        ends = until
    assert ends > bench.clock.now()
    assert len(bench.driver.calls) <= 60 / 3 + 1


async def test_a_store_that_fails_is_asked_again(bench: Bench) -> None:
    """An outage shorter than the lease costs nobody anything, and is not spun through."""
    await bench.begin("s")
    await sleep(bench.clock, 2)
    bench.driver.fails = True
    await sleep(bench.clock, 5)
    assert 1 < len(bench.driver.calls) <= 5 * 5
    bench.driver.fails = False
    await sleep(bench.clock, 1)
    assert ([], bench.clock.now() + 7000) <= (bench.ended, bench.driver.calls[-1][2])
    due = (await bench.engine.timers.due(["hang"], 0)).next_at
    assert due is not None
    assert due > bench.clock.now() + 7000


async def test_a_frozen_executor_comes_back_to_one_winner(cluster: Cluster) -> None:
    """Stopped past its lease: the state runs elsewhere, and its own commit loses."""
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        end = engine.clock.now() + 4_000
        while engine.clock.now() < end:
            await engine.clock.wait_until(end)
        return Commit(Pause(state))

    frozen = cluster.begin("a", flows, group="a")
    cluster.begin("b", flows, group="b")
    await cluster.heard("won", 2)
    (state,) = await frozen.engine.do(Commit(Transit(State("s"), "work")))
    await frozen.engine.start(state)
    await cluster.sleep(1)
    frozen.frozen_until = cluster.now + 30_000
    await cluster.sleep(60)
    log = [one.transition async for one in cluster.engine.states(Query(id="s"))]
    assert [(0, "running"), (1, "running"), (0, "paused")] == [
        (one.attempt, one.status.value) for one in log
    ]


async def test_leases_of_a_driver_are_its_own(bench: Bench) -> None:
    """A policy that is switched off has no lease: nothing is renewed."""
    off = RetryPolicy(enabled=False)
    (state,) = await bench.engine.do(Commit(Transit(State("s", retry=off), "hang")))
    await bench.engine.start(state)
    await sleep(bench.clock, 3600)
    assert [] == bench.driver.calls
    driver: Driver = bench.driver
    assert (await driver.due(0, ["hang"], 0)).next is None
