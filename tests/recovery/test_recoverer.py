"""Acting on what is due: promptly, fairly, within its bounds, and at no cost while nothing is."""

from __future__ import annotations

import anyio
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Delay,
    End,
    Engine,
    Flows,
    Pause,
    Query,
    State,
    Status,
    Transit,
)
from flowstate.recovery import LEADER_ID, Role
from flowstate.testing.cluster import Duty

from .conftest import Cluster

pytestmark = pytest.mark.anyio

TEN_YEARS_S = 10 * 365 * 24 * 3600


async def delayed(cluster: Cluster, id: str, after: float, to: str = "work") -> State:
    (state,) = await cluster.engine.do(Commit(Delay(State(id), to, after=after)))
    return state


async def history(cluster: Cluster, id: str) -> list[State]:
    return [state async for state in cluster.engine.states(Query(id=id))]


async def test_a_nearer_commit_wakes_it(cluster: Cluster) -> None:
    """It sleeps until the nearest due time, and a commit may bring a nearer one."""
    process = cluster.begin("a")
    await delayed(cluster, "far", TEN_YEARS_S)
    await cluster.sleep(1)
    near = await delayed(cluster, "near", 1.5)
    await cluster.heard("runs near")
    assert near.committed_at + 1500 == cluster.now
    assert (1, 0) == (process.recoverer.stats().fired, process.recoverer.stats().late_ms)


async def test_an_alarm_in_the_past_fires_at_once(cluster: Cluster) -> None:
    """No time goes by between its commit and its run, but the interval of looking."""
    cluster.begin("a")
    await cluster.sleep(1)
    state = await delayed(cluster, "s", 0)
    await cluster.heard("runs s")
    assert cluster.now - state.committed_at <= 2 * 10  # the leader looks, and the worker


async def test_a_far_alarm_is_kept(cluster: Cluster) -> None:
    """Ten years are a time like any other."""
    state = await delayed(cluster, "s", TEN_YEARS_S)
    await cluster.sleep(TEN_YEARS_S - 1)
    cluster.begin("a")
    await cluster.heard("runs s")
    assert state.committed_at + TEN_YEARS_S * 1000 == cluster.now


async def test_a_hundred_thousand_sleeping_states_cost_no_calls(cluster: Cluster) -> None:
    """While they sleep, the store hears from a recoverer as often as with none of them."""

    async def calls_of_an_hour() -> int:
        before = cluster.world.calls.total()
        await cluster.sleep(3600)
        return cluster.world.calls.total() - before

    cluster.begin("a")
    await cluster.heard("won")
    empty = await calls_of_an_hour()
    for n in range(1_000):
        delays = [Delay(State(f"s{n}/{m}"), "work", after=TEN_YEARS_S) for m in range(100)]
        await cluster.engine.do(Commit(*delays))
    await cluster.sleep(10)
    assert abs(await calls_of_an_hour() - empty) <= empty / 100


async def test_a_moved_state_never_sees_its_alarm(cluster: Cluster) -> None:
    """Whichever comes first wins: here, whoever ends it."""
    process = cluster.begin("a")
    state = await delayed(cluster, "s", 10)
    await cluster.sleep(9)
    await cluster.engine.do(Commit(End(state)))
    await cluster.sleep(10)
    assert (2, 0) == (len(await history(cluster, "s")), process.recoverer.stats().fired)


def _held(cluster: Cluster, *names: str) -> tuple[Flows, list[str], list[str]]:
    """Flows that take ten seconds; what runs now, and all that ever ran."""
    flows, running, ran = Flows(), list[str](), list[str]()
    for name in names:

        @flows.flow(name)
        async def hold(state: State, engine: Engine) -> Command:
            running.append(state.id)
            ran.append(state.id)
            await cluster.sleep(10)
            running.remove(state.id)
            return Commit(End(state))

    return flows, running, ran


async def test_it_runs_no_more_than_it_may(cluster: Cluster) -> None:
    """``concurrency`` is a bound; all the same everything is run in the end."""
    flows, running, ran = _held(cluster, "work")
    for n in range(50):
        await delayed(cluster, f"s{n}", 0)
    process = cluster.begin("a", flows, concurrency=7)
    await cluster.sleep(5)
    for _ in range(7):
        assert len(running) == process.recoverer.stats().running <= 7
        await cluster.sleep(10)
    await cluster.sleep(30)
    assert 50 == len(ran) == len(set(ran))


async def test_one_flow_does_not_starve_another(cluster: Cluster) -> None:
    """A thousand states of one flow are in line, and one of another that came last: it has the
    first place that comes free."""
    flows, _, ran = _held(cluster, "many", "few")
    for n in range(1_000):
        await delayed(cluster, f"m{n}", 0, "many")
    cluster.begin("a", flows, concurrency=10)
    await cluster.sleep(25)
    await delayed(cluster, "f", 0, "few")
    await cluster.sleep(6)
    assert "f" in ran
    assert 40 == len(ran)


@pytest.mark.parametrize("places", [1, 5])
async def test_timeouts_free_the_places_of_flows_that_hang(cluster: Cluster, places: int) -> None:
    """All places are held by flows that hang: their timeouts fire, and others have their turn."""
    flows = cluster.flows("a", "late")

    @flows.flow
    async def hang(state: State, engine: Engine) -> Command:
        await anyio.sleep_forever()
        raise AssertionError

    @flows.flow
    async def begin(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "hang", timeout=20, on_timeout="late"))

    for n in range(30):
        await delayed(cluster, f"s{n}", 0, "begin")
    cluster.begin("a", flows, concurrency=places)
    await cluster.heard("at late", 30)
    await cluster.sleep(1)
    for n in range(30):
        versions = await history(cluster, f"s{n}")
        assert Cause.ALARM is versions[-2].transition.cause
        hung = next(state for state in versions if state.transition.to == "hang")
        assert versions[-2].committed_at - hung.committed_at <= 20_100


async def test_a_timeout_fires_while_the_recoverer_itself_runs_the_state(cluster: Cluster) -> None:
    """It does not take its own execution for a reason to leave the state alone."""
    flows = cluster.flows("a", "late")

    @flows.flow
    async def hang(state: State, engine: Engine) -> Command:
        await anyio.sleep_forever()
        raise AssertionError

    @flows.flow
    async def begin(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "hang", timeout=5, on_timeout="late"))

    began = await delayed(cluster, "s", 1, "begin")
    cluster.begin("a", flows)
    with anyio.fail_after(10):
        await cluster.heard("runs s at late")
    assert began.committed_at + 6000 == cluster.now


async def test_alarms_of_flows_that_the_leader_lacks_are_fired(cluster: Cluster) -> None:
    """Firing needs no flow. What is fired waits, ready, for a process that has it; and as the
    leader fires only, it is not counted as run."""
    leader = cluster.begin("a", cluster.flows("a", "other"))
    state = await delayed(cluster, "s", 1)
    await cluster.sleep(600)
    _, fired = await history(cluster, "s")
    assert state.committed_at + 1000 == fired.committed_at
    assert (Cause.ALARM, 0) == (fired.transition.cause, fired.transition.attempt)
    assert await cluster.engine.timers.line() == {"work": fired.committed_at}
    came = cluster.now
    cluster.begin("b", duty=Duty.WORK)
    await cluster.heard("b: runs s at work (alarm)")
    assert came == cluster.now
    stats = leader.recoverer.stats()
    assert (Role.LEADER, 1, 0, 0) == (stats.role, stats.fired, stats.claimed, stats.retried)


async def test_one_that_only_leads_runs_nothing(cluster: Cluster) -> None:
    """With a concurrency of 0 it fires what is due, although it has the flow."""
    process = cluster.begin("a", duty=Duty.LEAD)
    await delayed(cluster, "s", 1)
    await cluster.engine.do(Commit(Transit(State("ready"), "work")))
    await cluster.sleep(600)
    stats = process.recoverer.stats()
    assert (Role.LEADER, 1, 0) == (stats.role, stats.fired, stats.claimed)
    assert not any("runs" in line for line in cluster.world.transcript.lines)
    cluster.begin("b", duty=Duty.WORK)
    await cluster.heard("b: runs s at work (alarm)")
    await cluster.heard("b: runs ready at work (command)")


async def test_the_timeout_of_what_is_ready_is_fired(cluster: Cluster) -> None:
    """A state that nobody runs has a place and an alarm; when its time is up, it is for the flow
    that the timeout leads to."""
    cluster.begin("a", cluster.flows("a", "late"))
    await cluster.heard("won")
    (state,) = await cluster.engine.do(
        Commit(Transit(State("s"), "work", timeout=5, on_timeout="late"))
    )
    await cluster.heard("runs s at late (alarm)")
    assert cluster.now - state.committed_at < 5_250


@pytest.mark.parametrize("flows", [1, 1_500])
async def test_an_alarm_costs_as_much_among_many_flows(cluster: Cluster, flows: int) -> None:
    """What the store is asked does not grow with the flows that a process has."""
    names = ["work", *(f"f{n}" for n in range(1, flows))]
    cluster.begin("a", cluster.flows("a", *names))
    await cluster.heard("won")
    await cluster.sleep(1)
    before = cluster.world.calls.copy()
    await delayed(cluster, "s", 0)
    await cluster.heard("runs s")
    await cluster.sleep(0.1)
    asked = cluster.world.calls - before
    assert {"commit": 2} == {name: n for name, n in asked.items() if name == "commit"}
    assert asked["claim"] <= 4
    assert asked["due"] <= 4
    assert asked.total() <= 25


async def test_stats_tell_what_it_did(cluster: Cluster) -> None:
    """Fired, claimed, gave up: each is counted as what it was."""
    flows = cluster.flows("a")

    @flows.flow
    async def fails(state: State, engine: Engine) -> Command:
        raise ValueError("always")

    process = cluster.begin("a", flows)
    await delayed(cluster, "fired", 1)
    await cluster.engine.do(Commit(Transit(State("ready"), "work")))
    await delayed(cluster, "gave up", 1, "fails")
    await cluster.engine.do(Commit(Pause(State("timed out"), "work", timeout=3)))
    await cluster.sleep(600)
    stats = process.recoverer.stats()
    assert (0, 1, 0) == (stats.retried, stats.gave_up, stats.running)
    assert 1 + 1 + 1 + 5 == stats.fired  # two alarms, the first run, and five retries
    assert 1 + stats.fired == stats.claimed
    assert 6 == stats.errors
    ended = await cluster.engine.get("gave up")
    assert "gave up after 6 attempts: ValueError: always" == ended.transition.reason


async def test_what_died_is_counted_as_retried(cluster: Cluster) -> None:
    """By the leader, whoever ran it."""
    leader = cluster.begin("a", duty=Duty.LEAD)
    flows, _, _ = _held(cluster, "work")
    worker = cluster.begin("b", flows, Duty.WORK)
    await cluster.engine.do(Commit(Transit(State("s"), "work")))
    await cluster.sleep(1)
    worker.kill()
    await cluster.sleep(60)
    assert (1, 0) == (leader.recoverer.stats().retried, leader.recoverer.stats().fired)


async def test_it_leaves_the_election_alone(cluster: Cluster) -> None:
    """The term's lease is nobody's flow: leaders come and go by election."""
    leader = cluster.begin("a")
    await cluster.heard("won")
    leader.kill()
    cluster.begin("b", cluster.flows("b", LEADER_ID), Duty.WORK)
    await cluster.sleep(600)
    election = await cluster.engine.get(LEADER_ID)
    assert (1, Status.RUNNING) == (election.rev, election.transition.status)


async def test_a_leader_that_works_keeps_its_term(cluster: Cluster) -> None:
    """The term stands under the owner of what it runs, and is not given back as if astray."""
    flows, _, ran = _held(cluster, "work")
    process = cluster.begin("a", flows)
    await cluster.heard("won")
    for n in range(20):
        await cluster.engine.do(Commit(Transit(State(f"s{n}"), "work")))
        await cluster.sleep(2)
    await cluster.sleep(20)
    assert (1, 20) == (process.recoverer.stats().term, len(ran))
