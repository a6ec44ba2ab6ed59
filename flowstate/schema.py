"""The JSON of a state, for programs in other languages: its JSON Schema."""

from __future__ import annotations

from typing import Any

from . import codec
from .state import State


def state_schema() -> dict[str, Any]:
    """The JSON Schema of a stored state. ``docs/reference/state-json.md`` says what it means.

    A store holds references to payloads only, so there is no pending data in it.
    """
    schema = codec.schema(State)
    definitions = schema["$defs"]
    del definitions["Data"]
    data = definitions["State"]["properties"]["data"]
    data["additionalProperties"] = {"$ref": "#/$defs/DataRef"}
    return schema
