"""Encoding and decoding: what goes in comes out, or an error says where the trouble is."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import attrs
import pytest
from hypothesis import given
from msgspec import Struct, defstruct

from flowstate import DecodeError, EncodeError, State, codec
from flowstate.testing import values


@given(values.states())
def test_any_state_decodes_to_what_was_encoded(state: State) -> None:
    assert state == codec.decode(codec.encode_state(state), State)


def test_a_decoded_state_cannot_be_changed_either() -> None:
    state = codec.decode(b'{"id":"a","labels":{"x":"1"}}', State)
    with pytest.raises(TypeError, match="read-only"):
        state.labels["x"] = "2"  # type: ignore[index]


def test_a_state_is_stored_without_what_it_does_not_have() -> None:
    assert codec.encode_state(State("a")) == b'{"id":"a"}'


class Point(Struct):
    at: Any


@dataclass
class Line:
    start: Any


@attrs.define
class Area:
    border: Any


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Opaque(), "value"),
        ({"a": [1, Opaque()]}, "value.a[1]"),
        (Point(Opaque()), "value.at"),
        (Line((1, Opaque())), "value.start[1]"),
        (Area({"k": Opaque()}), "value.border.k"),
    ],
    ids=["itself", "dict and list", "Struct", "dataclass", "attrs"],
)
def test_what_cannot_be_encoded_is_named_with_its_path(value: object, path: str) -> None:
    with pytest.raises(EncodeError) as raised:
        codec.encode(value)
    assert raised.value.field == path


def test_a_value_that_contains_itself_is_an_encode_error() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(EncodeError, match="cannot be written as JSON"):
        codec.encode(cycle)


def test_an_encode_error_tells_what_it_found_and_what_to_do() -> None:
    with pytest.raises(EncodeError, match=r"\(a Opaque\); attach bytes, or a value made of"):
        codec.encode({"x": Opaque()})


@pytest.mark.parametrize(
    ("encoded", "type", "message"),
    [
        (b'{"at"', Point, "value: does not decode as Point: "),
        (b'{"x":1}', Point, "value: does not decode as Point: .*missing required field `at`"),
        (b'["1"]', list[int], "value: does not decode as .*int.* at `\\$\\[0\\]`"),
        (b'"\xff"', str, "value: does not decode as str"),
    ],
    ids=["not JSON", "a field is missing", "another type", "not UTF-8"],
)
def test_what_does_not_decode_says_why(encoded: bytes, type: type[Any], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        codec.decode(encoded, type)


def test_the_decoder_of_a_type_is_made_once() -> None:
    assert codec.decoder(State) is codec.decoder(State)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused_rather_than_lost(number: float) -> None:
    """JSON has no NaN and no infinity; they do not become null behind anybody's back."""
    with pytest.raises(EncodeError, match=r"^order\.items\[1\]\.price: cannot be written as JSON"):
        codec.encode({"items": [None, {"price": number}]}, "order")
    assert codec.encode({"price": None, "note": "null"}) == b'{"price":null,"note":"null"}'


# ---------------------------------------------------------------- several threads


def test_two_threads_that_decode_a_type_for_the_first_time() -> None:
    """A type is shown to other threads by msgspec 0.22 before the types inside are resolved."""
    found: list[object] = []

    def read() -> None:
        found.append(codec.decode('{"inner": {"number": 1}}', outer))

    def resolved() -> type[int]:
        """The type of ``number``, asked for when the outer one is half made."""
        second.start()
        second.join(0.2)  # it must not come through; if it did, the process would end here
        return int

    inner = defstruct("inner", [("number", "resolved()")], namespace={"resolved": resolved})
    outer = defstruct("outer", [("inner", inner)])
    first, second = threading.Thread(target=read), threading.Thread(target=read)
    first.start()
    first.join()
    second.join()
    assert found == [outer(inner(1)), outer(inner(1))]
