"""The values that everything else is about: a state, and its transition.

All of them are immutable. What looks like changing a state makes a new one; so nothing is ever
copied to be safe, and a state may be shared between tasks, threads and caches.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from . import clock
from .data import Data, DataRef
from .errors import InvalidValueError, StateNotFoundError
from .frozendict import EMPTY, FrozenDict

MAX_ID_BYTES = 512
KERNEL_PREFIX = "flowstate."
"""What the ids of the kernel's own states begin with, and no other's."""


class Status(enum.Enum):
    """What a state is doing. PAUSED, DELAYED and FAILED states rest; ENDED is terminal."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    DELAYED = "delayed"
    FAILED = "failed"
    ENDED = "ended"

    def __repr__(self) -> str:
        return f"Status.{self.name}"

    __hash__ = object.__hash__  # members are unique: hashing by identity is enough, and C speed


class Cause(enum.Enum):
    """Why a flow is being run now, or why a state rests.

    RETRY: its flow raised, or asked for it. LOST: its executor died or hung. GAVE_UP: its attempts
    were used up, or somebody gave it up with ``Fail``.
    """

    COMMAND = "command"
    RESUME = "resume"
    ALARM = "alarm"
    RETRY = "retry"
    LOST = "lost"
    GAVE_UP = "gave up"

    def __repr__(self) -> str:
        return f"Cause.{self.name}"


class Alarm(Struct, frozen=True, omit_defaults=True, gc=False):
    """At ``at`` (ms since the epoch, UTC) the state transits to flow ``to``, unless it moved.

    ``then`` is the alarm that stands once this one has fired: the timeout of a transition that
    waits for its retry.
    """

    at: int
    to: str
    then: Alarm | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "at", clock.instant("alarm.at", self.at))
        check_flow("alarm.to", self.to)


class RetryPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a state is retried after its flow raised or its executor died, and where it goes then.

    ``lease``, ``backoff`` and ``max_backoff`` are given in seconds or as ``timedelta`` and kept in
    seconds with millisecond resolution. ``max_attempts`` counts the first run too; None: without
    end. The wait before retry *n* is ``backoff`` doubled *n - 1* times, at most ``max_backoff``.
    Once the attempts are used up, the state goes on at the flow ``on_give_up``, or is FAILED if
    there is none.
    """

    lease: float = 30.0
    max_attempts: int | None = 3
    backoff: float = 1.0
    max_backoff: float = 300.0
    enabled: bool = True
    on_give_up: str = ""

    def __post_init__(self) -> None:
        for field in ("lease", "backoff", "max_backoff"):
            value: float | timedelta = getattr(self, field)
            force_setattr(self, field, clock.seconds(f"retry.{field}", value))
        if self.lease < 1:
            raise InvalidValueError("retry.lease", f"takes at least 1 second, not {self.lease}")
        if self.backoff > self.max_backoff:
            raise InvalidValueError(
                "retry.backoff", f"is {self.backoff} s, above max_backoff of {self.max_backoff} s"
            )
        attempts = self.max_attempts
        if attempts is not None and (type(attempts) is not int or attempts < 1):
            raise InvalidValueError(
                "retry.max_attempts", f"takes a whole number from 1, or None, not {attempts!r}"
            )
        check_text("retry.on_give_up", self.on_give_up)

    def is_used_up(self, attempts: int) -> bool:
        """Whether so many attempts are all there are."""
        return self.max_attempts is not None and attempts >= self.max_attempts

    def wait_ms(self, attempt: int, jitter: float = 0.0) -> int:
        """Milliseconds to wait before retry number *attempt* (from 1).

        *jitter* (0 to 1) lengthens it by up to a tenth, within ``max_backoff``.
        """
        doublings = min(attempt - 1, 62)  # beyond that any backoff is past any bound
        backoff = self.backoff * 2.0**doublings * (1 + jitter / 10)
        return clock.milliseconds(min(backoff, self.max_backoff))


class Transition(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a state is, and how it got there."""

    to: str = ""
    """The flow it is at (running), resumes at (paused, delayed), or failed in."""
    status: Status = Status.NEW
    cause: Cause = Cause.COMMAND
    attempt: int = 0
    """Retries of this transition so far."""
    reason: str = ""
    """For people: why it was paused, ended, retried or given up."""
    traceback: str = ""
    """Where its flow raised: the end of the traceback, at most 4 kB."""
    alarm: Alarm | None = None
    annotations: Mapping[str, str] = EMPTY
    """Belong to this transition only."""

    def __post_init__(self) -> None:
        if type(self.annotations) is not FrozenDict:
            force_setattr(self, "annotations", strings("transition.annotations", self.annotations))


class State(Struct, frozen=True, omit_defaults=True, gc=False):
    """One version of one state.

    ``id`` is chosen by the user, at most 512 bytes of UTF-8, and is the idempotency key of the
    state's creation. ``rev`` is the store-wide revision of this version, 0 if it was never
    committed. ``committed_at`` is in milliseconds since the epoch, by the store's clock.
    """

    id: str
    rev: int = 0
    labels: Mapping[str, str] = EMPTY
    """Indexed: what queries and watchers select by."""
    annotations: Mapping[str, str] = EMPTY
    """Not indexed."""
    data: Mapping[str, Data | DataRef] = EMPTY
    """Named payloads, stored beside the state, by reference."""
    stacked: Mapping[str, State] = EMPTY
    """Other states carried inside this one (call and return)."""
    transition: Transition = Transition()
    retry: RetryPolicy | None = None
    """None: the engine's default."""
    committed_at: int = 0

    def __post_init__(self) -> None:
        check_id(self.id)
        if type(self.rev) is not int or self.rev < 0:
            check_rev(f"state {self.id!r}, rev", self.rev)
        # a FrozenDict was checked when it was made
        if type(self.labels) is not FrozenDict:
            force_setattr(self, "labels", strings(f"state {self.id!r}, labels", self.labels))
        if type(self.annotations) is not FrozenDict:
            frozen = strings(f"state {self.id!r}, annotations", self.annotations)
            force_setattr(self, "annotations", frozen)
        if type(self.data) is not FrozenDict:
            frozen_data = _values(f"state {self.id!r}, data", self.data, (Data, DataRef))
            force_setattr(self, "data", frozen_data)
        if type(self.stacked) is not FrozenDict:
            frozen_states = _values(f"state {self.id!r}, stacked", self.stacked, (State,))
            force_setattr(self, "stacked", frozen_states)

    def with_labels(self, labels: Mapping[str, str] = EMPTY, /, **more: str) -> State:
        """A new state with these labels added or replaced."""
        return replace(self, labels={**self.labels, **labels, **more})

    def without_labels(self, *keys: str) -> State:
        """A new state without these labels; a label it does not have is no error."""
        return replace(self, labels={k: v for k, v in self.labels.items() if k not in keys})

    def with_annotations(self, annotations: Mapping[str, str] = EMPTY, /, **more: str) -> State:
        """A new state with these annotations added or replaced."""
        return replace(self, annotations={**self.annotations, **annotations, **more})

    def attach(self, name: str, value: object, content_type: str | None = None) -> State:
        """A new state that carries *value* as its payload *name*.

        Bytes are kept as they are; a ``Data`` or ``DataRef`` is taken over (the payload of a
        reference is not stored again); any other value is encoded as JSON now. Raises
        ``EncodeError`` with the path to the part that cannot be encoded.
        """
        payload = value if isinstance(value, Data | DataRef) else Data.of(value, name, content_type)
        return replace(self, data={**self.data, name: payload})

    def stack(self, name: str, other: State) -> State:
        """A new state that carries *other* inside, under *name*."""
        return replace(self, stacked={**self.stacked, name: other})

    def unstack(self, name: str) -> State:
        """A new state that no longer carries ``stacked[name]``."""
        if name not in self.stacked:
            raise StateNotFoundError(f"state stacked as {name!r} in state {self.id!r}")
        return replace(self, stacked={k: v for k, v in self.stacked.items() if k != name})


# ---------------------------------------------------------------- checks


def check_id(id: object) -> None:
    """Raise ``InvalidValueError`` unless *id* is 1 to 512 bytes of UTF-8."""
    id = check_text("state id", id)
    if not id:
        raise InvalidValueError("state id", "may not be empty")
    if len(id) * 4 > MAX_ID_BYTES and (size := len(id.encode())) > MAX_ID_BYTES:
        raise InvalidValueError(
            "state id", f"is {size} bytes; the limit is {MAX_ID_BYTES}: {id[:40]!r}…"
        )


def check_rev(field: str, rev: object) -> None:
    """Raise ``InvalidValueError`` unless *rev* can be a revision."""
    if type(rev) is not int or rev < 0:
        raise InvalidValueError(field, f"takes a revision (a whole number from 0), not {rev!r}")


def check_flow(field: str, flow: object) -> None:
    """Raise ``InvalidValueError`` unless *flow* can be the id of a flow."""
    check_text(field, flow)
    if not flow:
        raise InvalidValueError(field, "the flow id may not be empty")


def check_text(field: str, text: object) -> str:
    """The text, or ``InvalidValueError`` unless it is a string that every store can keep."""
    if type(text) is not str and not isinstance(text, str):
        raise InvalidValueError(field, f"takes a string, not {text!r}")
    if "\0" in text:
        raise InvalidValueError(field, f"may not hold a NUL character: {text!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidValueError(field, f"is not valid Unicode: {text!r} ({error})") from None
    return text


def strings(field: str, mapping: Mapping[str, str]) -> FrozenDict[str, str]:
    """The mapping, frozen; its keys and values are strings and no key is empty."""
    _check_mapping(field, mapping)
    for key, value in mapping.items():
        check_text(f"{field}[{key!r}]", value)
    return FrozenDict(mapping) if mapping else EMPTY


def _values(field: str, mapping: Mapping[str, Any], kinds: tuple[type, ...]) -> Mapping[str, Any]:
    _check_mapping(field, mapping)
    for key, value in mapping.items():
        if not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise InvalidValueError(f"{field}[{key!r}]", f"takes {names}, not {value!r}")
    return FrozenDict(mapping) if mapping else EMPTY


def _check_mapping(field: str, mapping: Mapping[str, Any]) -> None:
    if not isinstance(mapping, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidValueError(field, f"takes a mapping, not {mapping!r}")
    for key in mapping:
        check_text(f"{field}, key", key)
        if not key:
            raise InvalidValueError(field, "a key may not be empty")
