"""What is legal in which status, and what each command makes of a state."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import product
from typing import Any, get_args

import pytest

from flowstate import (
    Alarm,
    AnyCommand,
    Cause,
    Commit,
    Delay,
    End,
    Execute,
    Fail,
    IllegalTransitionError,
    Noop,
    Pause,
    Require,
    Resume,
    Retry,
    RetryPolicy,
    Save,
    State,
    Status,
    Transit,
    Transition,
    transitions,
)
from flowstate.transitions import MOVES, TRANSITIONS, check_legal, plan

from .helpers import NOW, to_datetime

POLICY = RetryPolicy()
COMMANDS: Mapping[type[Any], Callable[[State], Any]] = {
    Transit: lambda state: Transit(state, "next"),
    Pause: Pause,
    Resume: Resume,
    Delay: lambda state: Delay(state, "next", after=1),
    Retry: lambda state: Retry(state, after=1),
    Fail: Fail,
    End: End,
    Save: Save,
    Require: Require,
    Execute: Execute,
}
LEGAL = """
             NEW      RUNNING  PAUSED   DELAYED  FAILED   ENDED
    Transit  RUNNING  RUNNING  RUNNING  RUNNING  RUNNING  -
    Pause    PAUSED   PAUSED   PAUSED   PAUSED   PAUSED   -
    Resume   -        -        RUNNING  RUNNING  RUNNING  -
    Delay    DELAYED  DELAYED  DELAYED  DELAYED  DELAYED  -
    Retry    -        DELAYED  -        -        -        -
    Fail     -        FAILED   FAILED   FAILED   -        -
    End      ENDED    ENDED    ENDED    ENDED    ENDED    -
    Save     -        -        PAUSED   DELAYED  FAILED   -
    Require  NEW      RUNNING  PAUSED   DELAYED  FAILED   ENDED
    Execute  NEW      RUNNING  PAUSED   DELAYED  FAILED   -
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
            MOVES[kind](command, NOW, POLICY)
    else:
        assert expected is MOVES[kind](command, NOW, POLICY).transition.status


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


def test_every_command_of_a_state_is_in_the_table_and_has_a_move_or_moves_none() -> None:
    in_table = {kind for row in TRANSITIONS.values() for kind in row}
    assert set(get_args(AnyCommand)) - {Commit, Noop} == in_table
    assert in_table - {Require, Execute} == set(MOVES)


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
        *(
            ".",
            ".checks",
            ".commands",
            ".data",
            ".errors",
            ".frozendict",
            ".leases",
            ".plan",
            ".state",
        ),
    }


@pytest.mark.parametrize("kind", MOVES)
def test_a_move_leaves_the_state_it_was_given_as_it_was(kind: type[Any]) -> None:
    status = Status.RUNNING if kind is Retry else Status.PAUSED
    state = state_in(status)
    MOVES[kind](COMMANDS[kind](state), NOW, POLICY)
    assert state == state_in(status)


@pytest.mark.parametrize("kind", MOVES)
def test_a_move_changes_nothing_but_the_transition(kind: type[Any]) -> None:
    status = Status.RUNNING if kind is Retry else Status.PAUSED
    state = state_in(status).with_labels(a="b").attach("d", b"x")
    new = MOVES[kind](COMMANDS[kind](state), NOW, POLICY)
    for field in set(State.__struct_fields__) - {"transition"}:
        assert getattr(state, field) == getattr(new, field), field


# ---------------------------------------------------------------- what each command makes

HERE = state_in(Status.RUNNING)
PAUSED = state_in(Status.PAUSED)


def test_transit_runs_at_the_flow() -> None:
    made = transitions.transit(Transit(PAUSED, "next", annotations={"a": "b"}), NOW, POLICY)
    assert made.transition == Transition(to="next", status=Status.RUNNING, annotations={"a": "b"})


def test_transit_with_a_timeout_comes_back_to_the_same_flow_unless_told_otherwise() -> None:
    same = transitions.transit(Transit(HERE, "next", timeout=2), NOW, POLICY)
    other = transitions.transit(Transit(HERE, "next", timeout=2, on_timeout="late"), NOW, POLICY)
    assert same.transition.alarm == Alarm(NOW + 2_000, "next")
    assert other.transition.alarm == Alarm(NOW + 2_000, "late")


def test_pause_keeps_the_flow_to_resume_at_unless_told_otherwise() -> None:
    made = transitions.pause(Pause(HERE, reason="why", annotations={"a": "b"}), NOW, POLICY)
    assert made.transition == Transition(
        to="here", status=Status.PAUSED, reason="why", annotations={"a": "b"}
    )
    assert transitions.pause(Pause(HERE, to="there"), NOW, POLICY).transition.to == "there"


def test_a_state_that_is_at_no_flow_can_be_paused() -> None:
    made = transitions.pause(Pause(State("new")), NOW, POLICY)
    assert made.transition == Transition(to="", status=Status.PAUSED)


def test_pause_with_a_timeout_goes_where_it_would_resume_unless_told_otherwise() -> None:
    same = transitions.pause(Pause(HERE, timeout=2), NOW, POLICY)
    other = transitions.pause(Pause(HERE, timeout=2, on_timeout="late"), NOW, POLICY)
    assert same.transition.alarm == Alarm(NOW + 2_000, "here")
    assert other.transition.alarm == Alarm(NOW + 2_000, "late")


def test_resume_runs_where_it_was_to_resume_with_cause_resume() -> None:
    made = transitions.resume(Resume(PAUSED, annotations={"a": "b"}), NOW, POLICY)
    assert made.transition == Transition(
        to="here", status=Status.RUNNING, cause=Cause.RESUME, annotations={"a": "b"}
    )


def test_delay_after_some_time_rings_at_its_flow() -> None:
    made = transitions.delay(Delay(HERE, after=1.5), NOW, POLICY)
    assert made.transition == Transition(
        to="here", status=Status.DELAYED, alarm=Alarm(NOW + 1_500, "here")
    )


def test_delay_until_an_instant_rings_at_the_flow_it_names() -> None:
    at: datetime = to_datetime(NOW + 7)
    made = transitions.delay(Delay(HERE, "next", at=at), NOW, POLICY)
    assert made.transition == Transition(
        to="next", status=Status.DELAYED, alarm=Alarm(NOW + 7, "next")
    )


def test_end_is_at_no_flow_and_keeps_its_reason() -> None:
    made = transitions.end(End(HERE, "done", annotations={"a": "b"}), NOW, POLICY)
    assert made.transition == Transition(status=Status.ENDED, reason="done", annotations={"a": "b"})
