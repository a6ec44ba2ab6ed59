"""What becomes of a state whose flow raised: the backoff, the attempts, and whose policy it is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from flowstate import (
    Alarm,
    Cause,
    Commit,
    InvalidValueError,
    RetryPolicy,
    State,
    Status,
    Transit,
    Transition,
)
from flowstate.transitions import Failure, after_error, fire, plan

from .helpers import NOW

POLICY = RetryPolicy(lease=30, max_attempts=3, backoff=2, max_backoff=60)
NEVER_RETRY = RetryPolicy(enabled=False)


def running(attempt: int = 0, alarm: Alarm | None = None) -> State:
    transition = Transition(to="work", status=Status.RUNNING, attempt=attempt, alarm=alarm)
    return State("a", rev=7, transition=transition)


# ---------------------------------------------------------------- flows that raised


def test_a_retry_is_delayed_at_the_same_flow_until_its_backoff_is_over() -> None:
    retried = after_error(running(), Failure("ValueError: no"), NOW, RetryPolicy(backoff=2))
    assert retried is not None
    assert retried.transition == Transition(
        to="work",
        status=Status.DELAYED,
        cause=Cause.RETRY,
        attempt=1,
        reason="ValueError: no",
        alarm=Alarm(NOW + 2_000, "work"),
    )


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
    # an End by the flow has cause COMMAND
    assert (Status.FAILED, Cause.GAVE_UP) == (state.transition.status, state.transition.cause)


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


def test_a_state_that_was_given_up_after_one_attempt_says_so_in_good_english() -> None:
    ended = after_error(running(), Failure("no"), NOW, RetryPolicy(max_attempts=1))
    assert ended is not None
    assert ended.transition.reason == "gave up after 1 attempt: no"


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
        assert 0 == write.lease
        assert after_error(write.state, Failure("no"), NOW, policy) is None
        assert fire(write.state, NOW + 10**12, policy) is None


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
    "half an attempt": ({"max_attempts": 1.5}, "takes a whole number from 1, not 1.5"),
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


def test_the_durations_of_a_policy_are_whole_milliseconds() -> None:
    """However they were given."""
    given = RetryPolicy(lease=1.0014, backoff=0.0016, max_backoff=timedelta(seconds=1.0016))  # type: ignore[arg-type]
    assert (1.001, 0.002, 1.002) == (given.lease, given.backoff, given.max_backoff)
