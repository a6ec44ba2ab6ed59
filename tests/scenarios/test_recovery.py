"""Recovery: whatever was committed in a running state ends or rests, whoever dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import anyio
import pytest
from attrs import define

from flowstate import (
    Cause,
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    Plan,
    RetryPolicy,
    State,
    Status,
    StoreError,
    Transit,
)
from flowstate.recovery import Recoverer, Worker
from flowstate.testing.faults import FaultDriver
from flowstate.testing.virtual import VirtualClock

from . import history, recovering

pytestmark = pytest.mark.anyio

R = TypeVar("R")
LEASE = RetryPolicy(lease=10)
ONCE = RetryPolicy(lease=10, max_attempts=1)


@define(eq=False)
class Cable(FaultDriver):
    """A store that can be cut off: for everybody else, this process is dead then."""

    is_cut: bool = False

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        self._check()
        return await self.driver.commit(plan)

    async def around(self, name: str, call: Callable[[], Awaitable[R]]) -> R:  # noqa: ARG002
        self._check()
        return await call()

    def _check(self) -> None:
        if self.is_cut:
            raise StoreError("the store", "the cable was cut")


async def finish(state: State, engine: Engine) -> Command:
    return Commit(End(state))


async def test_an_actor_outlives_its_lease_many_times(store: Driver, clock: VirtualClock) -> None:
    """Its engine renews the lease; recovery, which looks all the time, leaves it alone."""
    flows = Flows()

    @flows.flow
    async def actor(state: State, engine: Engine) -> Command:
        end = engine.clock.now() + 100 * 10_000
        while engine.clock.now() < end:
            await engine.clock.wait_until(end)
        return Commit(End(state, reason="of old age"))

    async with clock.running(), recovering(store, flows, clock, retry=LEASE) as engine:
        (state,) = await engine.do(Commit(Transit(State("actor"), "actor")))
        await engine.execute(state)
        begun, ended = await history(engine, "actor")
        assert (begun.transition.attempt, ended.transition.reason) == (0, "of old age")


async def test_what_was_recorded_and_never_executed_is_run_at_once(
    store: Driver, clock: VirtualClock
) -> None:
    """Whoever committed it may have died before the next line: nothing is waited for, and no
    attempt is used up."""
    flows = Flows()
    flows.add("finish", finish)
    async with clock.running(), recovering(store, flows, clock, retry=LEASE) as engine:
        began = clock.now()
        await engine.do(Commit(Transit(State("order-1"), "finish")))
        await engine.wait("order-1", Status.ENDED)
        begun, _ = await history(engine, "order-1")
        assert (Cause.COMMAND, 0) == (begun.transition.cause, begun.transition.attempt)
        assert clock.now() - began < 1_000


async def test_two_recoverers_with_one_killed(store: Driver, clock: VirtualClock) -> None:
    """The other takes the term and the states when their leases have run out."""
    running = anyio.Event()
    flows, dying = Flows(), Flows()
    flows.add("work", finish)

    @dying.flow
    async def work(state: State, engine: Engine) -> Command:
        running.set()
        await anyio.sleep_forever()
        raise AssertionError

    cable = Cable(store, [])
    first = Engine(cable, dying, clock=clock, retry=LEASE, grace=0)
    second = Engine(store, flows, clock=clock, retry=LEASE, grace=0)
    leads = anyio.Event()
    async with (
        clock.running(),
        first,
        second,
        Recoverer(first, tell=lambda *_: leads.set()) as one,
    ):
        await leads.wait()
        async with Recoverer(second) as other:
            await first.start(Commit(Transit(State("order-1"), "work")))
            await running.wait()
            term, killed = one.stats().term, clock.now()
            cable.is_cut = True

            await second.wait("order-1", Status.ENDED)
            _, again, _ = await history(second, "order-1")
            assert again.transition.cause is Cause.LOST
            assert again.committed_at - killed < 11_000  # the lease and a second
            assert other.stats().term > term
            assert one.stats().term == 0  # it no longer trusts itself


async def test_a_clean_hand_over_goes_on_at_once(store: Driver, clock: VirtualClock) -> None:
    """Whoever is left gives up term and leases; nobody waits for them to run out, and no attempt
    is used up: here there is but one."""
    running, leave = anyio.Event(), anyio.Event()
    flows, leaving = Flows(), Flows()
    flows.add("work", finish)

    @leaving.flow
    async def work(state: State, engine: Engine) -> Command:
        running.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def lead_and_leave() -> None:
        async with recovering(store, leaving, clock, retry=ONCE) as engine:
            await engine.do(Commit(Delay(State("order-1"), "work", after=1)))
            await leave.wait()

    async with clock.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(lead_and_leave)
        await running.wait()  # it leads, then: the alarm has fired
        async with recovering(store, flows, clock, retry=ONCE) as engine:
            left = clock.now()
            leave.set()
            await engine.wait("order-1", Status.ENDED)
            assert clock.now() - left < 1_000
            log = await history(engine, "order-1")
            causes = [state.transition.cause for state in log]
            assert causes == [Cause.COMMAND, Cause.ALARM, Cause.COMMAND]


async def test_alarms_fire_for_flows_that_only_others_have(
    store: Driver, clock: VirtualClock
) -> None:
    """Whoever leads fires all of them; what it has no flow for is ready for who has."""
    letters, bills = Flows(), Flows()
    letters.add("send", finish)
    bills.add("charge", finish)
    async with clock.running(), recovering(store, letters, clock) as engine:
        await engine.do(Commit(Delay(State("bill"), "charge", after=1)))
        await engine.do(Commit(Delay(State("letter"), "send", after=60)))
        await engine.wait("letter", Status.ENDED)
        bill = await engine.get("bill")
        assert (Cause.ALARM, Status.RUNNING) == (bill.transition.cause, bill.transition.status)
        assert list(await engine.timers.line()) == ["charge"]

        came = clock.now()
        async with Engine(store, bills, clock=clock) as other, Worker(other):
            await engine.wait("bill", Status.ENDED)
            assert clock.now() - came < 1_000


async def test_a_flow_that_leads_to_another_process_goes_on_there_at_once(
    store: Driver, clock: VirtualClock
) -> None:
    """An engine that lacks the next flow leaves the state ready, which is no attempt."""
    letters, bills = Flows(), Flows()
    bills.add("charge", finish)

    @letters.flow
    async def send(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "charge"))

    async with (
        clock.running(),
        recovering(store, letters, clock) as engine,
        Engine(store, bills, clock=clock, grace=0) as other,
        Worker(other),
    ):
        began = clock.now()
        await engine.start(Commit(Transit(State("order-1", retry=ONCE), "send")))
        ended = await engine.wait("order-1", Status.ENDED)
        assert clock.now() - began < 1_000
        assert ended.transition.reason == ""


async def test_workers_share_what_is_ready(store: Driver, clock: VirtualClock) -> None:
    """Each of sixty orders is run by one of three, and by that one alone."""
    ran = list[tuple[str, str]]()
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        ran.append((state.id, engine.owner))
        await engine.sleep_until(engine.clock.now() + 1_000)
        return Commit(End(state))

    async with clock.running(), AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine(store, clock=clock))
        for name in "abc":
            worker = Engine(store, flows, clock=clock, grace=0, owner=name)
            await stack.enter_async_context(worker)
            await stack.enter_async_context(Worker(worker, concurrency=5))
        await engine.do(Commit(*[Transit(State(f"order-{n}"), "work") for n in range(60)]))
        for n in range(60):
            await engine.wait(f"order-{n}", Status.ENDED)
    assert 60 == len({id for id, _ in ran}) == len(ran)
    assert {"a", "b", "c"} == {owner for _, owner in ran}
