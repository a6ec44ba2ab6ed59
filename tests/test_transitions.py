"""What is legal in which status, and what each command makes of a state."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import product
from typing import Any

import pytest

from flowstate import (
    Alarm,
    Cause,
    Commit,
    Data,
    DataRef,
    Delay,
    End,
    Execute,
    IllegalTransitionError,
    Pause,
    Require,
    Resume,
    RetryPolicy,
    State,
    Status,
    Transit,
    Transition,
    transitions,
)
from flowstate.transitions import MOVES, TRANSITIONS, check_legal, plan, retry

from .helpers import NOW, to_datetime

POLICY = RetryPolicy()
COMMANDS: Mapping[type[Any], Callable[[State], Any]] = {
    Transit: lambda state: Transit(state, "next"),
    Pause: Pause,
    Resume: Resume,
    Delay: lambda state: Delay(state, "next", after=1),
    End: End,
    Require: Require,
    Execute: Execute,
}
LEGAL = """
             NEW      RUNNING  PAUSED   DELAYED  ENDED
    Transit  RUNNING  RUNNING  RUNNING  RUNNING  -
    Pause    PAUSED   PAUSED   PAUSED   PAUSED   -
    Resume   -        -        RUNNING  RUNNING  -
    Delay    DELAYED  DELAYED  DELAYED  DELAYED  -
    End      ENDED    ENDED    ENDED    ENDED    -
    Require  NEW      RUNNING  PAUSED   DELAYED  -
    Execute  NEW      RUNNING  PAUSED   DELAYED  -
"""
"""The law, written down a second time: which status follows, by command and status before."""


def law() -> dict[tuple[Status, type[Any]], Status | None]:
    by_name = {kind.__name__: kind for kind in COMMANDS}
    header, *rows = (line.split() for line in LEGAL.strip().splitlines())
    return {
        (Status[before], by_name[row[0]]): None if after == "-" else Status[after]
        for row in rows
        for before, after in zip(header, row[1:], strict=True)
    }


CASES = list(product(Status, COMMANDS))


def state_in(status: Status) -> State:
    return State("a", rev=3, transition=Transition(to="" if status is Status.NEW else "here",
                                                   status=status))  # fmt: skip


# ---------------------------------------------------------------- legality


def test_the_law_covers_every_status_and_every_command() -> None:
    assert set(CASES) == set(law())
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize(("status", "kind"), CASES)
def test_the_table_says_what_the_law_says(status: Status, kind: type[Any]) -> None:
    assert law()[status, kind] == TRANSITIONS[status].get(kind)


@pytest.mark.parametrize(("status", "kind"), CASES)
def test_an_illegal_command_raises_and_a_legal_one_does_not(
    status: Status, kind: type[Any]
) -> None:
    command = COMMANDS[kind](state_in(status))
    if law()[status, kind] is None:
        with pytest.raises(IllegalTransitionError) as raised:
            check_legal(command)
        assert (raised.value.id, raised.value.status, raised.value.command) == (
            "a",
            status.name,
            kind.__name__,
        )
    else:
        check_legal(command)


@pytest.mark.parametrize(("status", "kind"), list(product(Status, MOVES)))
def test_a_move_is_made_if_it_is_legal_and_gives_the_status_of_the_law(
    status: Status, kind: type[Any]
) -> None:
    command = COMMANDS[kind](state_in(status))
    expected = law()[status, kind]
    if expected is None:
        with pytest.raises(IllegalTransitionError):
            MOVES[kind](command, NOW)
    else:
        assert expected is MOVES[kind](command, NOW).transition.status


@pytest.mark.parametrize(("status", "kind"), list(product(Status, [*MOVES, Require])))
def test_a_commit_is_planned_if_what_it_holds_is_legal(status: Status, kind: type[Any]) -> None:
    commit = Commit(COMMANDS[kind](state_in(status)))
    if law()[status, kind] is None:
        with pytest.raises(IllegalTransitionError):
            plan(commit, commit_id="c", now=NOW, policy=POLICY)
    else:
        planned = plan(commit, commit_id="c", now=NOW, policy=POLICY)
        written = [write.state.transition.status for write in planned.writes]
        assert written == ([] if kind is Require else [law()[status, kind]])


def test_every_command_of_the_table_has_a_move_or_moves_no_state() -> None:
    in_table = {kind for row in TRANSITIONS.values() for kind in row}
    assert set(MOVES) == in_table - {Require, Execute}


# ---------------------------------------------------------------- purity


def test_transitions_import_no_io_and_no_chance() -> None:
    """Deciding is pure: the time and the commit id are arguments."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(transitions))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(f"{'.' * node.level}{node.module or ''}")
    assert imported <= {
        *("__future__", "collections.abc", "functools", "typing", "msgspec.structs"),
        *(".", ".commands", ".data", ".errors", ".frozendict", ".leases", ".plan", ".state"),
    }


@pytest.mark.parametrize("kind", MOVES)
def test_a_move_leaves_the_state_it_was_given_as_it_was(kind: type[Any]) -> None:
    state = state_in(Status.PAUSED)
    MOVES[kind](COMMANDS[kind](state), NOW)
    assert state == state_in(Status.PAUSED)


@pytest.mark.parametrize("kind", MOVES)
def test_a_move_changes_nothing_but_the_transition(kind: type[Any]) -> None:
    state = state_in(Status.PAUSED).with_labels(a="b").attach("d", b"x")
    new = MOVES[kind](COMMANDS[kind](state), NOW)
    for field in set(State.__struct_fields__) - {"transition"}:
        assert getattr(state, field) == getattr(new, field), field


# ---------------------------------------------------------------- what each command makes

HERE = state_in(Status.RUNNING)
PAUSED = state_in(Status.PAUSED)


def test_transit_runs_at_the_flow() -> None:
    made = transitions.transit(Transit(PAUSED, "next", annotations={"a": "b"}), NOW)
    assert made.transition == Transition(to="next", status=Status.RUNNING, annotations={"a": "b"})


def test_transit_with_a_timeout_comes_back_to_the_same_flow_unless_told_otherwise() -> None:
    same = transitions.transit(Transit(HERE, "next", timeout=2), NOW)
    other = transitions.transit(Transit(HERE, "next", timeout=2, on_timeout="late"), NOW)
    assert same.transition.alarm == Alarm(NOW + 2_000, "next")
    assert other.transition.alarm == Alarm(NOW + 2_000, "late")


def test_pause_keeps_the_flow_to_resume_at_unless_told_otherwise() -> None:
    made = transitions.pause(Pause(HERE, reason="why", annotations={"a": "b"}), NOW)
    assert made.transition == Transition(
        to="here", status=Status.PAUSED, reason="why", annotations={"a": "b"}
    )
    assert transitions.pause(Pause(HERE, to="there"), NOW).transition.to == "there"


def test_a_state_that_is_at_no_flow_can_be_paused() -> None:
    made = transitions.pause(Pause(State("new")), NOW)
    assert made.transition == Transition(to="", status=Status.PAUSED)


def test_pause_with_a_timeout_goes_where_it_would_resume_unless_told_otherwise() -> None:
    same = transitions.pause(Pause(HERE, timeout=2), NOW)
    other = transitions.pause(Pause(HERE, timeout=2, on_timeout="late"), NOW)
    assert same.transition.alarm == Alarm(NOW + 2_000, "here")
    assert other.transition.alarm == Alarm(NOW + 2_000, "late")


def test_resume_runs_where_it_was_to_resume_with_cause_resume() -> None:
    made = transitions.resume(Resume(PAUSED, annotations={"a": "b"}), NOW)
    assert made.transition == Transition(
        to="here", status=Status.RUNNING, cause=Cause.RESUME, annotations={"a": "b"}
    )


def test_delay_after_some_time_rings_at_its_flow() -> None:
    made = transitions.delay(Delay(HERE, after=1.5), NOW)
    assert made.transition == Transition(
        to="here", status=Status.DELAYED, alarm=Alarm(NOW + 1_500, "here")
    )


def test_delay_until_an_instant_rings_at_the_flow_it_names() -> None:
    at: datetime = to_datetime(NOW + 7)
    made = transitions.delay(Delay(HERE, "next", at=at), NOW)
    assert made.transition == Transition(
        to="next", status=Status.DELAYED, alarm=Alarm(NOW + 7, "next")
    )


def test_end_is_at_no_flow_and_keeps_its_reason() -> None:
    made = transitions.end(End(HERE, "done", annotations={"a": "b"}), NOW)
    assert made.transition == Transition(status=Status.ENDED, reason="done", annotations={"a": "b"})


# ---------------------------------------------------------------- retries


def test_a_retry_is_delayed_at_the_same_flow_until_its_backoff_is_over() -> None:
    retried = retry(HERE, "ValueError: no", NOW, RetryPolicy(backoff=2))
    assert retried is not None
    assert retried.transition == Transition(
        to="here",
        status=Status.DELAYED,
        cause=Cause.RETRY,
        attempt=1,
        reason="ValueError: no",
        alarm=Alarm(NOW + 2_000, "here"),
    )


def test_retries_end_when_the_attempts_are_used_up() -> None:
    """``max_attempts`` counts the first run: three runs are two retries."""
    policy = RetryPolicy(max_attempts=3)
    state: State | None = HERE
    statuses: list[Status] = []
    for _ in range(3):
        assert state is not None
        state = retry(state, "ValueError: no", NOW, policy)
        assert state is not None
        statuses.append(state.transition.status)
    assert statuses == [Status.DELAYED, Status.DELAYED, Status.ENDED]
    assert state is not None
    assert state.transition.reason == "gave up after 3 attempts: ValueError: no"
    assert state.transition.cause is Cause.RETRY


def test_a_state_that_was_given_up_after_one_attempt_says_so_in_good_english() -> None:
    ended = retry(HERE, "no", NOW, RetryPolicy(max_attempts=1))
    assert ended is not None
    assert ended.transition.reason == "gave up after 1 attempt: no"


def test_a_policy_that_is_switched_off_leaves_a_state_alone() -> None:
    assert retry(HERE, "no", NOW, RetryPolicy(enabled=False)) is None


def test_a_state_s_own_policy_comes_before_the_engine_s() -> None:
    own = State("a", transition=HERE.transition, retry=RetryPolicy(enabled=False))
    assert retry(own, "no", NOW, RetryPolicy(enabled=True)) is None


# ---------------------------------------------------------------- plans


def due(command: Any, policy: RetryPolicy = POLICY) -> tuple[int | None, str]:
    (write,) = plan(Commit(command), commit_id="c", now=NOW, policy=policy).writes
    return write.due, write.flow


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (Transit(HERE, "next"), (NOW + 30_000, "next")),  # its lease
        (Transit(HERE, "next", timeout=5, on_timeout="late"), (NOW + 5_000, "late")),
        (Transit(HERE, "next", timeout=50, on_timeout="late"), (NOW + 30_000, "next")),
        (Pause(HERE), (None, "")),
        (Pause(HERE, timeout=5), (NOW + 5_000, "here")),
        (Delay(HERE, "next", after=5), (NOW + 5_000, "next")),
        (End(HERE), (None, "")),
    ],
)
def test_a_version_is_due_at_its_alarm_or_lease_whichever_is_first(
    command: Any, expected: tuple[int | None, str]
) -> None:
    assert expected == due(command)


def test_without_retries_there_is_no_lease() -> None:
    assert due(Transit(HERE, "next"), RetryPolicy(enabled=False)) == (None, "next")


def test_a_plan_writes_in_the_order_of_the_commands_and_requires_the_rest() -> None:
    other, third = State("b", rev=8), State("c", rev=9)
    planned = plan(
        Commit(End(HERE), Require(other), Transit(third, "x")),
        commit_id="c-1",
        now=NOW,
        policy=POLICY,
    )
    assert planned.commit_id == "c-1"
    assert [write.state.id for write in planned.writes] == ["a", "c"]
    assert planned.requires == (("b", 8),)


def test_pending_data_becomes_a_payload_and_a_reference_to_this_commit() -> None:
    pending = Data(b"content", "text/plain")
    old = DataRef(2, 1, "text/plain", "0" * 64)
    state = HERE.attach("new", pending).attach("old", old)
    planned = plan(Commit(End(state)), commit_id="c", now=NOW, policy=POLICY)
    ref = DataRef(0, 7, "text/plain", pending.checksum)
    assert planned.payloads == {pending.checksum: b"content"}
    assert planned.writes[0].state.data == {"new": ref, "old": old}


def test_pending_data_of_a_stacked_state_is_stored_too() -> None:
    pending = Data(b"content")
    state = HERE.stack("caller", State("caller").attach("new", pending))
    planned = plan(Commit(End(state)), commit_id="c", now=NOW, policy=POLICY)
    assert planned.payloads == {pending.checksum: b"content"}
    stacked = planned.writes[0].state.stacked["caller"]
    assert stacked.data == {"new": DataRef(0, 7, pending.content_type, pending.checksum)}


def test_the_same_content_twice_is_one_payload() -> None:
    pending = Data(b"content")
    commit = Commit(End(HERE.attach("x", pending)), End(State("b").attach("y", pending)))
    planned = plan(commit, commit_id="c", now=NOW, policy=POLICY)
    assert planned.payloads == {pending.checksum: b"content"}
