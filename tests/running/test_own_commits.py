"""A flow that commits its own state itself holds it: it goes on with it, or leaves it to others."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Execute,
    Flows,
    InvalidValueError,
    Noop,
    Pause,
    Query,
    Require,
    RetryPolicy,
    State,
    Status,
    StoreError,
    Transit,
)
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import VirtualClock
from flowstate.testing.wrapper import WrapperDriver

from . import add, begin, dies_with, ends, history, ready

pytestmark = pytest.mark.anyio


@pytest.fixture
def policy() -> RetryPolicy:
    """A single attempt: one that is lost by mistake is seen."""
    return RetryPolicy(lease=10, max_attempts=1)


async def move(engine: Engine, state: State, to: str = "two") -> State:
    (moved,) = await engine.do(Commit(Transit(state, to)))
    return moved


async def test_execute_of_its_own_state_goes_on_with_it(engine: Engine, flows: Flows) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        moved, _ = await engine.do(Commit(Transit(state, "two"), Require(State("stop"))))
        return Execute(moved)

    add(flows, "two", ends)
    ended = await engine.execute(await begin(engine, "a", "one"))
    assert Status.ENDED is ended.transition.status


async def test_execute_of_its_own_state_may_carry_on_what_is_not_stored_yet(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        return Execute((await move(engine, state)).with_labels(seen="yes"))

    add(flows, "two", ends)
    ended = await engine.execute(await begin(engine, "a", "one"))
    assert {"seen": "yes"} == ended.labels


async def test_execute_of_its_own_state_at_rest_ends_the_execution(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        (paused,) = await engine.do(Commit(Pause(state)))
        return Execute(paused)

    rested = await engine.execute(await begin(engine, "a", "one"))
    assert Status.PAUSED is rested.transition.status


async def test_execute_of_an_older_version_of_its_own_state_runs_nothing(
    engine: Engine, flows: Flows
) -> None:
    """What the flow moved is the newest version, which is left to others."""
    given = add(flows, "two", ends)

    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await move(engine, state)
        return Execute(state)

    await engine.start(await begin(engine, "a", "one"))
    await engine.idle()
    assert 2 == (await engine.get("a")).rev
    assert [] == given


async def test_what_a_flow_moved_and_does_not_go_on_with_is_others_at_once(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await move(engine, state)
        return Noop()

    await engine.start(await begin(engine, "a", "one"))
    await engine.idle()
    assert ["a"] == await ready(engine, "two")


async def test_what_a_flow_moved_goes_on_in_a_recoverer_without_an_attempt(
    engine: Engine, flows: Flows, clock: VirtualClock
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await move(engine, state)
        return Noop()

    given = add(flows, "two", ends)
    async with Recoverer(engine):
        began = clock.now()
        await engine.start(await begin(engine, "a", "one"))
        await engine.wait("a", Status.ENDED)
    assert clock.now() - began < 1_000
    assert [0] == [state.transition.attempt for state in given]


async def test_what_a_flow_moved_is_gone_on_with_by_whoever_executes_it(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await move(engine, state)
        return Noop()

    add(flows, "two", ends)
    ended = await engine.execute(await begin(engine, "a", "one"))
    assert Status.ENDED is ended.transition.status


async def test_a_flow_that_waits_for_its_own_state_would_wait_for_ever(
    engine: Engine, flows: Flows
) -> None:
    """Nor for that of a flow which waits for it."""
    refused: list[str] = []

    @flows.flow
    async def outer(state: State, engine: Engine) -> Command:
        await engine.execute(Commit(Transit(State("b"), "inner")))
        return ends(state)

    @flows.flow
    async def inner(state: State, engine: Engine) -> Command:
        for id in ("a", "b"):
            for run in (engine.execute, engine.start):
                with pytest.raises(InvalidValueError, match="would wait for itself"):
                    await run(await engine.get(id))
                refused.append(id)
        return ends(state)

    ended = await engine.execute(await begin(engine, "a", "outer"))
    assert Status.ENDED is ended.transition.status
    assert ["a", "a", "b", "b"] == refused


async def test_an_error_counts_against_the_version_that_the_flow_left(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await move(engine, state)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await engine.execute(await begin(engine, "a", "one"))
    failed = (await engine.get("a")).transition
    assert ("two", Status.FAILED) == (failed.to, failed.status)


async def test_a_flow_that_raised_after_it_ended_its_state_leaves_it_ended(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await engine.do(Commit(End(state, "done")))
        raise ValueError("too late")

    with pytest.raises(ValueError, match="too late"):
        await engine.execute(await begin(engine, "a", "one"))
    assert "done" == (await engine.get("a")).transition.reason


async def test_what_a_cancelled_flow_had_moved_is_others_once_its_engine_is_left(
    store: Driver, flows: Flows, clock: VirtualClock, policy: RetryPolicy
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await move(engine, state)
        scope.cancel()
        await anyio.sleep_forever()
        raise AssertionError

    async with Engine(store, flows, clock=clock, retry=policy) as engine:
        with anyio.CancelScope() as scope:
            await engine.execute(await begin(engine, "a", "one"))
    async with Engine(store, clock=clock) as other:
        assert ["a"] == await ready(other, "two")


async def test_other_states_that_a_flow_commits_itself_are_not_run_by_it(
    engine: Engine, flows: Flows
) -> None:
    given = add(flows, "child", ends)

    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await engine.do(Commit(Transit(State("b"), "child")))
        return ends(state)

    await engine.execute(await begin(engine, "a", "one"))
    await engine.idle()
    assert [] == given


async def test_a_flow_that_moves_a_version_that_it_replaced_itself_has_failed(
    engine: Engine, flows: Flows
) -> None:
    """Nobody else was first: were that taken for a lost race, it would run for ever."""

    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        await move(engine, state, "one")
        return ends(state)

    async with Recoverer(engine):
        await engine.start(await begin(engine, "a", "one"))
        failed = await engine.wait("a", Status.FAILED)
    assert failed.transition.reason.startswith("gave up after 1 attempt: RevMismatchError: ")


async def test_a_bare_transit_to_a_flow_of_others_is_committed_and_theirs_at_once(
    engine: Engine, flows: Flows
) -> None:
    add(flows, "one", lambda state: Transit(state.with_labels(seen="yes"), "elsewhere"))
    await engine.start(await begin(engine, "a", "one"))
    await engine.idle()
    newest = await engine.get("a")
    assert ("elsewhere", {"seen": "yes"}) == (newest.transition.to, newest.labels)
    assert ["a"] == await ready(engine, "elsewhere")


async def test_what_was_never_committed_is_committed_where_its_flow_is_missing(
    engine: Engine,
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.execute, Transit(State("a"), "elsewhere"))
        await anext(engine.watch(Query(id="a")))
        assert ["a"] == await ready(engine, "elsewhere")
        tasks.cancel_scope.cancel()
    assert 1 == len(await history(engine, "a"))


async def test_what_a_flow_would_go_on_with_at_a_flow_of_others_is_theirs_at_once(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        return Execute(await move(engine, state, "elsewhere"))

    await engine.start(await begin(engine, "a", "one"))
    await engine.idle()
    assert ["a"] == await ready(engine, "elsewhere")
    assert 2 == len(await history(engine, "a"))


async def test_what_was_moved_in_memory_from_its_rest_is_committed_where_its_flow_is_missing(
    engine: Engine, flows: Flows
) -> None:
    add(flows, "one", lambda state: Transit(state, "elsewhere"))
    (paused,) = await engine.do(Commit(Pause(State("a"), "one")))
    await engine.start(Transit(paused, "one"))
    await engine.idle()
    assert ["a"] == await ready(engine, "elsewhere")


async def test_a_commit_to_a_flow_of_others_makes_no_further_version(
    engine: Engine, flows: Flows
) -> None:
    add(flows, "one", lambda state: Commit(Transit(state, "elsewhere")))
    await engine.start(await begin(engine, "a", "one"))
    await engine.idle()
    assert 2 == len(await history(engine, "a"))


async def test_a_flow_of_others_runs_there_with_the_cause_that_it_had(
    engine: Engine, store: Driver, flows: Flows, clock: VirtualClock, policy: RetryPolicy
) -> None:
    add(flows, "one", lambda state: Transit(state, "elsewhere"))
    elsewhere = Flows()
    given = add(elsewhere, "elsewhere", ends)
    async with (
        Engine(store, elsewhere, clock=clock, retry=policy, grace=0) as other,
        Recoverer(other),
    ):
        await engine.start(await begin(engine, "a", "one"))
        await other.wait("a", Status.ENDED)
    (ran,) = given
    assert (Cause.COMMAND, 0) == (ran.transition.cause, ran.transition.attempt)


@pytest.mark.parametrize("way", ["in memory", "by Execute", "in a commit"])
async def test_a_flow_with_a_limit_runs_no_more_than_that_however_it_is_come_to(
    engine: Engine, flows: Flows, way: str
) -> None:
    running = most = 0

    @flows.flow(limit=2)
    async def narrow(state: State, engine: Engine) -> Command:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        running -= 1
        return ends(state)

    @flows.flow
    async def one(state: State, engine: Engine) -> Command:
        if way == "in memory":
            return Transit(state, narrow)
        if way == "in a commit":
            return Commit(Transit(state, narrow))
        return Execute(await move(engine, state, "narrow"))

    for n in range(8):
        await engine.start(Commit(Transit(State(f"{n}"), one)))
    await engine.idle()
    assert 0 < most <= 2
    for n in range(8):
        assert Status.ENDED is (await engine.get(f"{n}")).transition.status


async def test_a_stale_move_in_memory_is_not_run(engine: Engine, flows: Flows) -> None:
    """The newest version counts: it has ended since."""
    given = add(flows, "one", ends)
    (paused,) = await engine.do(Commit(Pause(State("a"), "one")))
    (ended,) = await engine.do(Commit(End(paused)))
    assert ended == await engine.execute(Transit(paused, "one"))
    await engine.start(Transit(paused, "one"))
    await engine.idle()
    assert [] == given


async def test_who_waits_for_a_state_whose_owner_died_goes_on_with_it(
    engine: Engine, flows: Flows
) -> None:
    """Also where nobody leads."""
    add(flows, "one", ends)
    dead = await dies_with(engine, await begin(engine, "a", "one"))
    failed = await engine.execute(dead)
    assert Status.FAILED is failed.transition.status  # its only attempt was the dead one's


async def test_who_waits_for_a_state_is_told_of_the_store_by_its_own_error(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    """Not by a group of errors."""

    class Fails(WrapperDriver):
        is_broken = False

        async def wait(self, after: int) -> int:  # noqa: ARG002  (it only fails)
            self.is_broken = True
            raise StoreError("here", "is gone")

        async def get(self, id: str, rev: int | None = None) -> State | None:
            if self.is_broken:
                raise StoreError("here", "is gone")
            return await super().get(id, rev)

    async with Engine(Fails(store), flows, clock=clock) as engine:
        elsewhere = await begin(engine, "a", "elsewhere")
        with pytest.raises(StoreError, match="is gone"):
            await engine.execute(elsewhere)
