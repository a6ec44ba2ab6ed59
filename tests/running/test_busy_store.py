"""A store that is busy or gone when a flow's commit comes: no failure of the flow, for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    Plan,
    RetryPolicy,
    State,
    Status,
    StoreBusyError,
    StoreError,
    StoreUnreachableError,
    Transit,
)
from flowstate.committer import COMMIT_RETRIES
from flowstate.testing.virtual import VirtualClock
from flowstate.testing.wrapper import WrapperDriver

from . import add, ends, history

pytestmark = pytest.mark.anyio

BUSY = StoreBusyError("the store", "is locked")
GONE = StoreUnreachableError("the store", "does not answer")
ONCE = RetryPolicy(max_attempts=1)


@define(eq=False)
class Refusing(WrapperDriver):
    """Refuses the next commits with an error."""

    error: StoreError = BUSY
    times: int = 0
    plans: list[Plan] = field(factory=list[Plan])
    """What it refused."""

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        if self.times:
            self.times -= 1
            self.plans.append(plan)
            raise self.error
        return await self.driver.commit(plan)


@pytest.fixture
def refusing(store: Driver) -> Refusing:
    return Refusing(store)


@pytest.fixture
async def engine(refusing: Refusing, flows: Flows, clock: VirtualClock) -> AsyncIterator[Engine]:
    async with Engine(refusing, flows, clock=clock, retry=ONCE, grace=0) as engine:
        yield engine


def ends_with(flows: Flows, refusing: Refusing, times: int) -> list[State]:
    """A flow whose commit is refused so often; gives its runs."""

    def refused(state: State) -> Command:
        refusing.times = times
        return ends(state)

    return add(flows, "work", refused)


@pytest.mark.parametrize("error", [BUSY, GONE])
@pytest.mark.parametrize("times", [1, COMMIT_RETRIES])
async def test_what_a_flow_returned_is_stored_once_the_store_takes_it(
    engine: Engine, flows: Flows, refusing: Refusing, error: StoreError, times: int
) -> None:
    """The flow is not run again, the same plan is tried, and no attempt is used up."""
    refusing.error = error
    runs = ends_with(flows, refusing, times)
    state = await engine.execute(Commit(Transit(State("a"), "work")))
    assert (state.transition.status, state.transition.attempt) == (Status.ENDED, 0)
    assert [1, 1] == [len(runs), len({plan.commit_id for plan in refusing.plans})]
    assert [1, 2] == [version.rev for version in await history(engine, "a")]


async def test_if_it_goes_on_it_is_an_error_like_any_other(
    engine: Engine, flows: Flows, refusing: Refusing
) -> None:
    ends_with(flows, refusing, COMMIT_RETRIES + 1)
    with pytest.raises(StoreBusyError):
        await engine.execute(Commit(Transit(State("a"), "work")))
    transition = (await engine.get("a")).transition
    assert (transition.status, transition.cause) == (Status.FAILED, Cause.GAVE_UP)


async def test_an_error_of_another_kind_is_not_waited_for(
    engine: Engine, flows: Flows, refusing: Refusing
) -> None:
    """Who knows whether it would be another one the next time."""
    refusing.error = StoreError("the store", "is odd")
    ends_with(flows, refusing, 1)
    with pytest.raises(StoreError, match="is odd"):
        await engine.execute(Commit(Transit(State("a"), "work")))


async def test_who_commits_without_a_flow_is_told_at_once(
    engine: Engine, refusing: Refusing
) -> None:
    refusing.times = 1
    with pytest.raises(StoreBusyError):
        await engine.do(Commit(End(State("a"))))


async def test_an_engine_that_is_left_meanwhile_gives_the_state_back(
    refusing: Refusing, store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    """It is ready for others, as it was before its flow ran, and has its attempt."""
    runs = ends_with(flows, refusing, 1)
    async with Engine(refusing, flows, clock=clock, retry=ONCE, grace=0) as engine:
        await engine.start(Commit(Transit(State("a"), "work")))
        while not refusing.plans:
            await anyio.lowlevel.checkpoint()
    assert len(runs) == 1
    assert {"work"} == set(await store.line())
