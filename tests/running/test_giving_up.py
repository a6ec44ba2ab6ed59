"""Attempts and what comes after the last one: the flow for what was given up, or FAILED."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    Engine,
    Flows,
    Pause,
    Resume,
    RetryPolicy,
    State,
    Status,
    Transit,
    Transition,
)
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import VirtualClock

from . import add, begin, dies_with, ends, history, ready

pytestmark = pytest.mark.anyio


@pytest.fixture
def policy() -> RetryPolicy:
    return RetryPolicy(lease=10, max_attempts=2, backoff=1, on_give_up="undo")


@pytest.fixture(autouse=True)
def flow_that_fails(flows: Flows) -> None:
    @flows.flow
    async def fails(state: State, engine: Engine) -> Command:
        raise ValueError("no")


async def test_what_was_given_up_goes_on_at_the_flow_for_it(engine: Engine, flows: Flows) -> None:
    given = add(flows, "undo", ends)
    async with Recoverer(engine):
        await engine.start(await begin(engine, "a", "fails", annotations={"by": "ann"}))
        await engine.wait("a", Status.ENDED)
    (state,) = given
    assert state.transition.traceback.endswith("ValueError: no")
    assert (Cause.GAVE_UP, 0, {"by": "ann"}, "gave up after 2 attempts: ValueError: no") == (
        state.transition.cause,
        state.transition.attempt,
        state.transition.annotations,
        state.transition.reason,
    )


async def test_giving_up_at_the_flow_for_it_is_failed(engine: Engine, flows: Flows) -> None:
    @flows.flow
    async def undo(state: State, engine: Engine) -> Command:
        raise ValueError("not even that")

    async with Recoverer(engine):
        await engine.start(await begin(engine, "a", "fails"))
        failed = await engine.wait("a", Status.FAILED)
    assert ("undo", "gave up after 2 attempts: ValueError: not even that") == (
        failed.transition.to,
        failed.transition.reason,
    )


async def test_a_flow_for_what_was_given_up_may_be_another_engine_s(engine: Engine) -> None:
    async with Recoverer(engine):
        await engine.start(await begin(engine, "a", "fails"))
        await engine.wait("a", lambda state: state.transition.to == "undo")
        await engine.idle()
    assert ["a"] == await ready(engine, "undo")


async def test_without_such_a_flow_it_is_failed_where_it_was(engine: Engine, flows: Flows) -> None:
    async with Recoverer(engine):
        own = State("a", retry=RetryPolicy(max_attempts=2))
        (begun,) = await engine.do(Commit(Transit(own, "fails", {"by": "ann"}, timeout=600)))
        await engine.start(begun)
        failed = await engine.wait("a", Status.FAILED)
    assert failed.transition == Transition(
        to="fails",
        status=Status.FAILED,
        cause=Cause.GAVE_UP,
        attempt=1,
        reason="gave up after 2 attempts: ValueError: no",
        traceback=failed.transition.traceback,
        annotations={"by": "ann"},
    )


async def test_a_resumed_state_has_all_its_attempts_again(engine: Engine, store: Driver) -> None:
    async with Recoverer(engine):
        own = State("a", retry=RetryPolicy(max_attempts=2))
        (begun,) = await engine.do(Commit(Transit(own, "fails")))
        await engine.start(begun)
        failed = await engine.wait("a", Status.FAILED)
        (resumed,) = await engine.do(Commit(Resume(failed)))
        await engine.start(resumed)
        await engine.wait("a", Status.FAILED)
    log = [state.transition.attempt for state in await history(engine, "a")]
    assert [0, 1, 1, 1] * 2 == log


async def test_without_end_of_attempts_it_is_tried_again_and_again(
    engine: Engine, flows: Flows
) -> None:
    runs = 0

    @flows.flow
    async def stubborn(state: State, engine: Engine) -> Command:
        nonlocal runs
        runs += 1
        if runs <= 200:
            raise ValueError("not yet")
        return ends(state)

    own = State("a", retry=RetryPolicy(max_attempts=None, backoff=0.1, max_backoff=1))
    async with Recoverer(engine):
        (begun,) = await engine.do(Commit(Transit(own, "stubborn")))
        await engine.start(begun)
        await engine.wait("a", Status.ENDED)
    assert 201 == runs


# ---------------------------------------------------------------- deaths


async def test_after_a_death_the_first_retry_is_at_once_and_later_ones_wait(
    engine: Engine, clock: VirtualClock
) -> None:
    """Whoever takes it dies: its leases run out."""
    own = State("a", retry=RetryPolicy(lease=10, max_attempts=4, backoff=3))
    (begun,) = await engine.do(Commit(Transit(own, "work")))
    log = [begun]
    while (state := log[-1]).transition.status is not Status.FAILED:
        if state.transition.status is Status.RUNNING:
            await dies_with(engine, state)
        at = (await engine.timers.due(0)).next
        assert at is not None
        await engine.sleep_until(at)
        (due,) = (await engine.timers.due(10)).due
        fired = await engine.timers.fire(due)
        assert fired is not None, state
        log.append(fired)
    waits = [(after.committed_at - before.committed_at) // 1_000 for before, after in pairwise(log)]
    assert [
        *(Status.RUNNING, Status.RUNNING),
        *(Status.DELAYED, Status.RUNNING),
        *(Status.DELAYED, Status.RUNNING),
        Status.FAILED,
    ] == [state.transition.status for state in log]
    assert [10, 10, 3, 10, 6, 10] == waits


async def test_a_death_is_told_from_an_error(engine: Engine, flows: Flows) -> None:
    given = add(flows, "work", ends)
    await dies_with(engine, await begin(engine, "a", "work"))
    async with Recoverer(engine):
        await engine.wait("a", Status.ENDED)
    (state,) = given
    assert (Cause.LOST, 1) == (state.transition.cause, state.transition.attempt)


async def test_what_is_given_up_because_of_deaths_is_told_in_the_log(
    engine: Engine, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    add(flows, "work", ends)
    own = State("a", retry=RetryPolicy(lease=10, max_attempts=1))
    await dies_with(engine, *await engine.do(Commit(Transit(own, "work"))))
    async with Recoverer(engine):
        await engine.wait("a", Status.FAILED)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    reason = "gave up after 1 attempt: the lease ran out: its executor died or hung"
    assert [f"state 'a': flow 'work': {reason}"] == told


# ---------------------------------------------------------------- what always fits


async def test_what_gives_up_a_state_near_its_limit_fits(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    policy = RetryPolicy(lease=10, max_attempts=2)
    async with (
        Engine(store, flows, clock=clock, retry=policy, grace=0, max_state_size=2_000) as engine,
        Recoverer(engine),
    ):
        big = State("a", annotations={"a": "y" * 1_800})
        (begun,) = await engine.do(Commit(Transit(big, "fails")))
        await engine.start(begun)
        failed = await engine.wait("a", Status.FAILED)
    assert "gave up after 2 attempts: ValueError: no" == failed.transition.reason


# ---------------------------------------------------------------- compaction


@pytest.fixture
async def rests(engine: Engine) -> None:
    """One state that failed, one that is paused and one that ended, all an hour old."""
    own = RetryPolicy(max_attempts=1)
    (begun,) = await engine.do(Commit(Transit(State("failed", retry=own), "fails")))
    with pytest.raises(ValueError, match="no"):
        await engine.execute(begun)
    await engine.do(Commit(ends(State("ended")).commands[0]))  # type: ignore[attr-defined]
    await engine.do(Commit(Pause(State("paused"))))
    await engine.sleep_until(engine.clock.now() + 3_600_000)
    await engine.do(Commit(Pause(State("newest"))))


async def ids(engine: Engine) -> set[str]:
    return {state.id async for state in engine.states()}


@pytest.mark.usefixtures("rests")
async def test_compaction_of_what_ended_leaves_what_failed(engine: Engine) -> None:
    await engine.compact(60, ended=True).finish()
    assert {"failed", "paused", "newest"} == await ids(engine)


@pytest.mark.usefixtures("rests")
async def test_compaction_removes_what_failed_if_it_is_asked_to(engine: Engine) -> None:
    await engine.compact(60, failed=True).finish()
    assert {"ended", "paused", "newest"} == await ids(engine)
