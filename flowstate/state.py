"""The values that everything else is about: a state, and its transition.

All of them are immutable. What looks like changing a state makes a new one; so nothing is ever
copied to be safe, and a state may be shared between tasks, threads and caches.

Every field is checked where its value is made, so what a commit accepts, every store keeps and
gives back equal. These values are made all the time: what is plain passes with a look at its type,
and only what is not is looked at closely (``checks.py``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import force_setattr, replace

from . import clock
from .checks import (
    MAX_WHOLE,
    NO_TEXT,
    ZERO,
    Strings,
    as_dict,
    check_flag,
    check_flow,
    check_name,
    check_rev,
    check_text,
    check_type,
    check_whole,
    plain_strings,
    strings,
)
from .data import Data, DataRef
from .errors import InvalidValueError, StateNotFoundError, shown
from .flow import NO_FLOW, FlowName
from .frozendict import EMPTY, FrozenDict

V = TypeVar("V")

MAX_ID_BYTES = 512
KERNEL_PREFIX = "flowstate."
"""What the ids of the kernel's own states begin with, and no other's."""
MAX_STACKED = 64
"""How deep states may be stacked in each other: the states inside one, the states inside those,
and so on."""
MAX_ALARMS = 8
"""How many alarms may stand one behind the other."""

SHORT_ID = MAX_ID_BYTES // 4
"""So many characters are never too many bytes."""


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
        at, to = self.at, self.to
        if type(at) is not int or not 0 <= at <= clock.MAX_INSTANT_MS:
            force_setattr(self, "at", clock.instant("alarm.at", at))
        if type(to) is not str or not to or "\0" in to or not to.isascii():
            force_setattr(self, "to", check_flow("alarm.to", to))
        if self.then is not None:
            _check_then(self.then)


def _check_then(alarm: Alarm) -> None:
    """Raise ``InvalidValueError`` unless this alarm may stand behind another one."""
    behind: Alarm | None = alarm
    for _ in range(MAX_ALARMS):
        behind = check_type("alarm.then", behind, Alarm).then
        if behind is None:
            return
    raise InvalidValueError("alarm.then", f"is one of more than {MAX_ALARMS} behind each other")


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
    on_give_up: FlowName[str] = NO_FLOW

    def __post_init__(self) -> None:
        force_setattr(self, "lease", clock.seconds("retry.lease", self.lease))
        force_setattr(self, "backoff", clock.seconds("retry.backoff", self.backoff))
        force_setattr(self, "max_backoff", clock.seconds("retry.max_backoff", self.max_backoff))
        if self.max_attempts is not None:
            attempts = check_whole("retry.max_attempts", self.max_attempts, 1)
            force_setattr(self, "max_attempts", attempts)
        check_flag("retry.enabled", self.enabled)
        if self.on_give_up is not NO_TEXT:
            force_setattr(self, "on_give_up", check_flow("retry.on_give_up", self.on_give_up))
        if self.lease < 1:
            raise InvalidValueError("retry.lease", f"takes at least 1 second, not {self.lease}")
        if self.backoff > self.max_backoff:
            raise InvalidValueError(
                "retry.backoff",
                f"is {self.backoff:g} s, above max_backoff of {self.max_backoff:g} s",
            )

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
        to, reason = self.to, self.reason
        if to is not NO_TEXT and (type(to) is not str or "\0" in to or not to.isascii()):
            force_setattr(self, "to", check_text("transition.to", to))
        if type(self.status) is not Status or type(self.cause) is not Cause:
            check_type("transition.status", self.status, Status)
            check_type("transition.cause", self.cause, Cause)
        if self.attempt is not ZERO:
            attempt = check_whole("transition.attempt", self.attempt)
            force_setattr(self, "attempt", attempt)
        if reason is not NO_TEXT:
            force_setattr(self, "reason", check_text("transition.reason", reason))
        if self.traceback is not NO_TEXT:
            traceback = check_text("transition.traceback", self.traceback)
            force_setattr(self, "traceback", traceback)
        if self.alarm is not None and type(self.alarm) is not Alarm:
            check_type("transition.alarm", self.alarm, Alarm)
        if self.annotations is not EMPTY and type(self.annotations) is not Strings:
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
        id = self.id
        if type(id) is not str or not 0 < len(id) <= SHORT_ID or "\0" in id or not id.isascii():
            force_setattr(self, "id", check_id(id))
        if self.labels is not EMPTY and type(self.labels) is not Strings:
            _freeze(self, "labels")
        if self.annotations is not EMPTY and type(self.annotations) is not Strings:
            _freeze(self, "annotations")
        if self.data is not EMPTY and type(self.data) is not Payloads:
            data = Payloads(self.data, f"state {self.id!r}, data")
            force_setattr(self, "data", data or EMPTY)
        if self.stacked is not EMPTY and type(self.stacked) is not Stack:
            stack = Stack(self.stacked, f"state {self.id!r}, stacked")
            force_setattr(self, "stacked", stack or EMPTY)
        if type(self.transition) is not Transition:
            check_type(f"state {self.id!r}, transition", self.transition, Transition)
        if self.retry is not None and type(self.retry) is not RetryPolicy:
            check_type(f"state {self.id!r}, retry", self.retry, RetryPolicy)
        if self.rev is not ZERO or self.committed_at is not ZERO:
            _check_numbers(self)

    # ------------------------------------------------------------ new states

    def evolve(
        self,
        *,
        labels: Mapping[str, str | None] = EMPTY,
        annotations: Mapping[str, str | None] = EMPTY,
        data: Mapping[str, object] = EMPTY,
        stacked: Mapping[str, State | None] = EMPTY,
        retry: RetryPolicy | UnsetType | None = UNSET,
    ) -> State:
        """A new state with all of these changes, made at once.

        What a mapping names is added or replaced, or removed if its value is None; what it does not
        name stays. To remove what is not there is no error. ``data`` takes what ``attach`` takes;
        ``retry=None`` leaves retrying to the engine's policy. For example::

            paid = order.evolve(labels={"paid": "yes", "due": None}, data={"receipt": scan})
        """
        changes: dict[str, Any] = {}
        if labels is not EMPTY:
            changes["labels"] = _changed("labels", self.labels, labels)
        if annotations is not EMPTY:
            changes["annotations"] = _changed("annotations", self.annotations, annotations)
        if data is not EMPTY:
            payloads = {
                name: None if value is None else self._payload(name, value)
                for name, value in as_dict("data", data).items()
            }
            changes["data"] = _changed("data", self.data, payloads)
        if stacked is not EMPTY:
            changes["stacked"] = _changed("stacked", self.stacked, stacked)
        if retry is not UNSET:
            changes["retry"] = retry
        return replace(self, **changes) if changes else self

    def with_labels(self, labels: Mapping[str, str] = EMPTY, /, **more: str) -> State:
        """A new state with these labels added or replaced."""
        return replace(self, labels={**self.labels, **labels, **more})

    def without_labels(self, *keys: str) -> State:
        """A new state without these labels; a label it does not have is no error."""
        return replace(self, labels=_without(self.labels, keys))

    def with_annotations(self, annotations: Mapping[str, str] = EMPTY, /, **more: str) -> State:
        """A new state with these annotations added or replaced."""
        return replace(self, annotations={**self.annotations, **annotations, **more})

    def without_annotations(self, *keys: str) -> State:
        """A new state without these annotations; one that it does not have is no error."""
        return replace(self, annotations=_without(self.annotations, keys))

    def with_retry(self, policy: RetryPolicy | None) -> State:
        """A new state that is retried by this policy; None: by the engine's."""
        return replace(self, retry=policy)

    def attach(self, name: str, value: object, content_type: str | None = None) -> State:
        """A new state that carries *value* as its payload *name*.

        Bytes are kept as they are; a ``Data`` or ``DataRef`` is taken over (the payload of a
        reference is not stored again); any other value is encoded as JSON now. Raises
        ``EncodeError`` with the path to the part that cannot be encoded.

        If it carries this content already, under this name and with this content type, the commit
        keeps the reference, and stores the content again only if that payload is gone by then.
        """
        payload = self._payload(name, value, content_type)
        if payload is self.data.get(name):
            return self
        return replace(self, data={**self.data, name: payload})

    def detach(self, *names: str) -> State:
        """A new state without these payloads; one that it does not have is no error."""
        return replace(self, data=_without(self.data, names))

    def stack(self, name: str, other: State) -> State:
        """A new state that carries *other* inside, under *name*."""
        return replace(self, stacked={**self.stacked, name: other})

    def unstack(self, name: str) -> State:
        """A new state that no longer carries ``stacked[name]``."""
        if name not in self.stacked:
            raise StateNotFoundError(f"state stacked as {name!r} in state {self.id!r}")
        return replace(self, stacked=_without(self.stacked, (name,)))

    def _payload(self, name: str, value: object, content_type: str | None = None) -> Data | DataRef:
        """The value as a payload. If equal content is attached under this name: the same, or, if it
        is stored, one that knows where."""
        if isinstance(value, DataRef):
            return value
        payload = value if isinstance(value, Data) else Data.of(value, name, content_type)
        attached = self.data.get(name)
        if attached is None or not _is_same(payload, attached):
            return payload
        if isinstance(attached, Data):
            return attached
        return Data(payload.content, payload.content_type, attached)


# ---------------------------------------------------------------- what a state holds
# As with Strings: making one checks what it holds, so its type is the proof that this was done.


class Payloads(FrozenDict[str, Data | DataRef]):
    """Payloads by name."""

    __slots__ = ()

    def __init__(self, mapping: object = EMPTY, /, field: str = "mapping") -> None:
        payloads = as_dict(field, mapping)
        for name, payload in payloads.items():
            if type(payload) is not Data and type(payload) is not DataRef:
                problem = f"takes Data or DataRef, not {shown(payload)}"
                raise InvalidValueError(f"{field}[{shown(name)}]", problem)
        super().__init__(payloads)


class Stack(FrozenDict[str, State]):
    """States by name. ``depth`` is how many of them are one inside the other."""

    __slots__ = ("depth",)

    depth: int

    def __init__(self, mapping: object = EMPTY, /, field: str = "mapping") -> None:
        states = as_dict(field, mapping)
        depth = 0
        for name, state in states.items():
            check_type(f"{field}[{shown(name)}]", state, State)
            depth = max(depth, 1 + (state.stacked.depth if state.stacked else 0))
        if depth > MAX_STACKED:
            raise InvalidValueError(
                field, f"is {depth} states deep; no more than {MAX_STACKED} may be one in the other"
            )
        super().__init__(states)
        self.depth = depth


# ---------------------------------------------------------------- checks


def check_id(id: object, field: str = "state id") -> str:
    """The id, or ``InvalidValueError`` unless it is 1 to 512 bytes of UTF-8."""
    id = check_name(field, id)
    if len(id) > SHORT_ID and (size := len(id.encode())) > MAX_ID_BYTES:
        raise InvalidValueError(
            field, f"is {size} bytes; the limit is {MAX_ID_BYTES}: {id[:40]!r}…"
        )
    return id


def _freeze(state: State, name: str) -> None:
    """Have a field of a state be what it was given, checked and frozen."""
    given = getattr(state, name)
    frozen = plain_strings(given)
    if frozen is None:
        frozen = strings(f"state {state.id!r}, {name}", given)
    force_setattr(state, name, frozen)


def _check_numbers(state: State) -> None:
    rev, committed_at = state.rev, state.committed_at
    if type(rev) is not int or not 0 <= rev <= MAX_WHOLE:
        force_setattr(state, "rev", check_rev(f"state {state.id!r}, rev", rev))
    if type(committed_at) is not int or not 0 <= committed_at <= MAX_WHOLE:
        field = f"state {state.id!r}, committed_at"
        force_setattr(state, "committed_at", check_whole(field, committed_at, 0, "milliseconds"))


# ---------------------------------------------------------------- changes


def _changed(field: str, old: Mapping[str, V], changes: object) -> dict[str, V]:
    """A mapping with these changes: what is None in them goes."""
    merged = {**old, **as_dict(field, changes)}
    return {name: value for name, value in merged.items() if value is not None}


def _without(old: Mapping[str, V], names: tuple[str, ...]) -> dict[str, V]:
    return {name: value for name, value in old.items() if name not in names}


def _is_same(payload: Data, attached: Data | DataRef) -> bool:
    """Whether a payload is the one that is attached. What differs in size is not hashed."""
    if payload.content_type != attached.content_type or payload.size != attached.size:
        return False
    if isinstance(attached, Data):
        return payload.content == attached.content
    return payload.checksum == attached.checksum
