"""What each command makes of a state, as the store has it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from flowstate import (
    Alarm,
    Cause,
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Fail,
    Flows,
    IllegalTransitionError,
    Noop,
    Pause,
    Require,
    Resume,
    Retry,
    RetryPolicy,
    RevMismatchError,
    Save,
    State,
    Status,
    Transit,
    Transition,
)
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import VirtualClock

from . import add, begin, causes, ends, history

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------- timeouts and alarms


@pytest.mark.parametrize("kind", [Transit, Pause])
async def test_a_timeout_may_be_an_instant(
    engine: Engine, clock: VirtualClock, kind: type[Transit | Pause]
) -> None:
    at = clock.now() + 90_000
    timeout = datetime.fromtimestamp(at / 1000, UTC)
    (state,) = await engine.do(Commit(kind(State("a"), "work", timeout=timeout)))
    assert Alarm(at, "work") == state.transition.alarm


async def test_a_timeout_that_is_over_fires_at_once(
    engine: Engine, flows: Flows, clock: VirtualClock
) -> None:
    given = add(flows, "late", ends)
    timeout = datetime.fromtimestamp(clock.now() / 1000 - 5, UTC)
    async with Recoverer(engine):
        await engine.do(Commit(Pause(State("a"), timeout=timeout, on_timeout="late")))
        await engine.wait("a", Status.ENDED)
    (late,) = given
    assert Cause.ALARM is late.transition.cause


@pytest.mark.parametrize(
    "command",
    [
        Pause(State("a"), "late", "asked ann", {"timer": "2"}, timeout=5, on_timeout="late"),
        Delay(State("a"), "late", after=5, annotations={"timer": "2"}),
        Transit(State("a"), "elsewhere", {"timer": "2"}, timeout=5, on_timeout="late"),
    ],
    ids=["Pause", "Delay", "Transit"],
)
async def test_what_an_alarm_makes_keeps_the_annotations_of_the_transition_whose_alarm_it_was(
    engine: Engine, flows: Flows, command: Command[State]
) -> None:
    given = add(flows, "late", ends)
    async with Recoverer(engine):
        await engine.do(Commit(command))
        await engine.wait("a", Status.ENDED)
    (late,) = given
    expected = Transition(
        to="late", status=Status.RUNNING, cause=Cause.ALARM, annotations={"timer": "2"}
    )
    assert expected == late.transition


# ---------------------------------------------------------------- Retry


async def test_retry_waits_as_long_as_the_flow_says_and_counts_an_attempt(
    engine: Engine, flows: Flows, clock: VirtualClock
) -> None:
    add(flows, "work", lambda state: Commit(Retry(state, after=42, reason="rate limit")))
    began = clock.now()
    rested = await engine.execute(await begin(engine, "a", "work"))
    expected = Transition(
        to="work",
        status=Status.DELAYED,
        cause=Cause.RETRY,
        attempt=1,
        reason="rate limit",
        alarm=Alarm(began + 42_000, "work"),
    )
    assert expected == rested.transition


async def test_retry_runs_the_same_flow_again_with_its_attempt(
    engine: Engine, flows: Flows
) -> None:
    def again(state: State) -> Command:
        return Commit(Retry(state, after=5))

    given = add(flows, "work", again, again, ends)
    async with Recoverer(engine):
        await engine.start(await begin(engine, "a", "work"))
        await engine.wait("a", Status.ENDED)
    assert [0, 1, 2] == [state.transition.attempt for state in given]


async def test_retry_keeps_a_running_timeout(engine: Engine, flows: Flows) -> None:
    add(flows, "work", lambda state: Commit(Retry(state, after=5)))
    begun = await begin(engine, "a", "work", timeout=60, on_timeout="late")
    rested = await engine.execute(begun)
    assert rested.transition.alarm is not None
    assert begun.transition.alarm == rested.transition.alarm.then


async def test_retry_past_the_last_attempt_gives_up(engine: Engine, flows: Flows) -> None:
    add(flows, "work", lambda state: Commit(Retry(state, after=5, reason="no luck")))
    async with Recoverer(engine):
        await engine.start(await begin(engine, "a", "work"))
        failed = await engine.wait("a", Status.FAILED)
    assert "gave up after 3 attempts: no luck" == failed.transition.reason


# ---------------------------------------------------------------- Fail


async def test_fail_gives_up_at_the_flow_where_the_state_is(engine: Engine, flows: Flows) -> None:
    add(flows, "work", lambda state: Commit(Fail(state, "no such customer")))
    rested = await engine.execute(await begin(engine, "a", "work"))
    expected = Transition(
        to="work", status=Status.FAILED, cause=Cause.GAVE_UP, reason="no such customer"
    )
    assert expected == rested.transition


async def test_fail_goes_on_at_the_flow_for_what_was_given_up(engine: Engine, flows: Flows) -> None:
    add(flows, "work", lambda state: Commit(Fail(state, "no such customer")))
    add(flows, "undo", lambda state: Commit(End(state, state.transition.reason)))
    own = State("a", retry=RetryPolicy(on_give_up="undo"))
    (begun,) = await engine.do(Commit(Transit(own, "work")))
    ended = await engine.execute(begun)
    assert "no such customer" == ended.transition.reason


@pytest.mark.parametrize("waits", [Pause(State("a"), "work"), Delay(State("a"), "work", after=9)])
async def test_what_waits_can_be_given_up(engine: Engine, waits: Command[State]) -> None:
    (state,) = await engine.do(Commit(waits))
    (failed,) = await engine.do(Commit(Fail(state, "by hand")))
    assert (Status.FAILED, None) == (failed.transition.status, failed.transition.alarm)


# ---------------------------------------------------------------- FAILED


@pytest.fixture
async def failed(engine: Engine) -> State:
    """A state that was given up in its second attempt."""
    await engine.do(Commit(Transit(State("a"), "work")))
    running = await engine.get("a")
    transition = Transition(to="work", status=Status.RUNNING, attempt=1)
    (failed,) = await engine.do(
        Commit(Fail(State("a", rev=running.rev, transition=transition), "broken"))
    )
    return failed


async def test_resume_of_what_failed_begins_with_attempt_0(engine: Engine, failed: State) -> None:
    (resumed,) = await engine.do(Commit(Resume(failed)))
    expected = Transition(to="work", status=Status.RUNNING, cause=Cause.RESUME)
    assert expected == resumed.transition


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda state: Transit(state, "next"), Status.RUNNING),
        (Pause, Status.PAUSED),
        (lambda state: Delay(state, after=1), Status.DELAYED),
        (End, Status.ENDED),
        (Save, Status.FAILED),
    ],
    ids=["Transit", "Pause", "Delay", "End", "Save"],
)
async def test_what_failed_takes_every_command_that_what_is_paused_takes(
    engine: Engine, failed: State, make: type[End], status: Status
) -> None:
    (moved,) = await engine.do(Commit(make(failed)))
    assert status is moved.transition.status


async def test_what_failed_is_never_due(engine: Engine, failed: State) -> None:
    assert ((), None) == (
        (await engine.timers.due(10)).due,
        (await engine.timers.due(0)).next,
    )


# ---------------------------------------------------------------- Save


@pytest.mark.parametrize(
    "waits",
    [
        Pause(State("a"), "late", "asked", {"by": "ann"}, timeout=60, on_timeout="late"),
        Delay(State("a"), "late", after=60, annotations={"by": "ann"}),
    ],
    ids=["Pause", "Delay"],
)
async def test_save_keeps_the_transition_and_its_alarm(
    engine: Engine, waits: Command[State]
) -> None:
    (before,) = await engine.do(Commit(waits))
    (after,) = await engine.do(Commit(Save(before.with_labels(seen="yes").attach("n", 1))))
    assert (before.transition, {"seen": "yes"}) == (after.transition, after.labels)
    assert 1 == await engine.data(after, "n")


async def test_a_timeout_fires_after_its_state_was_saved(engine: Engine, flows: Flows) -> None:
    add(flows, "late", ends)
    async with Recoverer(engine):
        (paused,) = await engine.do(Commit(Pause(State("a"), timeout=5, on_timeout="late")))
        await engine.do(Commit(Save(paused.with_labels(seen="yes"))))
        await engine.wait("a", Status.ENDED)


async def test_only_what_waits_can_be_saved(engine: Engine) -> None:
    with pytest.raises(IllegalTransitionError):
        await engine.do(Commit(Save(State("a"))))


# ---------------------------------------------------------------- Require


async def test_what_has_ended_can_be_required(engine: Engine) -> None:
    (ended,) = await engine.do(Commit(End(State("a"))))
    required, _ = await engine.do(Commit(Require(ended), Pause(State("b"))))
    assert ended == required


async def test_a_commit_that_requires_the_end_of_another_version_is_refused(
    engine: Engine,
) -> None:
    (paused,) = await engine.do(Commit(Pause(State("a"))))
    (ended,) = await engine.do(Commit(End(paused)))
    stale = State("a", rev=paused.rev, transition=ended.transition)
    with pytest.raises(RevMismatchError):
        await engine.do(Commit(Require(stale), Pause(State("b"))))


# ---------------------------------------------------------------- in memory


@pytest.mark.parametrize("make", [Fail, lambda state: Retry(state, after=1)])
async def test_a_bare_move_is_done_in_memory_only(
    engine: Engine, store: Driver, make: type[Fail]
) -> None:
    begun = await begin(engine, "a", "work")
    await engine.do(make(begun))
    assert [begun] == await history(engine, "a")


@pytest.mark.parametrize("command", [lambda _: Noop(), lambda _: Commit(Pause(State("b"))), Pause])
async def test_a_flow_that_commits_nothing_of_its_state_is_retried_once_its_lease_has_run_out(
    engine: Engine, flows: Flows, command: Callable[[State], Command]
) -> None:
    """Were it ready at once, it would be run again and again. It costs an attempt."""
    add(flows, "work", command, ends)
    began = engine.clock.now()
    async with Recoverer(engine):
        await engine.start(await begin(engine, "a", "work"))
        ended = await engine.wait("a", Status.ENDED)
    assert ["command", "lost", "command"] == causes(await history(engine, "a"))
    assert 10 <= (ended.committed_at - began) / 1_000 < 20


async def test_noop_says_that_the_state_was_moved_elsewhere(engine: Engine, flows: Flows) -> None:
    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        await engine.do(Commit(Pause(state)))
        return Noop()

    rested = await engine.execute(await begin(engine, "a", "work"))
    assert Status.PAUSED is rested.transition.status
