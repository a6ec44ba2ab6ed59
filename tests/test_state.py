"""State and its parts are immutable values that are checked where they are made."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec.structs import replace

from flowstate import (
    Alarm,
    Cause,
    Command,
    Commit,
    Data,
    DataRef,
    DecodeError,
    EncodeError,
    InvalidValueError,
    Query,
    RetryPolicy,
    State,
    StateNotFoundError,
    Status,
    Transit,
    Transition,
)
from flowstate.codec import decode
from flowstate.commands import Delay, End, Execute, Noop, Pause, Require, Resume
from flowstate.data import BYTES, checksum
from flowstate.leases import Place
from flowstate.plan import Write
from flowstate.query import Page
from flowstate.transitions import plan

FULL = State(
    "order-1",
    rev=7,
    labels={"queue": "mail"},
    annotations={"note": "n"},
    data={"new": Data(b"{}", "application/json"), "old": DataRef(3, 2, "text/plain", "c" * 64)},
    stacked={"caller": State("order-0", labels={"a": "b"})},
    transition=Transition(
        to="ship",
        status=Status.DELAYED,
        cause=Cause.RETRY,
        attempt=1,
        reason="ValueError: no",
        alarm=Alarm(1_700_000_000_000, "ship"),
        annotations={"who": "me"},
    ),
    retry=RetryPolicy(lease=5, max_attempts=9, backoff=0.5, max_backoff=60, enabled=False),
    committed_at=1_700_000_000_000,
)
VALUES: list[Any] = [
    FULL,
    FULL.transition,
    FULL.retry,
    FULL.data["new"],
    FULL.data["old"],
    Alarm(1, "ring"),
    Transit(FULL, "ship", annotations={"a": "b"}, timeout=3, on_timeout="late"),
    Pause(FULL, to="ship", reason="r", timeout=3, on_timeout="late"),
    Resume(FULL, annotations={"a": "b"}),
    Delay(FULL, at=datetime(2030, 1, 1, tzinfo=UTC)),
    Delay(FULL, to="ship", after=1.5),
    End(FULL, reason="done"),
    Require(FULL),
    Execute(FULL),
    Noop(),
    Commit(Transit(FULL, "ship"), End(State("other"))),
    Query(labels=[{"a": "b"}, {"c": "d"}], status=[Status.NEW, Status.ENDED], since=5, after=3),
    Write(FULL, RetryPolicy(max_attempts=1), 30_000, Place(5)),
    plan(
        Commit(End(State("a").attach("d", b"content")), Require(State("b"))),
        commit_id="c-1",
        now=5,
        policy=RetryPolicy(),
    ),
    Page((FULL,), 9),
]


def name(value: Any) -> str:
    return type(value).__name__


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("value", VALUES, ids=name)
def test_a_value_survives_pickling(value: Any) -> None:
    assert value == pickle.loads(pickle.dumps(value))  # noqa: S301  (written here)


@pytest.mark.parametrize("value", VALUES, ids=name)
def test_equal_values_have_equal_hashes(value: Any) -> None:
    other = pickle.loads(pickle.dumps(value))  # noqa: S301  (written here)
    assert {value} == {other}


@pytest.mark.parametrize("value", VALUES, ids=name)
def test_a_copy_of_a_value_equals_it(value: Any) -> None:
    assert value == copy.copy(value)
    assert value == copy.deepcopy(value)


@pytest.mark.parametrize("value", VALUES, ids=name)
def test_a_field_of_a_value_cannot_be_set(value: Any) -> None:
    field = value.__struct_fields__[0] if value.__struct_fields__ else "anything"
    with pytest.raises(AttributeError):
        setattr(value, field, None)


def test_states_that_differ_in_anything_are_not_equal() -> None:
    assert State("a", labels={"x": "1"}) == State("a", labels={"x": "1"})
    assert State("a", labels={"x": "1"}) != State("a", labels={"x": "2"})
    assert State("a") != State("a", rev=1)


async def charge(state: State, engine: Any) -> Command:
    return Commit(Transit(state.with_labels(paid="yes"), "ship"))


@pytest.mark.anyio
async def test_a_flow_is_tested_without_an_engine() -> None:
    """Values compare by value, so what a flow returns can be written down and compared."""
    state = State("order-1")
    expected = Commit(Transit(state.with_labels(paid="yes"), "ship"))
    assert expected == await charge(state, engine=None)


# ---------------------------------------------------------------- mappings cannot be changed

MAPPINGS: dict[str, Mapping[str, Any]] = {
    "labels": FULL.labels,
    "annotations": FULL.annotations,
    "data": FULL.data,
    "stacked": FULL.stacked,
    "transition.annotations": FULL.transition.annotations,
    "command.annotations": Transit(FULL, "ship", annotations={"a": "b"}).annotations,
    "an empty one": State("empty").labels,
}
CHANGES: dict[str, Callable[[Any], object]] = {
    "set": lambda mapping: mapping.__setitem__("k", "v"),
    "del": lambda mapping: mapping.__delitem__("k"),
    "pop": lambda mapping: mapping.pop("k", None),
    "popitem": lambda mapping: mapping.popitem(),
    "clear": lambda mapping: mapping.clear(),
    "update": lambda mapping: mapping.update(k="v"),
    "setdefault": lambda mapping: mapping.setdefault("k", "v"),
    "|=": lambda mapping: mapping.__ior__({"k": "v"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=MAPPINGS)
def test_changing_a_mapping_in_place_raises(
    mapping: Mapping[str, Any], change: Callable[[Any], object]
) -> None:
    before = dict(mapping)
    with pytest.raises(TypeError, match="read-only"):
        change(mapping)
    assert before == mapping


def test_a_state_does_not_see_later_changes_of_what_it_was_made_of() -> None:
    labels = {"queue": "mail"}
    state = State("order-1", labels=labels)
    labels["queue"] = "other"
    assert state.labels == {"queue": "mail"}


# ---------------------------------------------------------------- new states


def test_with_labels_adds_and_replaces_in_a_new_state() -> None:
    state = State("a", labels={"x": "1", "y": "1"})
    assert state.with_labels({"y-z": "3"}, y="2").labels == {"x": "1", "y": "2", "y-z": "3"}
    assert state.labels == {"x": "1", "y": "1"}


def test_without_labels_removes_and_ignores_what_is_not_there() -> None:
    state = State("a", labels={"x": "1", "y": "1"})
    assert state.without_labels("x", "z") == State("a", labels={"y": "1"})


def test_with_annotations_adds_and_replaces_in_a_new_state() -> None:
    state = State("a", annotations={"x": "1"})
    assert state.with_annotations(x="2").annotations == {"x": "2"}


def test_without_annotations_removes_and_ignores_what_is_not_there() -> None:
    state = State("a", annotations={"x": "1", "y": "1"})
    assert state.without_annotations("x", "z") == State("a", annotations={"y": "1"})


def test_with_retry_sets_the_policy_and_none_leaves_it_to_the_engine() -> None:
    policy = RetryPolicy(max_attempts=None)
    assert State("a", retry=policy) == State("a").with_retry(policy)
    assert State("a") == State("a", retry=policy).with_retry(None)


def test_detach_lets_payloads_go_and_ignores_what_is_not_there() -> None:
    state = State("a").attach("x", b"1").attach("y", b"2").attach("z", b"3")
    assert state.detach("x", "z", "none") == State("a").attach("y", b"2")


def test_attach_keeps_bytes_as_they_are() -> None:
    state = State("a").attach("raw", b"\x00\xff")
    assert state.data["raw"] == Data(b"\x00\xff", "application/octet-stream")


def test_attach_encodes_any_other_value_as_json() -> None:
    state = State("a").attach("order", {"items": [1, 2]})
    assert state.data["order"] == Data(b'{"items":[1,2]}', "application/json")


def test_attach_takes_over_a_reference() -> None:
    ref = DataRef(3, 2, "text/plain", "c" * 64)
    assert State("a").attach("old", ref).data == {"old": ref}


def test_attach_takes_a_content_type_but_not_an_empty_one() -> None:
    assert State("a").attach("p", b"x", content_type="image/png").data["p"] == Data(
        b"x", "image/png"
    )
    with pytest.raises(InvalidValueError, match="data 'p': the content type may not be empty"):
        State("a").attach("p", b"x", content_type="")


STORED = DataRef(3, 5, "application/octet-stream", checksum(b"pears"))


def test_attaching_what_is_pending_already_gives_the_same_state() -> None:
    for attached in (Data(b"pears"), Data(b"pears", stored=STORED)):
        state = State("a", data={"d": attached})
        assert state is state.attach("d", b"pears")
        assert state is state.attach("d", Data(b"pears"))
        assert state.data["d"] is state.evolve(data={"d": b"pears"}).data["d"]


def test_attaching_what_is_stored_already_remembers_where() -> None:
    """So the commit can keep the reference, or store the content if it is gone."""
    state = State("a", data={"d": STORED})
    again = {"d": Data(b"pears", stored=STORED)}
    assert again == state.attach("d", b"pears").data
    assert again == state.attach("d", Data(b"pears", stored=replace(STORED, rev=9))).data
    assert again == state.evolve(data={"d": b"pears"}).data


@pytest.mark.parametrize(
    "data",
    [(b"plums", BYTES), (b"pears", "text/plain"), (b"pears and apples", BYTES)],
    ids=["other content", "other content type", "other size"],
)
def test_data_knows_no_reference_to_other_content(data: tuple[bytes, str]) -> None:
    with pytest.raises(InvalidValueError, match=r"Data\.stored: refers to other content"):
        Data(*data, stored=STORED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("d", b"apple"),
        ("d", b"pears and apples"),
        ("d", Data(b"pears", "text/plain")),
        ("other", b"pears"),
    ],
    ids=["other content", "other size", "other content type", "other name"],
)
def test_attaching_anything_else_is_pending(name: str, value: Any) -> None:
    pending = value if isinstance(value, Data) else Data(value)
    assert pending == State("a", data={"d": STORED}).attach(name, value).data[name]


def test_attaching_a_reference_takes_it_whatever_was_there() -> None:
    """It says where the content is, which is more than the content does."""
    for attached in (Data(b"pears"), replace(STORED, rev=9)):
        assert {"d": STORED} == State("a", data={"d": attached}).attach("d", STORED).data


def test_stack_carries_a_state_and_unstack_lets_it_go() -> None:
    caller, callee = State("caller"), State("callee")
    carrying = callee.stack("caller", caller)
    assert carrying.stacked == {"caller": caller}
    assert callee == carrying.unstack("caller")


def test_unstacking_what_is_not_there_says_so() -> None:
    with pytest.raises(StateNotFoundError, match="stacked as 'caller' in state 'a'"):
        State("a").unstack("caller")


# ---------------------------------------------------------------- evolve


def test_evolve_makes_several_changes_in_one_new_state() -> None:
    """What is named is added or replaced, or removed if it is None; the rest stays."""
    policy = RetryPolicy(lease=5)
    state = State(
        "a",
        labels={"keep": "1", "change": "1", "go": "1"},
        annotations={"keep": "1", "go": "1"},
        data={"keep": STORED, "go": STORED},
        stacked={"go": State("s")},
    )
    assert state.evolve(
        labels={"change": "2", "new": "2", "go": None},
        annotations={"go": None},
        data={"new": {"n": 1}, "go": None},
        stacked={"new": State("t"), "go": None},
        retry=policy,
    ) == State(
        "a",
        labels={"keep": "1", "change": "2", "new": "2"},
        annotations={"keep": "1"},
        data={"keep": STORED, "new": Data(b'{"n":1}', "application/json")},
        stacked={"new": State("t")},
        retry=policy,
    )


def test_evolve_leaves_alone_what_it_is_not_given() -> None:
    assert FULL.evolve() is FULL
    assert FULL.evolve(labels={"queue": "mail"}) == FULL
    assert FULL.retry == FULL.evolve(annotations={"note": None}).retry


def test_evolve_removes_a_policy() -> None:
    assert FULL.evolve(retry=None).retry is None


def test_evolve_ignores_what_is_to_go_but_is_not_there() -> None:
    none = {"none": None}
    assert FULL.evolve(labels=none, annotations=none, data=none, stacked=none) == FULL


EVOLVED: dict[str, tuple[dict[str, Any], str]] = {
    "labels that are no mapping": ({"labels": 5}, "labels: takes a mapping, not 5"),
    "a label that is no string": ({"labels": {"n": 1}}, r"labels\['n'\]: takes a string, not 1"),
    "an empty name of data": ({"data": {"": b""}}, "data: a key may not be empty"),
    "data that cannot be written": ({"data": {"d": object()}}, "d: cannot be written as JSON"),
    "what is no state": ({"stacked": {"s": "b"}}, r"stacked\['s'\]: takes a State, not 'b'"),
    "what is no policy": ({"retry": 5}, "retry: takes a RetryPolicy, not 5"),
}


@pytest.mark.parametrize(("changes", "message"), EVOLVED.values(), ids=EVOLVED)
def test_evolve_says_what_it_cannot_take(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        FULL.evolve(**changes)


# ---------------------------------------------------------------- what is refused, and how

NUL = "a\0b"
SURROGATE = "a\ud800b"
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "an empty id": (lambda: State(""), "state id: may not be empty"),
    "an id over 512 bytes": (lambda: State("x" * 513), "state id: is 513 bytes; the limit is 512"),
    "an id over 512 bytes of UTF-8": (lambda: State("é" * 257), "state id: is 514 bytes"),
    "an id that is no string": (lambda: State(5), "state id: takes a string, not 5"),  # type: ignore[arg-type]
    "an id with NUL": (lambda: State(NUL), "state id: may not hold a NUL"),
    "an id with a lone surrogate": (lambda: State(SURROGATE), "state id: is not valid Unicode"),
    "a negative revision": (lambda: State("a", rev=-1), "'a', rev: takes a revision"),
    "a revision that is no int": (lambda: State("a", rev=True), "'a', rev: takes a revision"),
    "a label value that is no string": (
        lambda: State("a", labels={"n": 1}),  # type: ignore[dict-item]
        r"state 'a', labels\['n'\]: takes a string, not 1",
    ),
    "a label key that is no string": (
        lambda: State("a", labels={1: "n"}),  # type: ignore[dict-item]
        "state 'a', labels, key: takes a string, not 1",
    ),
    "an empty label key": (
        lambda: State("a", labels={"": "v"}),
        "state 'a', labels: a key may not be empty",
    ),
    "labels that are no mapping": (
        lambda: State("a", labels=["x"]),  # type: ignore[arg-type]
        r"state 'a', labels: takes a mapping, not \['x'\]",
    ),
    "a label value with NUL": (lambda: State("a", labels={"k": NUL}), r"labels\['k'\]: may not"),
    "a label key with NUL": (lambda: State("a", labels={NUL: "v"}), "labels, key: may not hold"),
    "a label value with a surrogate": (
        lambda: State("a", labels={"k": SURROGATE}),
        r"labels\['k'\]: is not valid Unicode",
    ),
    "a new label that is no string": (
        lambda: State("a").with_labels(n=1),  # type: ignore[arg-type]
        r"labels\['n'\]: takes a string",
    ),
    "an annotation that is no string": (
        lambda: State("a", annotations={"n": 1}),  # type: ignore[dict-item]
        r"annotations\['n'\]: takes a string",
    ),
    "data that is no payload": (
        lambda: State("a", data={"d": b"x"}),  # type: ignore[dict-item]
        r"data\['d'\]: takes Data or DataRef, not b'x'",
    ),
    "an empty name for data": (lambda: State("a").attach("", b""), "data: a key may not be empty"),
    "a stacked value that is no state": (
        lambda: State("a", stacked={"s": "b"}),  # type: ignore[dict-item]
        r"stacked\['s'\]: takes a State, not 'b'",
    ),
    "an alarm without a flow": (lambda: Alarm(5, ""), "alarm.to: the flow id may not be empty"),
    "an alarm before all time": (lambda: Alarm(-5, "x"), "alarm.at: takes milliseconds"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_value_is_refused_where_it_is_made(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        make()


def test_an_id_may_have_exactly_512_bytes() -> None:
    assert len(State("é" * 256).id.encode()) == 512


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Opaque(), "order"),
        ({"items": [{"price": 1}, {"price": Opaque()}]}, "order.items[1].price"),
        ((1, Opaque()), "order[1]"),
        ({"text": SURROGATE}, "order.text"),
    ],
    ids=["itself", "in a dict", "in a tuple", "a lone surrogate"],
)
def test_a_value_that_cannot_be_encoded_is_named_with_its_path(value: object, path: str) -> None:
    with pytest.raises(EncodeError) as raised:
        State("a").attach("order", value)
    assert raised.value.field == path


# ---------------------------------------------------------------- instants


def test_an_instant_means_the_same_in_every_time_zone() -> None:
    there = timezone(timedelta(hours=9))
    here = Delay(State("a"), at=datetime(2030, 1, 1, 0, tzinfo=UTC))
    assert here == Delay(State("a"), at=datetime(2030, 1, 1, 9, tzinfo=there))


# ---------------------------------------------------------------- stored as JSON


def test_a_state_that_is_no_longer_valid_does_not_decode() -> None:
    with pytest.raises(DecodeError, match="does not decode as State"):
        decode(b'{"id":"a","labels":{"n":1}}', State)
