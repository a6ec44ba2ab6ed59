"""Leases: who works says so in time, at the least cost, and who lost its lease stops."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Command,
    Commit,
    Engine,
    Flows,
    Pause,
    Query,
    RetryPolicy,
    State,
    Status,
    StoreError,
    Transit,
)
from flowstate.drivers.memory import MemoryDriver
from flowstate.leases import Claimed, Held, Place, Renewal
from flowstate.plan import Plan
from flowstate.query import Unreadable
from flowstate.recovery import Worker
from flowstate.testing.cluster import Duty
from flowstate.testing.virtual import VirtualClock
from flowstate.testing.wrapper import WrapperDriver

from .conftest import Cluster

pytestmark = pytest.mark.anyio

POLICY = RetryPolicy(lease=9)


@define(eq=False)
class Renewals(WrapperDriver):
    """Notes every renewal, and fails while it is told to."""

    clock: VirtualClock
    calls: list[tuple[int, tuple[str, ...]]] = field(factory=list)
    """now, ids"""
    fails: bool = False

    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        assert now == self.clock.now()
        self.calls.append((now, tuple(id for id, _, _ in held)))
        if self.fails:
            raise StoreError("test", "the store is out")
        return await self.driver.renew(held, owner, now)


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
        await self.engine.start(Commit(Transit(State(id), "hang", **options)))  # type: ignore[arg-type]
        return await self.engine.get(id)

    async def until(self, id: str) -> int:
        """When the lease of a state ends."""
        place = await self.driver.place(id)
        assert place is not None
        assert place.until is not None
        return place.until


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
    assert [began + 3000, began + 6000, began + 9000] == [now for now, _ in bench.driver.calls]
    assert {500} == {len(ids) for _, ids in bench.driver.calls}


async def test_a_lease_is_renewed_well_before_it_runs_out(bench: Bench) -> None:
    """Two thirds of it are left for trouble, for as long as the flow takes."""
    state = await bench.begin("s")
    ends = state.committed_at + 9000
    for _ in range(3600):
        await sleep(bench.clock, 1)
        before, ends = ends, await bench.until("s")
        assert before - bench.clock.now() >= 5000
    assert bench.driver.calls


async def test_who_needs_no_renewal_yet_is_left_out(bench: Bench) -> None:
    """Each lease has its own beginning."""
    began = bench.clock.now()
    await bench.begin("a")
    await sleep(bench.clock, 2)
    await bench.begin("b")
    await sleep(bench.clock, 3.5)
    assert [(began + 3000, ("a",)), (began + 5000, ("b",))] == [
        (now, ids) for now, ids in bench.driver.calls
    ]


async def test_renewing_never_puts_a_timeout_off(bench: Bench) -> None:
    """A state is due at its alarm, if that is sooner than the end of its lease."""
    state = await bench.begin("s", timeout=10)
    await sleep(bench.clock, 9)
    assert state.transition.alarm is not None
    assert state.transition.alarm.at == (await bench.engine.timers.due(0)).next
    assert await bench.until("s") > state.transition.alarm.at


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
    for _ in range(60):
        await sleep(bench.clock, 1)
        assert await bench.until("s") - bench.clock.now() >= 2000
    assert bench.driver.calls
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
    assert [] == bench.ended
    assert await bench.until("s") > bench.clock.now() + 7000


async def test_a_frozen_executor_comes_back_to_one_winner(cluster: Cluster) -> None:
    """Stopped past its lease: the state runs elsewhere, and its own commit loses."""
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        end = engine.clock.now() + 4_000
        while engine.clock.now() < end:
            await engine.clock.wait_until(end)
        return Commit(Pause(state))

    frozen = cluster.begin("a", flows, Duty.WORK)
    await cluster.sleep(1)
    await cluster.engine.do(Commit(Transit(State("s"), "work")))
    await cluster.sleep(1)
    cluster.begin("b", flows)
    frozen.frozen_until = cluster.now + 30_000
    await cluster.sleep(60)
    log = [one.transition async for one in cluster.engine.states(Query(id="s"))]
    assert [(0, "running"), (1, "running"), (0, "paused")] == [
        (one.attempt, one.status.value) for one in log
    ]


async def test_what_is_never_retried_has_no_lease(bench: Bench) -> None:
    """A policy that is switched off has no lease: nothing is renewed."""
    off = RetryPolicy(enabled=False)
    await bench.engine.start(Commit(Transit(State("s", retry=off), "hang")))
    await sleep(bench.clock, 3600)
    assert [] == bench.driver.calls
    assert (await bench.driver.due(0, 0)).next is None
    place = await bench.driver.place("s")
    assert place == Place(None, bench.engine.owner)


# ---------------------------------------------------------------- what went astray


@define(eq=False)
class Unanswered(WrapperDriver):
    """The answers to claims are late, or lost."""

    clock: VirtualClock
    late_ms: int = 0
    loses: bool = False

    async def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        given = await self.driver.claim(room, limit, owner, claim, now)
        if given and self.late_ms:
            await sleep(self.clock, self.late_ms / 1000)
        if given and self.loses:
            self.loses = False
            raise StoreError("test", "the answer was lost")
        return given


async def test_what_was_claimed_is_not_given_back_while_the_answer_is_on_its_way() -> None:
    """What an engine has and does not run is given back at its renewals; but this it will run."""
    clock, ran = VirtualClock(), list[str]()
    driver = Unanswered(MemoryDriver(clock=clock), clock, late_ms=4_000)
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        place = await engine.timers.place(state.id)
        assert place is not None
        ran.append(place.owner)
        return Commit(Pause(state))

    flows.add("hang", hang)
    async with (
        clock.running(),
        driver,
        Engine(driver, flows, clock=clock, retry=POLICY, grace=0, owner="a") as engine,
    ):
        for n in range(9):  # each is renewed at another time
            await engine.start(Commit(Transit(State(f"h{n}"), "hang")))
            await sleep(clock, 0.2)
        async with Worker(engine):
            await engine.do(Commit(Transit(State("s"), "work")))
            await engine.wait("s", Status.PAUSED)
        assert ["a"] == ran


@define(eq=False)
class LateCommit(WrapperDriver):
    """What was committed is stored, and the answer comes when it may."""

    may_answer: anyio.Event = field(factory=anyio.Event)

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        written = await self.driver.commit(plan)
        await self.may_answer.wait()
        return written


async def test_the_answer_to_a_commit_stops_nothing_that_was_claimed_before_it_came() -> None:
    """The version that was committed is taken by then, by a worker of the same engine."""
    driver, flows = LateCommit(MemoryDriver()), Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        begun.set()
        await go_on.wait()
        return Commit(Pause(state))

    begun, go_on = anyio.Event(), anyio.Event()
    async with (
        driver,
        Engine(driver, flows) as engine,
        Worker(engine),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(engine.do, Commit(Transit(State("s"), "work")))
        await begun.wait()
        driver.may_answer.set()
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        rested = await engine.wait("s", Status.PAUSED)
        assert 2 == rested.rev


async def test_what_was_claimed_counts_as_run_from_the_answer_on() -> None:
    """Not only once its task runs: at a renewal in between it would seem astray."""
    flows = Flows()
    flows.add("hang", hang)
    async with MemoryDriver() as driver, Engine(driver, flows, grace=0) as engine:
        await engine.do(Commit(Transit(State("s"), "hang")))
        await engine.timers.claim({"hang": 1}, 1, lambda _: None)
        assert ["s"] == [state.id for state in engine.timers.executing()]


async def hang(state: State, engine: Engine) -> Command:
    await anyio.sleep_forever()
    raise AssertionError


async def test_what_was_claimed_and_not_heard_of_costs_no_attempt() -> None:
    """A worker whose claim had no answer gives back what it took, though it runs nothing."""
    clock = VirtualClock()
    driver = Unanswered(MemoryDriver(clock=clock), clock, loses=True)
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        return Commit(Pause(state))

    async with (
        clock.running(),
        driver,
        Engine(driver, flows, clock=clock, retry=POLICY) as engine,
        Worker(engine),
    ):
        (state,) = await engine.do(Commit(Transit(State("s"), "work")))
        paused = await engine.wait("s", Status.PAUSED)
        assert not driver.loses
        assert 2 == paused.rev
        assert paused.committed_at - state.committed_at < 1_000
