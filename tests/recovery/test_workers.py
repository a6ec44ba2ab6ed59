"""Workers of several processes share what is ready: each state runs once, where its flow is, within
the bounds of each, and whatever the store or the flows do."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    End,
    Engine,
    Flows,
    InvalidValueError,
    Query,
    RetryPolicy,
    State,
    Status,
    StoreError,
    Transit,
)
from flowstate.recovery import Recoverer, Worker
from flowstate.testing.cluster import TERM_S, Duty, Process
from flowstate.testing.history import History, check
from flowstate.testing.places import Change

from .conftest import Cluster

pytestmark = pytest.mark.anyio


async def ready(cluster: Cluster, *ids: str, to: str = "work") -> None:
    """States that are committed for whoever works."""
    await cluster.engine.do(Commit(*[Transit(State(id), to) for id in ids]))


async def all_ended(cluster: Cluster, count: int) -> None:
    left = count
    async for _ in cluster.engine.watch(Query(status=Status.ENDED)):
        left -= 1
        if not left:
            return


def holding(cluster: Cluster, *names: str, seconds: float = 10) -> tuple[Flows, list[str]]:
    """Flows that take a while, and the states that they run now."""
    flows, running = Flows(), list[str]()
    for name in names:

        @flows.flow(name)
        async def hold(state: State, engine: Engine) -> Command:
            running.append(state.id)
            try:
                await cluster.sleep(seconds)
            finally:
                running.remove(state.id)
            return Commit(End(state))

    return flows, running


async def history(cluster: Cluster) -> History:
    world = cluster.world
    return History(
        log=tuple(await world.log()),
        changes=tuple(world.places.changes),
        calls=tuple(world.places.calls),
    )


# ---------------------------------------------------------------- sharing


async def test_a_thousand_jobs_over_three_engines(cluster: Cluster) -> None:
    """Each is run once, all have a fair part, and no commit loses a race."""
    for name in "abc":
        cluster.begin(name, holding(cluster, "work", seconds=0.1)[0], Duty.WORK)
    for n in range(100):
        await ready(cluster, *[f"s{n}/{m}" for m in range(10)])
    await all_ended(cluster, 1_000)
    world = cluster.world
    await cluster.sleep(1)
    assert {1} == set(Counter(call.id for call in world.places.calls).values())
    assert [] == check(await history(cluster))
    parts = Counter(call.owner for call in world.places.calls)
    assert ({"a", "b", "c"}, 1_000) == (set(parts), parts.total())
    assert min(parts.values()) > 100
    tried = {plan.commit_id for plan in world.plans}
    assert tried == {commit.commit_id for commit in world.acknowledged}
    assert {0} == {state.transition.attempt for state in await world.log()}


async def test_a_flow_that_no_living_worker_has_waits_ready(cluster: Cluster) -> None:
    """It uses up nothing while it waits, everybody can see that it does, and it goes on at once
    when somebody comes who has it."""
    process = cluster.begin("a", cluster.flows("a", "other"))
    state = (await cluster.engine.do(Commit(Transit(State("s"), "work"))))[0]
    await cluster.sleep(3600)
    assert {"work": state.committed_at} == await cluster.engine.timers.line()
    assert state == await cluster.engine.get("s")
    calls = cluster.world.calls["claim"]
    await cluster.sleep(3600)
    assert cluster.world.calls["claim"] - calls <= 3 * 3600 / TERM_S + 2  # a look at each third
    assert 0 == process.recoverer.stats().claimed
    came = cluster.now
    cluster.begin("b", duty=Duty.WORK)
    await cluster.heard("b: runs s at work (command)")
    assert came == cluster.now


async def test_a_worker_is_woken_at_once(cluster: Cluster) -> None:
    """It does not tick: what is committed by another process runs within a few milliseconds."""
    cluster.begin("a", duty=Duty.WORK)
    await cluster.sleep(1)
    for n in range(20):
        began = cluster.now
        await ready(cluster, f"s{n}")
        await cluster.heard(f"runs s{n} at")
        assert cluster.now - began <= 10
        await cluster.sleep(0.317)


# ---------------------------------------------------------------- fairness and bounds


async def test_flows_have_their_turns(cluster: Cluster) -> None:
    """Of each flow the first in line is taken before more of any."""
    flows, running = holding(cluster, "many", "few", "one")
    await ready(cluster, *[f"m{n}" for n in range(1_000)], to="many")
    await ready(cluster, "f0", "f1", to="few")
    await ready(cluster, "o", to="one")
    cluster.begin("a", flows, Duty.WORK, concurrency=4)
    await cluster.sleep(5)
    assert ["f0", "m0", "m1", "o"] == sorted(running)
    await cluster.sleep(10)
    assert ["f1", "m2", "m3", "m4"] == sorted(running)


async def test_no_more_is_claimed_than_can_begin(cluster: Cluster) -> None:
    """``concurrency`` bounds a worker, the places of its engine bound both: the rest stays in line
    for others."""
    flows, running = holding(cluster, "work")
    cluster.begin("a", flows, Duty.WORK, concurrency=3)
    cluster.begin("b", flows, Duty.WORK, concurrency=9, max_background=2)
    await ready(cluster, *[f"s{n}" for n in range(50)])
    await cluster.sleep(5)
    for _ in range(5):
        await cluster.sleep(10)
        held = Counter(each.place.owner for each in await cluster.engine.timers.holdings())
        assert ({"a": 3, "b": 2}, 5) == (held, len(running))
    cluster.begin("c", flows, Duty.WORK, concurrency=40)
    await cluster.sleep(10)
    assert len(running) > 15
    await cluster.sleep(100)
    assert [] == check(await history(cluster))


async def test_a_place_that_comes_free_is_used_at_once(cluster: Cluster) -> None:
    """Also one that is freed by what the engine runs besides."""
    flows, running = holding(cluster, "work")
    process = cluster.begin("a", flows, Duty.WORK, max_background=1)
    await cluster.sleep(1)
    await process.engine.start(Commit(Transit(State("mine"), "work")))
    await ready(cluster, "s")
    await cluster.sleep(5)
    assert ["mine"] == running
    await cluster.sleep(5.1)
    assert ["s"] == running


async def test_a_limit_of_a_flow_holds_for_claims(cluster: Cluster) -> None:
    """No more of it is claimed, and other flows have the places."""
    flows, running = holding(cluster, "other")

    @flows.flow(limit=2)
    async def few(state: State, engine: Engine) -> Command:
        running.append(state.id)
        await cluster.sleep(10)
        running.remove(state.id)
        return Commit(End(state))

    await ready(cluster, *[f"f{n}" for n in range(9)], to="few")
    await ready(cluster, "o0", "o1", to="other")
    cluster.begin("a", flows, Duty.WORK, concurrency=5)
    await cluster.sleep(5)
    assert ["f0", "f1", "o0", "o1"] == sorted(running)
    held = {each.id for each in await cluster.engine.timers.holdings()}
    assert set(running) == held


@pytest.mark.parametrize(
    "make", [lambda e: Worker(e, concurrency=0), lambda e: Recoverer(e, concurrency=-1)]
)
async def test_bounds_are_checked(cluster: Cluster, make: object) -> None:
    """A worker that runs nothing is a mistake; a recoverer that only leads is not."""
    with pytest.raises(InvalidValueError, match="concurrency"):
        make(cluster.engine)  # type: ignore[operator]
    assert 0 == Recoverer(cluster.engine, concurrency=0).concurrency


# ---------------------------------------------------------------- trouble


class OddError(Exception):
    """What no driver should raise."""


@pytest.mark.parametrize("error", [StoreError("the store", "is out"), OddError()])
@pytest.mark.parametrize("method", ["head", "wait", "claim", "due", "commit", "renew", "get"])
async def test_workers_and_recoverers_outlive_errors_of_the_store(
    cluster: Cluster, method: str, error: Exception
) -> None:
    """Of any kind and in any method: they go on when it is over, and do not spin meanwhile."""
    flows = cluster.flows("a")
    process = cluster.begin("a", flows.include(holding(cluster, "long", seconds=60)[0]))
    worker = cluster.begin("b", flows, Duty.WORK)
    await ready(cluster, *[f"l{n}" for n in range(10)], to="long")
    await cluster.heard("won")
    await cluster.sleep(1)
    cluster.world.errors[method] = error
    before = cluster.world.calls.total()
    await ready(cluster, "s")
    await cluster.sleep(15)
    assert cluster.world.calls.total() - before < 15 * 30
    del cluster.world.errors[method]
    await cluster.sleep(15)
    assert {False} == {process.is_dead, worker.is_dead}
    await ready(cluster, "t")
    with anyio.fail_after(60):
        await all_ended(cluster, 12)


async def test_leaving_with_many_commits_on_their_way_uses_no_attempts(cluster: Cluster) -> None:
    """Two hundred flows return their commits in the moment in which their engine is left."""
    flows, left = Flows(), anyio.Event()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        await left.wait()
        return Commit(Transit(state, "then"))

    flows.add("then", cluster.flows("a").by_name["work"])
    process = cluster.begin("a", flows, Duty.WORK, concurrency=200)
    await ready(cluster, *[f"s{n}" for n in range(200)])
    await cluster.sleep(1)
    left.set()
    process.told_to_leave.set()
    cluster.begin("b", cluster.flows("b", "work", "then"))
    with anyio.fail_after(60):
        await all_ended(cluster, 200)
    log = [state for state in await cluster.world.log() if state.id.startswith("s")]
    assert {(0, Cause.COMMAND)} == {(s.transition.attempt, s.transition.cause) for s in log}
    assert [] == check(await history(cluster))


async def test_a_state_that_kills_its_process_takes_few_others_with_it(cluster: Cluster) -> None:
    """It is tried again at once, and then after a backoff. What runs there with it is tried again
    as well: two deaths cost it two attempts, and then they are apart."""
    policy = RetryPolicy(lease=30, max_attempts=4, backoff=1)
    processes = list[Process]()
    flows = Flows()

    @flows.flow
    async def bad(state: State, engine: Engine) -> Command:
        next(each for each in processes if each.engine is engine).kill()
        await anyio.sleep_forever()
        raise AssertionError

    @flows.flow
    async def good(state: State, engine: Engine) -> Command:
        if state.transition.attempt < 2:  # it is in the middle of something
            await engine.sleep_until(engine.clock.now() + 100_000)
        return Commit(End(state))

    processes.append(cluster.begin("p0", flows))
    goods = [Transit(State(f"g{n}", retry=policy), "good") for n in range(15)]
    await cluster.engine.do(Commit(*goods))
    await cluster.sleep(1)
    await cluster.engine.do(Commit(Transit(State("bad", retry=policy), "bad")))
    while (await cluster.engine.get("bad")).transition.status is not Status.FAILED:
        await cluster.sleep(0.1)
        if processes[-1].is_dead:
            processes.append(cluster.begin(f"p{len(processes)}", flows))
    log = await cluster.world.log()
    assert 4 == sum(call.id == "bad" for call in cluster.world.places.calls)
    latest = {state.id: state for state in log}
    assert all(latest[f"g{n}"].transition.status is Status.ENDED for n in range(15))
    assert 2 == max(state.transition.attempt for state in log if state.id != "bad")
    again = [
        state.committed_at
        for state in log
        if (state.transition.attempt, state.transition.status) == (2, Status.RUNNING)
    ]
    assert max(again) - min(again) > 10_000


async def test_what_a_worker_that_leaves_had_goes_on_elsewhere_without_an_attempt(
    cluster: Cluster,
) -> None:
    """It is given back when the grace periods of worker and engine are over, and is ready at
    once."""
    flows, running = holding(cluster, "work", seconds=3600)
    process = cluster.begin("a", flows, Duty.WORK)
    await ready(cluster, "s0", "s1", "s2")
    await cluster.sleep(1)
    assert 3 == len(running)
    process.told_to_leave.set()
    left = cluster.now
    cluster.begin("b", duty=Duty.WORK)
    await cluster.heard("runs s", 3)
    assert cluster.now - left <= 2 * 2_000 + 10
    released = [c for c in cluster.world.places.changes if c.change is Change.RELEASED]
    assert {"s0", "s1", "s2"} == {change.id for change in released}
