"""Commands are values; what no engine could do is refused where it is made or planned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any, get_args

import pytest

from flowstate import (
    AnyCommand,
    Command,
    Commit,
    Delay,
    End,
    Engine,
    Execute,
    Fail,
    InvalidValueError,
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

NUL = "a\0b"
SURROGATE = "a\ud800b"
A = State("a", transition=Transition(to="here", status=Status.RUNNING))
NEW = State("new")

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "an empty flow id": (lambda: Transit(A, ""), "Transit.to: the flow id may not be empty"),
    "a flow id that is no string": (lambda: Transit(A, 5), "Transit.to: takes a string, not 5"),  # type: ignore[arg-type]
    "an empty flow to pause at": (lambda: Pause(A, to=""), "Pause.to: the flow id may not be"),
    "an empty flow to delay to": (lambda: Delay(A, to="", after=1), "Delay.to: the flow id may"),
    "a flow id with NUL": (lambda: Transit(A, NUL), "Transit.to: may not hold a NUL"),
    "a flow id with a lone surrogate": (
        lambda: Transit(A, SURROGATE),
        "Transit.to: is not valid Unicode",
    ),
    "a flow id that cannot be hashed": (lambda: Transit(A, []), "Transit.to: takes a string"),  # type: ignore[arg-type]
    "a flow id with NUL, and a timeout": (
        lambda: Transit(A, NUL, timeout=1),
        "Transit.to: may not hold a NUL",
    ),
    "a flow to pause at with NUL": (lambda: Pause(A, to=NUL), "Pause.to: may not hold a NUL"),
    "a reason with NUL": (lambda: End(A, NUL), "End.reason: may not hold a NUL"),
    "a reason with a lone surrogate": (
        lambda: Pause(A, reason=SURROGATE),
        "Pause.reason: is not valid Unicode",
    ),
    "an annotation that is no string": (
        lambda: Resume(A, annotations={"n": 1}),  # type: ignore[dict-item]
        r"Resume.annotations\['n'\]: takes a string, not 1",
    ),
    "a naive datetime": (
        lambda: Delay(A, at=datetime(2030, 1, 1)),  # noqa: DTZ001  (that is the point)
        "Delay.at: 2030-01-01T00:00:00 has no time zone",
    ),
    "a time before 1970": (
        lambda: Delay(A, at=datetime(1960, 1, 1, tzinfo=UTC)),
        "Delay.at: takes milliseconds since the epoch",
    ),
    "no time to delay until": (lambda: Delay(A), "Delay: takes either after=… or at=…"),
    "two times to delay until": (
        lambda: Delay(A, after=1, at=datetime(2030, 1, 1, tzinfo=UTC)),
        "Delay: takes either after=… or at=…",
    ),
    "a negative duration": (lambda: Delay(A, after=-1), "Delay.after: takes 0 to .* not -1"),
    "a duration that is no number": (
        lambda: Delay(A, after="1"),  # type: ignore[arg-type]
        "Delay.after: takes seconds or a timedelta, not '1'",
    ),
    "a duration that is not finite": (
        lambda: Transit(A, "x", timeout=float("inf")),
        "Transit.timeout: takes 0 to .* not inf",
    ),
    "what is no command, in a commit": (
        lambda: Commit("End"),  # type: ignore[arg-type]
        "Commit: takes commands, not 'End'",
    ),
    "a flow for a timeout that there is not": (
        lambda: Pause(A, on_timeout="late"),
        "Pause.on_timeout: needs a timeout",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_command_is_refused_where_it_is_made(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        make()


OF_A_STATE: dict[type[Any], Callable[[Any], object]] = {
    Transit: lambda state: Transit(state, "x"),
    Pause: Pause,
    Resume: Resume,
    Delay: lambda state: Delay(state, after=1),
    Retry: lambda state: Retry(state, after=1),
    Fail: Fail,
    Save: Save,
    End: End,
    Require: Require,
    Execute: Execute,
}


def test_every_command_but_commit_and_noop_is_of_a_state() -> None:
    assert {*OF_A_STATE, Commit, Noop} == set(get_args(AnyCommand))


@pytest.mark.parametrize("kind", OF_A_STATE)
@pytest.mark.parametrize("given", ["order-1", None, 5, State])
def test_a_command_says_what_it_takes_if_it_is_given_no_state(
    kind: type[Any], given: object
) -> None:
    """Whoever gives an id is told how to come by its state."""
    with pytest.raises(InvalidValueError) as raised:
        OF_A_STATE[kind](given)
    assert raised.value.field == f"{kind.__name__}.state"
    assert f"takes a State, not {given!r}; begin a new one" in raised.value.problem
    assert "await engine.get('order-1')" in raised.value.problem


PLANS: dict[str, tuple[Command, str]] = {
    "an empty commit": (Commit(), "Commit: is empty: give it at least one command"),
    "the same id twice": (Commit(End(A), End(A)), "Commit: names state 'a' twice"),
    "the same id twice, once required": (Commit(Require(A), End(A)), "Commit: names state 'a' tw"),
    "a commit in a commit": (Commit(Commit(End(A))), "Commit: cannot hold Commit: it takes Trans"),  # type: ignore[arg-type]
    "an execute in a commit": (Commit(Execute(A)), "Commit: cannot hold Execute"),  # type: ignore[arg-type]
    "a noop in a commit": (Commit(End(A), Noop()), "Commit: cannot hold Noop"),  # type: ignore[arg-type]
    "a delay to nowhere": (Commit(Delay(NEW, after=1)), "Delay.to: state 'new' is at no flow"),
    "a pause that times out to nowhere": (
        Commit(Pause(NEW, timeout=1)),
        "Pause.to: state 'new' is at no flow",
    ),
    "a bare Require": (Require(A), "Require: is only for inside a Commit"),
    "what is no command": ("End", "command: takes one of flowstate's commands, not 'End'"),  # type: ignore[dict-item]
}


@pytest.mark.anyio
@pytest.mark.parametrize(("command", "message"), PLANS.values(), ids=PLANS)
async def test_what_cannot_be_planned_is_refused_and_changes_nothing(
    engine: Engine, command: Command, message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        await engine.do(command)
    assert await engine.driver.head() == 0


def test_durations_may_be_timedeltas() -> None:
    assert Delay(A, after=90) == Delay(A, after=timedelta(minutes=1.5))
    assert Transit(A, "x", timeout=0.5) == Transit(A, "x", timeout=timedelta(milliseconds=500))


def test_annotations_of_a_command_are_frozen_where_it_is_made() -> None:
    annotations = {"who": "ann"}
    command = End(A, annotations=annotations)
    annotations["who"] = "bob"
    assert command.annotations == {"who": "ann"}


def test_a_commit_keeps_its_commands_in_order() -> None:
    assert Commit(End(A), Transit(NEW, "x")).commands == (End(A), Transit(NEW, "x"))


EXAMPLES: dict[type[Any], Command] = {
    Transit: Transit(NEW, "x"),
    Pause: Pause(A),
    Resume: Resume(State("p", transition=Transition(to="x", status=Status.PAUSED))),
    Delay: Delay(A, after=1),
    Retry: Retry(A, after=1),
    Fail: Fail(A),
    Save: Save(State("p", transition=Transition(to="x", status=Status.PAUSED))),
    End: End(A),
    Require: Commit(Require(State("absent"))),  # only inside a commit
    Commit: Commit(End(NEW)),
    Execute: Execute(A),
    Noop: Noop(),
}


def test_there_is_an_example_of_every_command() -> None:
    assert set(get_args(AnyCommand)) == set(EXAMPLES)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", get_args(AnyCommand))
async def test_the_engine_handles_every_command(engine: Engine, kind: type[Any]) -> None:
    """A command that was added to ``AnyCommand`` and forgotten in ``Engine.do`` would raise."""
    given = await engine.do(EXAMPLES[kind])
    expected: dict[type[Any], type] = {
        Commit: tuple,
        Require: tuple,
        Execute: NoneType,
        Noop: NoneType,
    }
    assert isinstance(given, expected.get(kind, State))


def test_planning_takes_nothing_but_its_arguments() -> None:
    """The same commit, id, time and policy give the same plan, whenever and wherever."""
    commit = Commit(Delay(A, after=2), Transit(NEW, "x", timeout=3))
    plans = {
        transitions.plan(commit, commit_id="c", now=5_000, policy=RetryPolicy()) for _ in range(3)
    }
    assert len(plans) == 1
