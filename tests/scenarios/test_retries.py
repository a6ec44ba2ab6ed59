"""Retries: what a flow that raises comes to."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.testing.virtual import VirtualClock

from . import history, recovering

pytestmark = pytest.mark.anyio


def failing(times: int, runs: list[int]) -> Flows:
    """A flow that fails so many times; *runs* gets the time of each run."""
    flows = Flows()

    @flows.flow
    async def charge(state: State, engine: Engine) -> Command:
        runs.append(engine.clock.now())
        if len(runs) <= times:
            raise OSError(f"no answer {len(runs)}")
        return Commit(End(state, reason="charged"))

    @flows.flow
    async def unpaid(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="too late"))

    return flows


async def test_a_flow_whose_first_attempt_fails_is_run_again_after_its_backoff(
    store: Driver, clock: VirtualClock
) -> None:
    runs: list[int] = []
    async with clock.running(), recovering(store, failing(1, runs), clock) as engine:
        with pytest.raises(OSError, match="no answer 1"):  # it is run here, and by no worker
            await engine.execute(Commit(Transit(State("order-1"), "charge")))
        await engine.wait("order-1", Status.ENDED)

        _, waiting, again, ended = await history(engine, "order-1")
        assert waiting.transition.status is Status.DELAYED
        assert waiting.transition.reason == "OSError: no answer 1"
        assert (again.transition.cause, again.transition.attempt) == (Cause.RETRY, 1)
        assert ended.transition.reason == "charged"
    first, second = runs
    assert 1_000 <= second - first < 2_000


async def test_a_flow_that_always_fails_is_given_up_with_its_last_error(
    store: Driver, clock: VirtualClock
) -> None:
    """The waits double, each version tells its attempt, and the last one is FAILED."""
    runs: list[int] = []
    policy = RetryPolicy(max_attempts=4, backoff=10, max_backoff=30)
    async with clock.running(), recovering(store, failing(9, runs), clock, retry=policy) as engine:
        await engine.start((await engine.do(Commit(Transit(State("order-1"), "charge"))))[0])
        failed = await engine.wait("order-1", Status.FAILED)
        assert failed.transition.reason == "gave up after 4 attempts: OSError: no answer 4"
        assert failed.transition.cause is Cause.GAVE_UP
        attempts = [state.transition.attempt for state in await history(engine, "order-1")]
        assert attempts == [0, 1, 1, 2, 2, 3, 3, 3]
    waits = [(after - before) // 1_000 for before, after in pairwise(runs)]
    assert waits == [10, 20, 30]


async def test_a_timeout_covers_all_attempts(store: Driver, clock: VirtualClock) -> None:
    """It fires between two attempts as well; the next one does not run."""
    runs: list[int] = []
    policy = RetryPolicy(max_attempts=10, backoff=60)
    async with clock.running(), recovering(store, failing(9, runs), clock, retry=policy) as engine:
        timed = Transit(State("order-1"), "charge", timeout=100, on_timeout="unpaid")
        await engine.start((await engine.do(Commit(timed)))[0])
        ended = await engine.wait("order-1", Status.ENDED)
        assert ended.transition.reason == "too late"
    assert len(runs) == 2  # at 0 and 60 s; the third would have been at 180 s


async def test_a_state_whose_retries_are_switched_off_stays_as_it_is(
    store: Driver, clock: VirtualClock
) -> None:
    runs: list[int] = []
    async with clock.running(), recovering(store, failing(1, runs), clock) as engine:
        never = State("order-1", retry=RetryPolicy(enabled=False))
        with pytest.raises(OSError, match="no answer 1"):  # it is run here, and by no worker
            await engine.execute(Commit(Transit(never, "charge")))
        state = await engine.get("order-1")
        (other,) = await engine.do(Commit(Transit(State("order-2"), "charge", timeout=10**6)))
        await engine.wait(other.id, Status.ENDED)  # run for the first time by recovery
        assert state == await engine.get("order-1")
