"""Accepted means readable: every field of every value is checked where the value is made.

That every store gives back what is accepted is a law of the conformance suite.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as some
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields as struct_fields

from flowstate import (
    Alarm,
    Command,
    Commit,
    Data,
    DataRef,
    Execute,
    InvalidValueError,
    Noop,
    Query,
    Require,
    RetryPolicy,
    State,
    Transition,
)
from flowstate.codec import decode, encode_state
from flowstate.frozendict import EMPTY, FrozenDict
from flowstate.state import MAX_ALARMS, MAX_STACKED
from flowstate.testing import values
from flowstate.testing.conformance import accepted
from flowstate.testing.odd import EXAMPLES, UNCHECKED, Try, fields, kinds, odd_parts, tries

FIELDS = fields()


def test_every_class_of_values_is_tried() -> None:
    """A new one has an example, or is one that nobody gives values to."""
    assert set(kinds()) == set(EXAMPLES) | UNCHECKED


def test_every_class_of_values_is_in_the_law_of_drivers() -> None:
    """What is stored, or a driver is asked with, is tried on each; the rest is of the engine."""
    engines = {Command, Commit, Execute, Noop, Require}
    assert set(EXAMPLES) == {*accepted.HELD, *accepted.MOVES, *accepted.ASKED} | engines


DRAWN: dict[type[Struct], some.SearchStrategy[Any]] = {
    State: values.states(),
    Transition: values.transitions(),
    Alarm: values.alarms(),
    RetryPolicy: values.policies(),
    Data: values.pending(),
    DataRef: values.references(),
}
NOT_DRAWN = {(State, "rev"), (State, "committed_at")}  # a new state has none
OPTIONAL = [
    (kind, field.name, field.default)
    for kind in DRAWN
    for field in struct_fields(kind)
    if field.default is not NODEFAULT and (kind, field.name) not in NOT_DRAWN
]


@pytest.mark.parametrize(
    ("kind", "field", "default"), OPTIONAL, ids=[f"{k.__name__}.{f}" for k, f, _ in OPTIONAL]
)
def test_a_strategy_draws_every_field(kind: type[Struct], field: str, default: Any) -> None:
    """Whatever can be left out is given at times."""
    quick = settings(database=None, derandomize=True, max_examples=1_000, phases=[Phase.generate])
    assert find(DRAWN[kind], lambda value: getattr(value, field) != default, settings=quick)


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[f"{k.__name__}.{f}" for k, f in FIELDS])
def test_whatever_is_given_is_refused_or_made_plain(kind: type[Struct], field: str) -> None:
    """A field takes what it is given, and holds it in plain types then, or says what is wrong."""
    taken = 0
    for each in tries(kind, field):
        if (refused := refusal(each)) is not None:
            assert refused.field, each.what
            assert len(str(refused)) < 2_000, each.what
        else:
            assert [] == list(odd_parts(each.make())), each.what
            taken += 1
    assert taken, "nothing that was tried is taken"


def refusal(each: Try) -> InvalidValueError | None:
    """What is said against it; None if it is taken. All else is an error of the test."""
    try:
        each.make()
    except InvalidValueError as error:
        return error
    except Exception as error:
        error.add_note(f"given: {each.what}")
        raise
    return None


@pytest.mark.parametrize(
    "field",
    State.__struct_fields__ + tuple(f"transition.{f}" for f in Transition.__struct_fields__),
)
def test_an_accepted_state_is_the_same_from_its_json(field: str) -> None:
    of_transition, _, name = field.rpartition(".")
    for each in tries(Transition if of_transition else State, name):
        if refusal(each) is None:
            value = each.make()
            state = State("a", transition=value) if of_transition else value
            read = decode(encode_state(state), State)
            assert state == read, each.what
            assert [] == list(odd_parts(read)), each.what


# ---------------------------------------------------------------- what is made of a subclass


class Word(enum.StrEnum):
    MAIL = "mail"


class Old(str, enum.Enum):  # noqa: UP042  (they differ: str() gives the name)
    MAIL = "mail"


@pytest.mark.parametrize("word", [Word.MAIL, Old.MAIL])
def test_text_of_a_subclass_becomes_its_characters(word: Any) -> None:
    """A member of an enumeration is its value, never its name, wherever there is text."""
    state = State(word, labels={word: word}, transition=Transition(to=word, reason=word))
    assert state == State(
        "mail", labels={"mail": "mail"}, transition=Transition(to="mail", reason="mail")
    )
    texts = [state.id, *state.labels, *state.labels.values(), state.transition.to]
    assert {str} == {type(text) for text in texts}


def test_content_may_be_anything_like_bytes() -> None:
    for content in (bytearray(b"pears"), memoryview(b"pears"), memoryview(b"p e a r s")[::2]):
        assert Data(b"pears") == Data(content)  # type: ignore[arg-type]


def test_a_view_that_was_released_is_refused() -> None:
    view = memoryview(b"pears")
    view.release()
    with pytest.raises(InvalidValueError, match=r"Data.content: takes bytes that can be read"):
        Data(view)  # type: ignore[arg-type]


# ---------------------------------------------------------------- frozen by hand

A = State("a", labels={"x": "1"}, stacked={"s": State("b")}).attach("d", b"pears")
BY_HAND: dict[str, Callable[[], object]] = {
    "labels": lambda: State("a", labels=FrozenDict({"n": 1})),  # type: ignore[dict-item]
    "data": lambda: State("a", data=FrozenDict({"d": b"pears"})),  # type: ignore[dict-item]
    "stacked": lambda: State("a", stacked=FrozenDict({"s": "b"})),  # type: ignore[dict-item]
    "annotations of a transition": lambda: Transition(annotations=FrozenDict({"": "v"})),
    "labels of a query": lambda: Query(labels=FrozenDict({"k": "\0"})),
    "of the type of labels": lambda: type(A.labels)({"n": 1}),  # type: ignore[call-arg]
    "of the type of data": lambda: type(A.data)({"d": b"pears"}),  # type: ignore[call-arg]
    "of the type of stacked": lambda: type(A.stacked)({"s": "b"}),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("make", BY_HAND.values(), ids=BY_HAND)
def test_that_a_mapping_is_frozen_does_not_pass_for_a_check(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError):
        make()


def test_what_was_checked_is_not_looked_at_again() -> None:
    """A mapping of another state is taken over as it is."""
    other = State("b", labels=A.labels, data=A.data, stacked=A.stacked)
    assert other.labels is A.labels
    assert other.data is A.data
    assert other.stacked is A.stacked
    assert State("b", labels={}, data={}, stacked={}).labels is EMPTY


# ---------------------------------------------------------------- depth


def test_states_may_be_stacked_so_deep_and_no_deeper() -> None:
    state = State("0")
    for depth in range(MAX_STACKED):
        state = State(f"{depth + 1}").stack("inner", state)
    problem = (
        rf"state 'next', stacked: is {MAX_STACKED + 1} states deep; no more than {MAX_STACKED}"
    )
    with pytest.raises(InvalidValueError, match=problem):
        State("next").stack("inner", state)
    with pytest.raises(InvalidValueError, match="states deep"):
        state.stack("itself", state)
    assert state == decode(encode_state(state), State)


def test_how_many_states_are_beside_each_other_does_not_count() -> None:
    beside = {f"{n}": State(f"{n}") for n in range(MAX_STACKED * 2)}
    assert State("a", stacked=beside).stack("one more", State("b")).stacked.keys() > beside.keys()


def test_alarms_may_stand_behind_each_other_so_far_and_no_further() -> None:
    alarm = Alarm(5, "ring")
    for _ in range(MAX_ALARMS):
        alarm = Alarm(5, "ring", then=alarm)
    with pytest.raises(InvalidValueError, match=rf"alarm.then: .* more than {MAX_ALARMS}"):
        Alarm(5, "ring", then=alarm)


# ---------------------------------------------------------------- what an error says

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a content type that is None": (
        lambda: Data(b"1", None),  # type: ignore[arg-type]
        "Data.content_type: takes a string, not None",
    ),
    "content that is text": (
        lambda: Data("1"),  # type: ignore[arg-type]
        "Data.content: takes bytes, not '1'",
    ),
    "a flag that is a number": (
        lambda: RetryPolicy(enabled=1),  # type: ignore[arg-type]
        "retry.enabled: takes True or False, not 1",
    ),
    "half an attempt": (
        lambda: Transition(attempt=1.5),  # type: ignore[arg-type]
        "transition.attempt: takes a whole number from 0, not 1.5",
    ),
    "a revision of 64 bits": (
        lambda: State("a", rev=2**63),
        r"state 'a', rev: takes a revision: a whole number up to 2\*\*63 - 1, not 9223372",
    ),
    "a number that cannot be written": (
        lambda: State("a", rev=10**5000),
        r"state 'a', rev: takes .* not a value of type int",
    ),
    "a negative revision": (
        lambda: DataRef(-1, 1, "text/plain", "0" * 64),
        "DataRef.rev: takes a revision: a whole number from 0, not -1",
    ),
    "a checksum that is none": (
        lambda: DataRef(1, 1, "text/plain", "A" * 64),
        "DataRef.checksum: takes a SHA-256, 64 lower-case hexadecimal digits, not 'AAAA",
    ),
    "the text of a status": (
        lambda: Transition(status="paused"),  # type: ignore[arg-type]
        "transition.status: takes a Status, not 'paused'",
    ),
    "a reason with NUL": (
        lambda: Transition(reason="a\0b"),
        r"transition.reason: may not hold a NUL character: 'a\\x00b'",
    ),
    "a policy that is a mapping": (
        lambda: State("a", retry={"lease": 5}),  # type: ignore[arg-type]
        "state 'a', retry: takes a RetryPolicy, not {'lease': 5}",
    ),
    "a transition that is None": (
        lambda: State("a", transition=None),  # type: ignore[arg-type]
        "state 'a', transition: takes a Transition, not None",
    ),
    "an alarm that is a time": (
        lambda: Transition(alarm=5),  # type: ignore[arg-type]
        "transition.alarm: takes an Alarm, not 5",
    ),
    "what is long": (
        lambda: State("a", labels={"k": ["x" * 1_000]}),  # type: ignore[dict-item]
        r"labels\['k'\]: takes a string, not \['x{198}…$",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_an_error_names_the_field_and_what_was_given_and_what_is_taken(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        make()


def test_a_state_of_a_subclass_is_refused() -> None:
    """No store gives it back; a state would not even be equal to it."""

    class Order(State, frozen=True):
        pass

    with pytest.raises(InvalidValueError, match="takes a plain State, not one of the subclass Ord"):
        A.stack("order", Order("o"))
