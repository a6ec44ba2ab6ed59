"""Errors: one tree; attributes for programs, messages for people; they survive pickling."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from flowstate import errors
from flowstate.errors import FlowstateError

EXAMPLES: list[tuple[FlowstateError, dict[str, Any], str]] = [
    (
        errors.InvalidValueError("state id", "may not be empty"),
        {"field": "state id", "problem": "may not be empty"},
        "state id: may not be empty",
    ),
    (
        errors.EncodeError("order.items[3]", "cannot be written as JSON"),
        {"field": "order.items[3]"},
        "order.items[3]: cannot be written as JSON",
    ),
    (
        errors.DecodeError("data 'order'", "does not decode as int"),
        {"field": "data 'order'"},
        "data 'order': does not decode as int",
    ),
    (
        errors.TooLargeError("state 'a'", 1_048_577, 1_048_576, "max_state_size"),
        {"field": "state 'a'", "size": 1_048_577, "limit": 1_048_576, "option": "max_state_size"},
        (
            "state 'a': is 1,048,577 bytes encoded; the limit is 1,048,576. Attach large values "
            "as data, store them elsewhere and keep a reference, or raise "
            "Engine(max_state_size=...)"
        ),
    ),
    (
        errors.IllegalTransitionError("a", "NEW", "Resume", ["Transit", "End"]),
        {"id": "a", "status": "NEW", "command": "Resume", "legal": ("Transit", "End")},
        "state 'a': Resume is not legal while NEW (legal: Transit, End)",
    ),
    (
        errors.IllegalTransitionError("a", "ENDED", "Transit", []),
        {"legal": ()},
        "state 'a': Transit is not legal while ENDED (nothing is legal: it is terminal)",
    ),
    (
        errors.FlowNotFoundError("ship", ["pack", "charge"]),
        {"flow": "ship", "registered": ("pack", "charge")},
        "flow 'ship' is not registered here (registered: charge, pack)",
    ),
    (
        errors.FlowReturnError("ship", 42, "a flow returns one command"),
        {"flow": "ship", "returned": 42, "problem": "a flow returns one command"},
        "flow 'ship' returned 42: a flow returns one command",
    ),
    (errors.EngineClosedError("the engine is not open"), {}, "the engine is not open"),
    (
        errors.RevMismatchError({"a": (3, 5), "b": (0, 4), "c": (2, 0)}),
        {"conflicts": {"a": (3, 5), "b": (0, 4), "c": (2, 0)}},
        (
            "commit refused, someone else was first: 'a' expected revision 3, found revision 5; "
            "'b' expected no such state, found revision 4; "
            "'c' expected revision 2, found no such state"
        ),
    ),
    (
        errors.CommitIdReusedError("order-1", 7),
        {"commit_id": "order-1", "rev": 7},
        (
            "commit_id 'order-1' was used before, at revision 7, for a commit of other commands, "
            "states or flows; nothing was written. Give each commit an id of its own, and the same "
            "id only to the same commit when it is done again"
        ),
    ),
    (errors.StateNotFoundError("state 'a'"), {"what": "state 'a'"}, "no state 'a'"),
    (errors.DataNotFoundError("data 'd'"), {"what": "data 'd'"}, "no data 'd'"),
    (errors.DataForgottenError("data 'd'"), {"what": "data 'd'"}, "data 'd' was forgotten"),
    (
        errors.CompactedError(5, 9),
        {"after": 5, "oldest": 9},
        (
            "history after revision 5 was compacted: it is whole only from revision 9 on. "
            "Start with the current versions, Query(latest=True), or leave out what is gone, "
            "after=8"
        ),
    ),
    *(
        (kind("orders.db", "is broken"), {"store": "orders.db"}, "orders.db: is broken")
        for kind in (
            errors.StoreError,
            errors.StoreUrlError,
            errors.StoreOpenError,
            errors.SchemaVersionError,
            errors.StoreReadOnlyError,
            errors.StoreUnreachableError,
            errors.StoreFullError,
            errors.StoreBusyError,
            errors.StoreCorruptError,
            errors.StoreClosedError,
            errors.UnknownOutcomeError,
        )
    ),
    (
        errors.UnreadableVersionError("orders.db", "a", 7, "is odd"),
        {"store": "orders.db", "id": "a", "rev": 7, "why": "is odd"},
        "orders.db: the version at revision 7 (state 'a') cannot be read: is odd",
    ),
]
IDS = [type(error).__name__ for error, *_ in EXAMPLES]


def every_error() -> set[type[FlowstateError]]:
    found: set[type[FlowstateError]] = set()
    ahead: list[type[FlowstateError]] = [FlowstateError]
    while ahead:
        kinds = [
            kind for kind in ahead.pop().__subclasses__() if kind.__module__ == errors.__name__
        ]
        found.update(kinds)
        ahead.extend(kinds)
    return found


def test_there_is_an_example_of_every_error() -> None:
    assert every_error() == {type(error) for error, *_ in EXAMPLES}


@pytest.mark.parametrize(("error", "attributes", "message"), EXAMPLES, ids=IDS)
def test_an_error_tells_programs_and_people(
    error: FlowstateError, attributes: dict[str, Any], message: str
) -> None:
    assert attributes == {name: getattr(error, name) for name in attributes}
    assert message == str(error)


@pytest.mark.parametrize(("error", "attributes", "message"), EXAMPLES, ids=IDS)
def test_an_error_survives_pickling(
    error: FlowstateError, attributes: dict[str, Any], message: str
) -> None:
    other = pickle.loads(pickle.dumps(error))  # noqa: S301  (written here)
    assert type(error) is type(other)
    assert message == str(other)
    assert attributes == {name: getattr(other, name) for name in attributes}


@pytest.mark.parametrize("kind", sorted(every_error(), key=str))
def test_an_error_is_called_one(kind: type[FlowstateError]) -> None:
    assert kind.__name__.endswith("Error")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InvalidValueError, ValueError),
        (errors.FlowNotFoundError, LookupError),
        (errors.StateNotFoundError, LookupError),
        (errors.DataNotFoundError, LookupError),
        (errors.DataForgottenError, errors.DataNotFoundError),
        (errors.FlowReturnError, TypeError),
        (errors.EngineClosedError, RuntimeError),
        (errors.StoreClosedError, RuntimeError),
        (errors.StoreUrlError, ValueError),
    ],
)
def test_an_error_is_also_what_python_calls_it(
    kind: type[FlowstateError], builtin: type[Exception]
) -> None:
    assert issubclass(kind, builtin)


def test_what_a_flow_returned_is_shown_in_short() -> None:
    message = str(errors.FlowReturnError("ship", "x" * 10_000, "too much"))
    assert len(message) < 300
