"""Policies: a state goes by the policy of the engine that committed it, whoever acts on it."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import anyio
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
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.leases import Place
from flowstate.plan import Plan, Write
from flowstate.testing.virtual import VirtualClock

from . import history, recovering

pytestmark = pytest.mark.anyio

ONCE = RetryPolicy(lease=10, max_attempts=1, on_give_up="sorry")
PATIENT = RetryPolicy(lease=20, max_attempts=3, backoff=7)
LEADERS = RetryPolicy(lease=500, max_attempts=50, backoff=100)


async def boom(state: State, engine: Engine) -> Command:
    raise ValueError("boom")


async def finish(state: State, engine: Engine) -> Command:
    return Commit(End(state))


async def commit_and_die(
    store: Driver, clock: VirtualClock, policy: RetryPolicy, command: Transit | Pause
) -> None:
    """An engine of that policy commits a state, and whoever takes it dies."""
    async with Engine(store, clock=clock, retry=policy) as engine:
        (state,) = await engine.do(Commit(command))
    await store.take([(state.id, state.rev)], "the dead", "claim", clock.now())


def waits(log: list[State]) -> list[float]:
    """Seconds between two versions."""
    return [(after.committed_at - before.committed_at) / 1_000 for before, after in pairwise(log)]


async def test_what_is_lost_is_given_up_as_its_own_engine_would(
    store: Driver, clock: VirtualClock
) -> None:
    """Its lease ends when its engine's policy says; it is not tried again, as the leader's states
    would be, and goes where that policy has it go."""
    flows = Flows()
    flows.add("work", finish)
    flows.add("sorry", finish)
    async with clock.running():
        await commit_and_die(store, clock, ONCE, Transit(State("a"), "work"))
        async with recovering(store, flows, clock, retry=LEADERS) as leader:
            await leader.wait("a", Status.ENDED)
            begun, given_up, _ = log = await history(leader, "a")
    assert ("sorry", Cause.GAVE_UP) == (given_up.transition.to, given_up.transition.cause)
    assert begun.retry is None
    assert 10 <= waits(log)[0] < 11


async def test_what_raises_elsewhere_is_retried_as_its_own_engine_would(
    store: Driver, clock: VirtualClock
) -> None:
    """Also after several attempts: what a firing and a failure commit carries the policy on."""
    flows = Flows()
    flows.add("work", boom)
    async with clock.running():
        await commit_and_die(store, clock, PATIENT, Transit(State("a"), "work"))
        async with recovering(store, flows, clock, retry=LEADERS) as leader:
            await leader.wait("a", Status.FAILED)
            log = await history(leader, "a")
    assert [
        (Status.RUNNING, Cause.COMMAND, 0),
        (Status.RUNNING, Cause.LOST, 1),
        (Status.DELAYED, Cause.RETRY, 2),
        (Status.RUNNING, Cause.RETRY, 2),
        (Status.FAILED, Cause.GAVE_UP, 2),
    ] == [(s.transition.status, s.transition.cause, s.transition.attempt) for s in log]
    assert [20, 0, 14, 0] == [int(wait) for wait in waits(log)]


async def test_an_alarm_fired_by_another_engine_goes_on_by_the_policy(
    store: Driver, clock: VirtualClock
) -> None:
    """The timeout of a pause leads to a flow that raises in the leader."""
    flows = Flows()
    flows.add("late", boom)
    flows.add("sorry", finish)
    paused = Pause(State("a"), to="work", timeout=timedelta(seconds=5), on_timeout="late")
    async with clock.running():
        await commit_and_die(store, clock, ONCE, paused)
        async with recovering(store, flows, clock, retry=LEADERS) as leader:
            await leader.wait("a", Status.ENDED)
            _, fired, given_up, _ = await history(leader, "a")
    assert ("late", Cause.ALARM) == (fired.transition.to, fired.transition.cause)
    assert ("sorry", Cause.GAVE_UP) == (given_up.transition.to, given_up.transition.cause)


async def test_the_flow_for_what_was_given_up_goes_by_the_policy_too(
    store: Driver, clock: VirtualClock
) -> None:
    """The leader runs it at once, and its policy would try it fifty times."""
    flows = Flows()
    flows.add("work", boom)
    flows.add("sorry", boom)
    policy = RetryPolicy(lease=10, max_attempts=2, backoff=3, on_give_up="sorry")
    async with clock.running():
        await commit_and_die(store, clock, policy, Transit(State("a"), "work"))
        async with recovering(store, flows, clock, retry=LEADERS) as leader:
            await leader.wait("a", Status.FAILED)
            *_, last = await history(leader, "a")
    assert ("sorry", 1) == (last.transition.to, last.transition.attempt)


async def test_its_lease_is_as_long_in_another_engine(store: Driver, clock: VirtualClock) -> None:
    """Renewed too, it never is due later than its own engine's policy says; once its flow has
    committed it there, it has that engine's."""
    flows = Flows()
    running, go_on = anyio.Event(), anyio.Event()
    due: list[tuple[int, RetryPolicy | None]] = []

    async def look(engine: Engine) -> None:
        page = await store.due(2**62, 10)
        (found,) = [due for due in page.due if due.state.id == "a"]
        due.append((round((found.at - engine.clock.now()) / 1_000), found.policy))

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        running.set()
        await go_on.wait()
        await look(engine)
        return Commit(Transit(state, "more"))

    @flows.flow
    async def more(state: State, engine: Engine) -> Command:
        await look(engine)
        return Commit(End(state))

    async with clock.running():
        await commit_and_die(store, clock, PATIENT, Transit(State("a"), "work"))
        async with recovering(store, flows, clock, retry=LEADERS) as leader:
            await running.wait()
            await leader.sleep_until(clock.now() + 100_000)
            go_on.set()
            await leader.wait("a", Status.ENDED)
            log = await history(leader, "a")
    assert [Status.RUNNING, Status.RUNNING, Status.RUNNING, Status.ENDED] == [
        state.transition.status for state in log
    ]
    (left, policy), committed = due
    assert PATIENT == policy
    assert 20 * 2 / 3 - 1 <= left <= 20
    assert (500, LEADERS) == committed


async def test_a_state_with_its_own_policy_has_none_beside_it(
    store: Driver, clock: VirtualClock
) -> None:
    own = State("a", retry=PATIENT)
    async with clock.running():
        await commit_and_die(store, clock, ONCE, Transit(own, "work"))
        (found,) = (await store.due(2**62, 10)).due
    assert (PATIENT, None) == (found.state.retry, found.policy)


async def test_a_version_without_a_policy_goes_by_that_of_who_acts_on_it(
    store: Driver, clock: VirtualClock
) -> None:
    """As those that flowstate 0.1 committed, and those that are committed by a plan of one's
    own."""
    flows = Flows()
    flows.add("work", finish)
    flows.add("sorry", finish)
    async with clock.running():
        async with Engine(store, clock=clock) as engine:
            running = await engine.do(Transit(State("a"), "work"))
        place = Place(None, "of 0.1", until=clock.now())
        await store.commit(Plan("of-0.1", (Write(running, place=place),)))
        async with recovering(store, flows, clock, retry=ONCE) as leader:
            await leader.wait("a", Status.ENDED)
            _, given_up, _ = await history(leader, "a")
    assert ("sorry", Cause.GAVE_UP) == (given_up.transition.to, given_up.transition.cause)
