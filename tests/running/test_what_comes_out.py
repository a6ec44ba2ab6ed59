"""What comes out of a flow is the flow's: it counts as an attempt, and ends no other flow."""

from __future__ import annotations

import asyncio
import logging
import sys

import anyio
import pytest
import sniffio

from flowstate import (
    Cause,
    Command,
    Driver,
    Engine,
    Flows,
    RetryPolicy,
    State,
    Status,
    Transit,
)
from flowstate.failures import MAX_TRACEBACK
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import VirtualClock

from . import add, begin, ends, history, ready

pytestmark = pytest.mark.anyio


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddError(BaseException):
    pass


async def cancelled_elsewhere() -> None:
    """Await what somebody else cancelled; the task that waits for it was not."""
    if sniffio.current_async_library() == "trio":
        raise OddError  # there a cancellation comes from a scope around the task, or not at all
    job = asyncio.ensure_future(asyncio.sleep(10))
    job.cancel()
    await job


@pytest.fixture(params=["exits", "odd", "mute", "cancelled", "group"])
def bad(request: pytest.FixtureRequest, flows: Flows) -> str:
    """A flow that something comes out of which is no ordinary error."""

    @flows.flow
    async def exits(state: State, engine: Engine) -> Command:
        sys.exit(3)

    @flows.flow
    async def odd(state: State, engine: Engine) -> Command:
        raise OddError

    @flows.flow
    async def mute(state: State, engine: Engine) -> Command:
        raise MuteError

    @flows.flow
    async def cancelled(state: State, engine: Engine) -> Command:
        await cancelled_elsewhere()
        return ends(state)

    @flows.flow
    async def group(state: State, engine: Engine) -> Command:
        raise BaseExceptionGroup("both", [SystemExit(1), OddError()])

    name: str = request.param
    return name


async def test_in_the_background_it_counts_as_an_attempt_and_ends_nothing_else(
    engine: Engine, flows: Flows, bad: str
) -> None:
    goes_on = anyio.Event()

    @flows.flow
    async def good(state: State, engine: Engine) -> Command:
        await goes_on.wait()
        return ends(state)

    await engine.start(await begin(engine, "good", "good"))
    await engine.start(await begin(engine, "bad", bad))
    retried = await engine.wait("bad")
    goes_on.set()
    await engine.idle()
    assert (Status.DELAYED, Cause.RETRY, 1) == (
        retried.transition.status,
        retried.transition.cause,
        retried.transition.attempt,
    )
    assert Status.ENDED is (await engine.get("good")).transition.status


async def test_in_the_foreground_it_is_raised_once_it_is_committed(
    engine: Engine, flows: Flows, bad: str
) -> None:
    begun = await begin(engine, "bad", bad)
    with pytest.raises(BaseException) as raised:  # noqa: PT011  (whatever it is)
        await engine.execute(begun)
    assert type(raised.value).__name__ in (await engine.get("bad")).transition.reason


async def test_a_recoverer_runs_it_until_it_is_given_up_and_goes_on(
    engine: Engine, flows: Flows, bad: str
) -> None:
    add(flows, "good", ends)
    async with Recoverer(engine) as recoverer:
        await engine.start(await begin(engine, "bad", bad))
        failed = await engine.wait("bad", Status.FAILED)
        assert failed.transition.reason.startswith("gave up after 3 attempts: ")
        await begin(engine, "good", "good")
        await engine.wait("good", Status.ENDED)
        assert 1 == recoverer.stats().gave_up


async def test_what_is_kept_can_be_stored_and_is_bounded(engine: Engine, flows: Flows) -> None:
    @flows.flow
    async def long(state: State, engine: Engine) -> Command:
        raise ValueError("\N{SNOWMAN}\0\ud800" * 10_000)

    with pytest.raises(ValueError, match="\N{SNOWMAN}"):
        await engine.execute(await begin(engine, "a", "long"))
    kept = (await engine.get("a")).transition
    assert 1_001 == len(kept.reason)
    assert len(kept.traceback.encode()) <= MAX_TRACEBACK


async def test_the_traceback_is_kept_with_the_version_and_ends_with_the_error(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def broken(state: State, engine: Engine) -> Command:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        await engine.execute(await begin(engine, "a", "broken"))
    kept = (await engine.get("a")).transition.traceback
    assert "in broken" in kept
    assert kept.endswith("ValueError: here")


async def test_ctrl_c_uses_no_attempt_and_gives_the_state_back(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    @flows.flow
    async def interrupted(state: State, engine: Engine) -> Command:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with Engine(store, flows, clock=clock, grace=0) as engine:
            await engine.execute(await begin(engine, "a", "interrupted"))
    async with Engine(store, clock=clock) as other:
        assert ["a"] == await ready(other, "interrupted")
        assert 1 == len(await history(other, "a"))


async def test_ctrl_c_in_a_group_of_tasks_is_the_operator_s_too(
    store: Driver, flows: Flows, clock: VirtualClock
) -> None:
    @flows.flow
    async def interrupted(state: State, engine: Engine) -> Command:
        raise BaseExceptionGroup("tasks", [KeyboardInterrupt(), ValueError()])

    with pytest.raises(BaseExceptionGroup):
        async with Engine(store, flows, clock=clock, grace=0) as engine:
            await engine.execute(await begin(engine, "a", "interrupted"))
    async with Engine(store, clock=clock) as other:
        assert 1 == len(await history(other, "a"))


async def test_tasks_of_a_flow_that_are_cancelled_with_it_use_no_attempt(
    engine: Engine, flows: Flows
) -> None:
    """On trio they come out as a group."""

    @flows.flow
    async def busy(state: State, engine: Engine) -> Command:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            tasks.start_soon(anyio.sleep_forever)
            scope.cancel()
        raise AssertionError

    begun = await begin(engine, "a", "busy")
    with anyio.CancelScope() as scope:
        await engine.execute(begun)
    assert [begun] == await history(engine, "a")


async def test_a_flow_that_answers_its_cancellation_with_an_error_has_failed(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def clumsy(state: State, engine: Engine) -> Command:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    begun = await begin(engine, "a", "clumsy")
    with anyio.CancelScope() as scope, pytest.raises(ValueError, match="while cleaning up"):
        await engine.execute(begun)
    assert "ValueError: while cleaning up" == (await engine.get("a")).transition.reason


# ---------------------------------------------------------------- the log


async def test_while_attempts_are_left_it_is_a_warning_without_a_traceback(
    engine: Engine, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    @flows.flow
    async def broken(state: State, engine: Engine) -> Command:
        raise ValueError("here")

    await engine.start(await begin(engine, "a", "broken"))
    await engine.idle()
    (record,) = caplog.records
    assert (logging.WARNING, None) == (record.levelno, record.exc_info)
    assert "state 'a': flow 'broken' raised ValueError: here" == record.getMessage()


async def test_when_it_is_given_up_it_is_an_error_with_its_traceback(
    store: Driver, flows: Flows, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("here")

    @flows.flow
    async def broken(state: State, engine: Engine) -> Command:
        raise error

    once = RetryPolicy(max_attempts=1)
    async with Engine(store, flows, clock=clock, retry=once, grace=0) as engine:
        await engine.start(await begin(engine, "a", "broken"))
        await engine.idle()
    (record,) = caplog.records
    assert logging.ERROR == record.levelno
    assert record.exc_info is not None
    assert error is record.exc_info[1]
    message = "state 'a': flow 'broken': gave up after 1 attempt: ValueError: here"
    assert message == record.getMessage()


async def test_the_log_names_the_flow_that_was_reached_in_memory(
    engine: Engine, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:

    add(flows, "first", lambda state: Transit(state, "second"))

    @flows.flow
    async def second(state: State, engine: Engine) -> Command:
        raise ValueError("here")

    await engine.start(await begin(engine, "a", "first"))
    await engine.idle()
    (record,) = caplog.records
    assert "flow 'second' raised" in record.getMessage()
