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
from flowstate.recovery import PREFIX

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
    assert cluster.now - state.committed_at <= 5


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
    """A thousand due states of one flow, and one of another that came last: it runs at once."""
    flows, _, ran = _held(cluster, "many", "few")
    for n in range(1_000):
        await delayed(cluster, f"m{n}", 0, "many")
    cluster.begin("a", flows, concurrency=10)
    await cluster.sleep(25)
    await delayed(cluster, "f", 0, "few")
    await cluster.sleep(1)
    assert "f" in ran
    assert len(ran) < 100


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


async def test_a_group_without_the_flow_leaves_the_state_alone(cluster: Cluster) -> None:
    """Its leader has other flows; the state waits for a group that has it."""
    process = cluster.begin("a", cluster.flows("a", "other"))
    await delayed(cluster, "s", 1)
    await cluster.sleep(600)
    assert (1, 0) == (len(await history(cluster, "s")), process.recoverer.stats().fired)
    cluster.begin("b", group="has it")
    await cluster.heard("b: runs s")


async def test_a_released_state_is_left_to_an_engine_with_its_flow(cluster: Cluster) -> None:
    """A due time is listed for the flow that a timeout leads to, if that comes before the lease
    ends. Who has only that flow does not take the state for its own, until its time is up."""
    process = cluster.begin("a", cluster.flows("a", "late"))
    await cluster.heard("won")
    async with Engine(cluster.world.store, clock=cluster.world.clock) as engine:
        (state,) = await engine.do(
            Commit(Transit(State("s"), "work", timeout=5, on_timeout="late"))
        )
        await engine.start(state)  # it lacks the flow, so it gives the lease up
        await engine.idle()
    await cluster.sleep(4)
    calls = cluster.world.calls.total()
    assert (1, 0) == (len(await history(cluster, "s")), process.recoverer.stats().taken_over)
    with anyio.fail_after(10):
        await cluster.heard("runs s at late (alarm)")
    assert cluster.now - state.committed_at < 5_250
    assert calls < 300


async def test_stats_tell_what_it_did(cluster: Cluster) -> None:
    """Fired, retried, gave up: each is counted as what it was."""
    flows = cluster.flows("a")

    @flows.flow
    async def fails(state: State, engine: Engine) -> Command:
        raise ValueError("always")

    process = cluster.begin("a", flows)
    await delayed(cluster, "fired", 1)
    await cluster.engine.do(Commit(Transit(State("retried"), "work")))
    await delayed(cluster, "gave up", 1, "fails")
    await cluster.engine.do(Commit(Pause(State("timed out"), "work", timeout=3)))
    await cluster.sleep(600)
    stats = process.recoverer.stats()
    assert (1, 1, 0) == (stats.retried, stats.gave_up, stats.running)
    assert 1 + 1 + 1 + 5 == stats.fired  # two alarms, the first run, and five retries
    assert 6 == stats.errors
    ended = await cluster.engine.get("gave up")
    assert "gave up after 6 attempts: ValueError: always" == ended.transition.reason


async def test_it_leaves_groups_alone(cluster: Cluster) -> None:
    """The term's lease is nobody's flow: leaders come and go by election."""
    leader = cluster.begin("a")
    await cluster.heard("won")
    leader.kill()
    cluster.begin("b", group="another")
    await cluster.sleep(600)
    group = await cluster.engine.get(f"{PREFIX}default")
    assert (1, Status.RUNNING) == (group.rev, group.transition.status)
