"""What becomes of a state whose due time has come: alarms that fire, leases that run out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from flowstate import Alarm, Cause, Delay, RetryPolicy, State, Status, Transition
from flowstate.transitions import LEASE_RAN_OUT, MOVES, fire

from .helpers import NOW

POLICY = RetryPolicy(lease=30, max_attempts=3, backoff=2, max_backoff=60)


def state_at(status: Status, alarm: Alarm | None = None, **more: object) -> State:
    transition = Transition(to="work", status=status, alarm=alarm)
    return State("a", rev=7, transition=replace(transition, **more))


# ---------------------------------------------------------------- the whole law

LAW = """
    status   cause  alarm  then    retries  attempts  becomes

    DELAYED  RETRY  come   none    -        -         runs again
    DELAYED  RETRY  come   ahead   -        -         runs again
    DELAYED  LOST   come   none    -        -         runs again
    DELAYED  LOST   come   ahead   -        -         runs again
    -        -      come   come    -        -         at then
    -        -      come   -       -        -         at alarm
    RUNNING  -      -      -       on       left      retried
    RUNNING  -      -      -       on       used up   given up
    -        -      -      -       -        -         nothing
"""
"""The first row that fits decides; a dash fits everything. An alarm may have another behind it,
``then``."""


class Case(NamedTuple):
    """One combination of all that could matter."""

    status: str
    cause: str
    alarm: str
    then: str
    retries: str
    attempts: str

    @property
    def state(self) -> State:
        at = {"come": NOW, "ahead": NOW + 1}
        then = None if self.then == "none" else Alarm(at[self.then], "then")
        alarm = None if self.alarm == "none" else Alarm(at[self.alarm], "alarm", then)
        return state_at(
            Status[self.status],
            alarm,
            cause=Cause[self.cause],
            attempt=0 if self.attempts == "left" else 2,
            reason="before",
            annotations={"by": "ann"},
        )

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(max_attempts=3, enabled=self.retries == "on")


def cases() -> Iterator[Case]:
    alarms = [("none", "none"), *product(["come", "ahead"], ["none", "come", "ahead"])]
    for status, cause, (alarm, then) in product(Status, Cause, alarms):
        for rest in product(["on", "off"], ["left", "used up"]):
            yield Case(status.name, cause.name, alarm, then, *rest)


def law() -> list[tuple[list[str], str]]:
    rows = [re.split(r"  +", line.strip()) for line in LAW.strip().splitlines()[2:]]
    return [(row[:-1], row[-1]) for row in rows]


def expected(case: Case, becomes: str) -> State | None:
    transition = case.state.transition
    made = {
        "runs again": replace(
            transition, status=Status.RUNNING, alarm=transition.alarm and transition.alarm.then
        ),
        "at then": _rung("then"),
        "at alarm": _rung("alarm"),
        "retried": replace(transition, cause=Cause.LOST, attempt=1, reason=LEASE_RAN_OUT.reason),
        "given up": Transition(
            to="work",
            status=Status.FAILED,
            cause=Cause.GAVE_UP,
            attempt=2,
            reason=f"gave up after 3 attempts: {LEASE_RAN_OUT.reason}",
            annotations={"by": "ann"},
        ),
    }
    return None if becomes == "nothing" else replace(case.state, transition=made[becomes])


def _rung(to: str) -> Transition:
    """Where an alarm leads: the annotations are those of the transition whose alarm it was."""
    return Transition(to=to, status=Status.RUNNING, cause=Cause.ALARM, annotations={"by": "ann"})


def row_of(case: Case) -> int:
    """The row of the law that decides."""
    return next(
        number
        for number, (row, _) in enumerate(law())
        if all(a in {"-", b} for a, b in zip(row, case, strict=True))
    )


def test_a_state_that_is_due_becomes_what_the_law_says_whatever_else_it_is() -> None:
    """Every combination of all that could matter."""
    becomes = [becomes for _, becomes in law()]
    wrong = [
        case
        for case in cases()
        if expected(case, becomes[row_of(case)]) != fire(case.state, NOW, case.policy)
    ]
    assert [] == wrong


def test_no_row_of_the_law_is_idle() -> None:
    assert set(range(len(law()))) == {row_of(case) for case in cases()}


# ---------------------------------------------------------------- alarms


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED, Status.DELAYED])
@pytest.mark.parametrize("late_ms", [0, 1, 10**9])
def test_an_alarm_sends_its_state_to_its_flow_from_its_very_millisecond_on(
    status: Status, late_ms: int
) -> None:
    fired = fire(state_at(status, Alarm(NOW, "late")), NOW + late_ms, POLICY)
    assert fired is not None
    expected = Transition(to="late", status=Status.RUNNING, cause=Cause.ALARM)
    assert expected == fired.transition


def test_a_fired_alarm_changes_the_transition_and_nothing_else() -> None:
    state = replace(state_at(Status.DELAYED, Alarm(NOW, "late")), labels={"queue": "mail"})
    fired = fire(state, NOW, POLICY)
    assert fired is not None
    assert state == replace(fired, transition=state.transition)


def test_an_alarm_set_in_the_past_fires_at_once() -> None:
    state = MOVES[Delay](Delay(State("a"), "work", at=NOW - 10**6), NOW, POLICY)
    fired = fire(state, NOW, POLICY)
    assert fired is not None
    assert fired.transition.status is Status.RUNNING


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


def test_leases_that_run_out_are_retried_until_the_attempts_are_used_up() -> None:
    """The first retry after a death is at once, later ones wait for their backoff."""
    state, now = state_at(Status.RUNNING), NOW
    seen: list[tuple[Status, int]] = []
    while state.transition.status is not Status.FAILED:
        seen.append((state.transition.status, state.transition.attempt))
        now += 60_000
        fired = fire(state, now, POLICY)
        assert fired is not None
        state = fired
    running, delayed = Status.RUNNING, Status.DELAYED
    assert seen == [(running, 0), (running, 1), (delayed, 2), (running, 2)]
    expected = Transition(
        to="work",
        status=Status.FAILED,
        cause=Cause.GAVE_UP,
        attempt=2,
        reason=f"gave up after 3 attempts: {LEASE_RAN_OUT.reason}",
    )
    assert expected == state.transition
