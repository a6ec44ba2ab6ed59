"""The JSON of a state is what its JSON Schema says, and the page that documents it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from msgspec import Struct

from flowstate import (
    Alarm,
    Data,
    DataRef,
    InvalidValueError,
    RetryPolicy,
    State,
    Transition,
    state_schema,
)
from flowstate.codec import encode_state
from flowstate.testing import values
from flowstate.testing.odd import fields, tries
from flowstate.transitions import plan_state

from .test_permits import ALL, SHIPPED
from .test_plan import POLICY

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "reference" / "state-json.md"
SCHEMA = state_schema()
TITLES = {
    "State": "State",
    "Transition": "Transition",
    "Alarm": "Alarm",
    "RetryPolicy": "Retry policy",
    "DataRef": "Reference to a payload",
}
TYPES: dict[str, set[type]] = {
    "object": {dict},
    "string": {str},
    "integer": {int},
    "number": {int, float},
    "boolean": {bool},
    "null": {type(None)},
}
KEYWORDS = {"$ref", "anyOf", "enum", "type", "properties", "required", "additionalProperties"}
HELD = {State, Transition, Alarm, RetryPolicy, Data, DataRef}
NOTES = {"title", "description", "default"}


def faults(value: Any, schema: Any, path: str = "$") -> list[str]:
    """Where a value is not what a schema says; knows what msgspec's schemas of states have."""
    assert set(schema) <= KEYWORDS | NOTES
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], path)
    if "anyOf" in schema:
        found = [faults(value, each, path) for each in schema["anyOf"]]
        return [] if [] in found else [fault for each in found for fault in each]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{path}: {value!r}"]
    if type(value) not in TYPES[schema["type"]]:
        return [f"{path}: {value!r} is no {schema['type']}"]
    if schema["type"] != "object":
        return []
    known: dict[str, Any] = schema.get("properties", {})
    others: Any = schema.get("additionalProperties")
    parts: dict[str, Any] = value
    missing = [f"{path}: no {name}" for name in schema.get("required", ()) if name not in parts]
    # a schema is open; here what flowstate itself wrote must be known
    return missing + [
        fault
        for name, part in parts.items()
        for fault in (
            faults(part, known.get(name, others), f"{path}.{name}")
            if name in known or others
            else [f"{path}: {name} is not in the schema"]
        )
    ]


def stored_faults(state: State) -> list[str]:
    """The faults of what a store keeps if a commit takes that state as it is."""
    plan = plan_state(state, commit_id="1", now=0, policy=POLICY)
    (version,) = plan.stamp(7, 5)
    return faults(json.loads(encode_state(version)), {"$ref": SCHEMA["$ref"]})


def holding(value: Any) -> State:
    """A state that holds a value, whatever part of one it is."""
    if isinstance(value, Transition):
        return State("a", transition=value)
    if isinstance(value, RetryPolicy):
        return State("a", retry=value)
    if isinstance(value, Alarm):
        return State("a", transition=Transition(alarm=value))
    return value if isinstance(value, State) else State("a", data={"x": value})


@given(values.states())
def test_any_stored_state_is_what_the_schema_says(state: State) -> None:
    assert [] == stored_faults(state)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        each
        for each in fields()
        if each[0] in {State, Transition, Alarm, RetryPolicy, Data, DataRef}
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_whatever_a_field_takes_is_what_the_schema_says(kind: type[Struct], field: str) -> None:
    tried = 0
    for each in tries(kind, field):
        try:
            value = each.make()
        except (InvalidValueError, TypeError):
            continue
        tried += 1
        assert [] == stored_faults(holding(value)), each.what
    assert tried


def test_real_states_are_what_the_schema_says() -> None:
    for line in (ALL if ALL.exists() else SHIPPED).read_text().splitlines():
        case = json.loads(line)
        state = State(case["id"], labels=case["labels"])
        for name, value in case["data"].items():
            state = state.attach(name, value)
        assert [] == stored_faults(state.stack("before", state))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"id": 1},
        {"id": "a", "rev": "1"},
        {"id": "a", "rev": True},
        {"id": "a", "labels": {"x": 1}},
        {"id": "a", "transition": {"status": "asleep"}},
        {"id": "a", "retry": {"max_attempts": "3"}},
        {"id": "a", "data": {"x": {"kind": "pending", "content": "", "content_type": "x"}}},
        {"id": "a", "data": {"x": {"kind": "stored", "rev": 1, "size": 1, "content_type": "x"}}},
        {"id": "a", "stacked": {"b": {}}},
    ],
    ids=json.dumps,
)
def test_what_is_no_state_is_not_what_the_schema_says(wrong: Any) -> None:
    assert faults(wrong, {"$ref": SCHEMA["$ref"]})


def test_the_file_beside_the_page_is_the_schema() -> None:
    assert (PAGE.parent / "state.schema.json").read_text() == json.dumps(SCHEMA, indent=2) + "\n"


def test_the_page_has_every_field_with_its_default() -> None:
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", PAGE.read_text(), re.MULTILINE))
    for kind, title in TITLES.items():
        rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| ", sections[title], re.MULTILINE)
        definition = SCHEMA["$defs"][kind]
        assert dict(rows) == {
            name: "required" if name in definition["required"] else shown(part["default"])
            for name, part in definition["properties"].items()
        }


def shown(default: Any) -> str:
    """A default as the page has it."""
    text = json.dumps(default)
    return f"`{text}`" if default in ("", {}, "new", "command") else text


def test_the_page_has_every_status_and_cause() -> None:
    text = PAGE.read_text()
    for kind in ("Status", "Cause"):
        assert [] == [each for each in SCHEMA["$defs"][kind]["enum"] if f'`"{each}"`' not in text]
