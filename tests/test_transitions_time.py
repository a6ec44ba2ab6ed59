"""What time does to a state: alarms that fire, leases that run out, flows that raised."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from flowstate import (
    Alarm,
    Cause,
    Commit,
    Delay,
    InvalidValueError,
    Pause,
    RetryPolicy,
    State,
    Status,
    Transit,
    Transition,
)
from flowstate.transitions import LEASE_RAN_OUT, MOVES, Failure, after_error, fire, plan

NOW = 1_700_000_000_000
POLICY = RetryPolicy(lease=30, max_attempts=3, backoff=2, max_backoff=60)
NEVER_RETRY = RetryPolicy(enabled=False)
WAITING = [Status.RUNNING, Status.PAUSED, Status.DELAYED]


def state_at(status: Status, alarm: Alarm | None = None, **more: object) -> State:
    transition = Transition(to="work", status=status, alarm=alarm)
    return State("a", rev=7, transition=replace(transition, **more))


def running(attempt: int = 0, alarm: Alarm | None = None) -> State:
    return state_at(Status.RUNNING, alarm, attempt=attempt)


# ---------------------------------------------------------------- alarms


@pytest.mark.parametrize("status", WAITING)
@pytest.mark.parametrize("late_ms", [0, 1, 10**9])
def test_an_alarm_sends_its_state_to_its_flow_from_its_very_millisecond_on(
    status: Status, late_ms: int
) -> None:
    fired = fire(state_at(status, Alarm(NOW, "late")), NOW + late_ms, POLICY)
    assert fired is not None
    expected = Transition(to="late", status=Status.RUNNING, cause=Cause.ALARM)
    assert expected == fired.transition


@pytest.mark.parametrize("status", [Status.PAUSED, Status.DELAYED])
def test_an_alarm_that_is_to_come_leaves_a_state_alone(status: Status) -> None:
    assert fire(state_at(status, Alarm(NOW + 1, "late")), NOW, POLICY) is None


@pytest.mark.parametrize("status", [Status.NEW, Status.PAUSED, Status.DELAYED, Status.ENDED])
def test_only_what_runs_has_a_lease_that_can_run_out(status: Status) -> None:
    assert fire(state_at(status), NOW, POLICY) is None


@pytest.mark.parametrize("status", WAITING)
def test_alarms_fire_also_for_states_that_are_never_retried(status: Status) -> None:
    state = replace(state_at(status, Alarm(NOW, "late")), retry=NEVER_RETRY)
    fired = fire(state, NOW, POLICY)
    assert fired is not None
    assert fired.transition.to == "late"


def test_a_fired_alarm_changes_the_transition_and_nothing_else() -> None:
    state = replace(state_at(Status.DELAYED, Alarm(NOW, "late")), labels={"queue": "mail"})
    fired = fire(state, NOW, POLICY)
    assert fired is not None
    assert state == replace(fired, transition=state.transition)


# ---------------------------------------------------------------- leases


def test_a_lease_that_ran_out_is_a_retry_of_the_same_transition() -> None:
    """The flow, the timeout and the annotations stay; the attempt and the reason tell of it."""
    alarm = Alarm(NOW + 1, "late")
    state = state_at(Status.RUNNING, alarm, annotations={"by": "ann"}, cause=Cause.RESUME)
    fired = fire(state, NOW, POLICY)
    assert fired is not None
    expected = Transition(
        to="work",
        status=Status.RUNNING,
        cause=Cause.LOST,
        attempt=1,
        reason=LEASE_RAN_OUT.reason,
        alarm=alarm,
        annotations={"by": "ann"},
    )
    assert expected == fired.transition


def test_a_timeout_comes_before_a_lease_that_ran_out() -> None:
    fired = fire(running(attempt=2, alarm=Alarm(NOW, "late")), NOW, POLICY)
    assert fired is not None
    assert (fired.transition.to, fired.transition.attempt) == ("late", 0)


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_lease_that_was_given_up_costs_no_attempt(attempt: int) -> None:
    """Nobody died: the state goes on as it is, also in its last attempt."""
    state = running(attempt, Alarm(NOW + 1, "late"))
    assert state == fire(state, NOW, POLICY, is_released=True)


def test_an_alarm_comes_before_a_lease_that_was_given_up() -> None:
    fired = fire(running(alarm=Alarm(NOW, "late")), NOW, POLICY, is_released=True)
    assert fired is not None
    assert (fired.transition.to, fired.transition.cause) == ("late", Cause.ALARM)


@pytest.mark.parametrize("status", [Status.NEW, Status.PAUSED, Status.DELAYED, Status.ENDED])
def test_only_what_runs_can_be_given_up(status: Status) -> None:
    assert fire(state_at(status), NOW, POLICY, is_released=True) is None


def test_leases_that_run_out_are_retried_until_the_attempts_are_used_up() -> None:
    state, attempts, now = running(), [], NOW
    while state.transition.status is not Status.FAILED:
        if state.transition.status is Status.RUNNING:
            attempts.append(state.transition.attempt)
        now += 60_000
        fired = fire(state, now, POLICY)
        assert fired is not None
        state = fired
    assert attempts == [0, 1, 2]
    expected = Transition(
        to="work",
        status=Status.FAILED,
        cause=Cause.GAVE_UP,
        attempt=2,
        reason=f"gave up after 3 attempts: {LEASE_RAN_OUT.reason}",
    )
    assert expected == state.transition


# ---------------------------------------------------------------- flows that raised


def test_a_retry_waits_for_its_backoff_then_runs_the_flow_again() -> None:
    waiting = after_error(running(), Failure("OSError: full"), NOW, POLICY)
    assert waiting is not None
    assert Alarm(NOW + 2_000, "work") == waiting.transition.alarm
    assert fire(waiting, NOW + 1_999, POLICY) is None

    again = fire(waiting, NOW + 2_000, POLICY)
    assert again is not None
    expected = Transition(
        to="work", status=Status.RUNNING, cause=Cause.RETRY, attempt=1, reason="OSError: full"
    )
    assert expected == again.transition


def test_a_timeout_outlives_the_retries_before_it() -> None:
    """It is the whole transition that must be done by then, not each attempt."""
    timeout = Alarm(NOW + 5_000, "late")
    waiting = after_error(running(alarm=timeout), Failure("no"), NOW, POLICY)
    assert waiting is not None
    assert Alarm(NOW + 2_000, "work", then=timeout) == waiting.transition.alarm

    again = fire(waiting, NOW + 2_000, POLICY)
    assert again is not None
    assert (again.transition.status, again.transition.alarm) == (Status.RUNNING, timeout)

    late = fire(again, NOW + 5_000, POLICY)
    assert late is not None
    assert Transition(to="late", status=Status.RUNNING, cause=Cause.ALARM) == late.transition


@pytest.mark.parametrize("timeout_ms", [1, 2_000])
def test_a_timeout_before_the_backoff_is_over_fires_first(timeout_ms: int) -> None:
    timeout = Alarm(NOW + timeout_ms, "late")
    waiting = after_error(running(alarm=timeout), Failure("no"), NOW, POLICY)
    assert waiting is not None
    assert (waiting.transition.status, waiting.transition.alarm) == (Status.DELAYED, timeout)

    late = fire(waiting, timeout.at, POLICY)
    assert late is not None
    assert Transition(to="late", status=Status.RUNNING, cause=Cause.ALARM) == late.transition


def test_a_retry_that_nobody_fired_before_its_timeout_does_not_run() -> None:
    """Recovery was away while both came due: the timeout decides, as if it had been there."""
    waiting = after_error(running(alarm=Alarm(NOW + 5_000, "late")), Failure("no"), NOW, POLICY)
    assert waiting is not None
    late = fire(waiting, NOW + 5_000, POLICY)
    assert late is not None
    assert Transition(to="late", status=Status.RUNNING, cause=Cause.ALARM) == late.transition


def test_each_retry_tells_its_attempt_and_the_last_error_until_they_are_used_up() -> None:
    state, told = running(), []
    for error in ("first", "second", "third"):
        raised = after_error(state, Failure(error), NOW, POLICY)
        assert raised is not None
        told.append((raised.transition.attempt, raised.transition.reason))
        state = fire(raised, NOW + 60_000, POLICY) or raised
    assert [(1, "first"), (2, "second"), (2, "gave up after 3 attempts: third")] == told
    assert state.transition.cause is Cause.GAVE_UP  # a Fail by the flow has it too


def test_errors_and_lost_leases_count_as_attempts_alike() -> None:
    once = after_error(running(), Failure("no"), NOW, POLICY)
    assert once is not None
    again = fire(once, NOW + 2_000, POLICY)
    assert again is not None
    twice = fire(again, NOW + 40_000, POLICY)
    assert twice is not None
    assert twice.transition.attempt == 2
    ended = after_error(twice, Failure("no"), NOW, POLICY)
    assert ended is not None
    assert ended.transition.status is Status.FAILED


# ---------------------------------------------------------------- whose policy


def test_the_policy_of_a_state_goes_before_that_of_its_engine() -> None:
    own = replace(running(), retry=RetryPolicy(max_attempts=1))
    for outcome in (after_error(own, Failure("no"), NOW, POLICY), fire(own, NOW, POLICY)):
        assert outcome is not None
        assert outcome.transition.reason.startswith("gave up after 1 attempt: ")

    patient = replace(running(attempt=5), retry=RetryPolicy(max_attempts=10))
    for outcome in (after_error(patient, Failure("no"), NOW, POLICY), fire(patient, NOW, POLICY)):
        assert outcome is not None
        assert outcome.transition.attempt == 6


def test_a_state_whose_retries_are_switched_off_is_left_alone_for_ever() -> None:
    """Whoever switched them off looks after it: it is never due, and nothing becomes of it."""
    for policy, own in ((NEVER_RETRY, None), (POLICY, NEVER_RETRY)):
        state = State("a", retry=own)
        (write,) = plan(
            Commit(Transit(state, "work")), commit_id="1", now=NOW, policy=policy
        ).writes
        assert write.due is None
        assert after_error(write.state, Failure("no"), NOW, policy) is None
        assert fire(write.state, NOW + 10**12, policy) is None


# ---------------------------------------------------------------- due times


def test_what_runs_is_due_at_its_timeout_or_the_end_of_its_lease_whichever_is_first() -> None:
    for timeout, due in ((None, (30_000, "work")), (31, (30_000, "work")), (29, (29_000, "late"))):
        command = Transit(State("a"), "work", timeout=timeout, on_timeout="late" if timeout else "")
        (write,) = plan(Commit(command), commit_id="1", now=NOW, policy=POLICY).writes
        assert (NOW + due[0], due[1]) == (write.due, write.flow)


def test_what_waits_is_due_at_its_alarm() -> None:
    for command, due in (
        (Pause(State("a"), "work"), (None, "")),
        (Pause(State("a"), "work", timeout=5, on_timeout="late"), (NOW + 5_000, "late")),
        (Delay(State("a"), "work", after=timedelta(minutes=1)), (NOW + 60_000, "work")),
        (Delay(State("a"), "work", at=NOW - 1), (NOW - 1, "work")),
    ):
        (write,) = plan(Commit(command), commit_id="1", now=NOW, policy=POLICY).writes
        assert due == (write.due, write.flow)


def test_an_alarm_set_in_the_past_fires_at_once() -> None:
    state = MOVES[Delay](Delay(State("a"), "work", at=NOW - 10**6), NOW, POLICY)
    fired = fire(state, NOW, POLICY)
    assert fired is not None
    assert fired.transition.status is Status.RUNNING


# ---------------------------------------------------------------- backoff


def test_backoff_doubles_up_to_its_bound_however_many_attempts() -> None:
    policy = RetryPolicy(backoff=1, max_backoff=10)
    assert [1, 2, 4, 8, 10, 10] == [policy.wait_ms(n) / 1_000 for n in range(1, 7)]
    assert policy.wait_ms(10**9) == 10_000


@pytest.mark.parametrize("attempt", [1, 2, 3, 10])
def test_jitter_lengthens_a_backoff_by_up_to_a_tenth_within_its_bound(attempt: int) -> None:
    policy = RetryPolicy(backoff=1, max_backoff=300)
    plain = policy.wait_ms(attempt)
    waits = [policy.wait_ms(attempt, jitter / 100) for jitter in range(101)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (plain, min(plain * 11 // 10, 300_000))


def test_jitter_spreads_the_retries_of_states_that_failed_together() -> None:
    alarms = [
        after_error(running(), Failure("no"), NOW, POLICY, jitter) for jitter in (0.0, 0.5, 1.0)
    ]
    ats = [state.transition.alarm.at - NOW for state in alarms if state and state.transition.alarm]
    assert ats == [2_000, 2_100, 2_200]


# ---------------------------------------------------------------- refusals

REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "a negative lease": ({"lease": -1}, "retry.lease: takes 0 to"),
    "a lease under a second": ({"lease": 0.999}, "retry.lease: takes at least 1 second"),
    "a lease that never ends": ({"lease": float("inf")}, "retry.lease: takes 0 to"),
    "a negative backoff": ({"backoff": -0.001}, "retry.backoff: takes 0 to"),
    "a backoff that is no number": ({"backoff": float("nan")}, "retry.backoff: takes 0 to"),
    "a negative bound": ({"max_backoff": -1}, "retry.max_backoff: takes 0 to"),
    "a backoff above its bound": (
        {"backoff": 2, "max_backoff": 1},
        r"retry.backoff: is 2 s, above max_backoff of 1 s",
    ),
    "no attempts": ({"max_attempts": 0}, "retry.max_attempts: takes a whole number from 1"),
    "half an attempt": ({"max_attempts": 1.5}, "retry.max_attempts: takes a whole number from 1"),
    "True attempts": ({"max_attempts": True}, "retry.max_attempts: takes a whole number from 1"),
    "a duration as text": ({"lease": "30"}, "retry.lease: takes seconds or a timedelta"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_policy_is_refused_where_it_is_made(case: str) -> None:
    fields, problem = REFUSED[case]
    with pytest.raises(InvalidValueError, match=problem):
        RetryPolicy(**fields)  # type: ignore[arg-type]


def test_the_smallest_policy_is_allowed() -> None:
    policy = RetryPolicy(lease=1, max_attempts=1, backoff=0, max_backoff=0)
    assert policy.wait_ms(1, jitter=1.0) == 0
