"""Every field of every value, tried with everything that somebody may give for it.

The classes and their fields are found in ``flowstate``, so a new one is tried as soon as it is
there. What a try gives is either a value, which every store must then keep, or
``InvalidValueError``.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

from attrs import frozen
from msgspec import Struct
from msgspec.structs import replace

from ..checks import MAX_WHOLE, Strings
from ..clock import MAX_DURATION_S, MAX_INSTANT_MS
from ..commands import (
    Command,
    Commit,
    Delay,
    End,
    Execute,
    Fail,
    Noop,
    Pause,
    Require,
    Resume,
    Retry,
    Save,
    Transit,
)
from ..data import Data, DataRef
from ..forgetting import Forgotten
from ..frozendict import FrozenDict
from ..leases import Due, DuePage
from ..plan import Plan, Write
from ..query import Page, Query, Unreadable
from ..retention import Compaction, Retention
from ..state import MAX_ALARMS, MAX_STACKED, Alarm, Cause, RetryPolicy, State, Status, Transition

UNCHECKED: frozenset[type[Struct]] = frozenset(
    {Page, Unreadable, Due, DuePage, Compaction, Forgotten, Plan, Write}
)
"""What drivers answer with, and what the kernel makes of checked values for them: nothing is tried
on these."""

_HERE = State("here", transition=Transition(to="work", status=Status.PAUSED))
_RUNNING = State("here", transition=Transition(to="work", status=Status.RUNNING))
_REF = DataRef(1, 1, "text/plain", "0" * 64)

EXAMPLES: Mapping[type[Struct], Mapping[str, Any]] = {
    State: {"id": "here"},
    Transition: {},
    Alarm: {"at": 5, "to": "ring"},
    RetryPolicy: {},
    Data: {"content": b"pears"},
    DataRef: {"rev": 1, "size": 1, "content_type": "text/plain", "checksum": "0" * 64},
    Transit: {"state": _HERE, "to": "work", "timeout": 1},
    Pause: {"state": _HERE, "timeout": 1},
    Resume: {"state": _HERE},
    Delay: {"state": _HERE, "after": 1},
    Retry: {"state": _RUNNING, "after": 1},
    Fail: {"state": _HERE},
    Save: {"state": _HERE},
    End: {"state": _HERE},
    Require: {"state": _HERE},
    Execute: {"state": _HERE},
    Noop: {},
    Command: {},
    Commit: {"commands": (End(_HERE),)},
    Query: {},
    Retention: {"before": 5},
}
"""class -> the fields of a value of it that is valid"""

_BESIDE: Mapping[tuple[type[Struct], str], Mapping[str, Any]] = {
    (Delay, "at"): {"after": None},
    (RetryPolicy, "backoff"): {"max_backoff": MAX_DURATION_S},
    (RetryPolicy, "max_backoff"): {"backoff": 0},
}
"""What else has to be given for a field to be valid."""


@frozen
class Try:
    """One value for one field."""

    kind: type[Struct]
    field: str
    what: str
    """What is given, in words."""
    given: Any

    def make(self, id: str = "here") -> Any:
        """The value, about a state with this id unless the id is what is tried."""
        if self.kind is Commit:  # takes its field as arguments
            several = type(self.given) is tuple
            return Commit(*self.given) if several else Commit(self.given)
        valid = {**EXAMPLES[self.kind], **_BESIDE.get((self.kind, self.field), {})}
        valid = {name: _about(id, value) for name, value in valid.items()}
        if self.kind is State:
            valid["id"] = id
        return self.kind(**{**valid, self.field: self.given})


def _about(id: str, value: Any) -> Any:
    return replace(value, id=id) if type(value) is State else value


def kinds() -> list[type[Struct]]:
    """Every class of values that ``flowstate`` has."""
    package = import_module("flowstate")
    public = [getattr(package, name) for name in package.__all__]
    return [each for each in public if isinstance(each, type) and issubclass(each, Struct)]


def fields() -> list[tuple[type[Struct], str]]:
    """Every field that values can be tried on."""
    return [
        (kind, field)
        for kind in kinds()
        if kind not in UNCHECKED
        for field in kind.__struct_fields__
    ]


def tries(kind: type[Struct], field: str) -> Iterator[Try]:
    """Everything that is tried on a field."""
    for what, given in values().items():
        yield Try(kind, field, what, given)


# ---------------------------------------------------------------- what is given


class _Word(enum.StrEnum):
    MAIL = "mail"


class _OldWord(str, enum.Enum):  # noqa: UP042  (they differ: str() gives the name)
    MAIL = "mail"


class _Liar(str):
    """Text that is not what it says it is."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"

    def __contains__(self, _: object) -> bool:
        return False

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        return b""

    def isascii(self) -> bool:
        return True


class _Number(enum.IntEnum):
    TWO = 2


class _Int(int):
    pass


class _Float(float):
    pass


class _Bytes(bytes):
    def __bytes__(self) -> bytes:
        return b"other"


class _Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("cannot be shown")


class _MyState(State, frozen=True):
    pass


class _MyData(Data, frozen=True):
    pass


class _MyTransition(Transition, frozen=True):
    pass


class _MyAlarm(Alarm, frozen=True):
    pass


class _MyPolicy(RetryPolicy, frozen=True):
    pass


TEXTS: Mapping[str, str] = {
    "empty text": "",
    "a word": "work",
    "NUL": "a\0b",
    "a high surrogate": "a\ud800b",
    "a low surrogate": "\udfff",
    "a pair of surrogates": "\ud83d\ude00",
    "an astral character": "😀",
    "right to left": "שלום \u202eabc",
    "composed and decomposed": "é e\u0301",
    "the last characters": "\uffff\U0010ffff\ufeff",
    "controls": "\x01\x1f\x7f\x85\u2028 \t\r\n",
    "quotes": 'it\'s "100%" \\ \\u0041 {} %s $1 ?',
    "JSON": 'null {"a": [1]}',
    "SQL": 'x\'); DROP TABLE versions; -- "x" /* :a @a',
    "wildcards and paths": "_%*?[a-z] $.id $[0] ../a",
    "512 bytes": "é" * 256,
    "514 bytes": "é" * 257,
    "1 MB": "x" * (1 << 20),
    "a member of StrEnum": _Word.MAIL,
    "a member of str and Enum": _OldWord.MAIL,
    "a subclass of str": _Liar("a subclass"),
    "a subclass of str with NUL": _Liar("a\0b"),
    "a subclass of str with a surrogate": _Liar("\ud800"),
}

_NUMBERS: Mapping[str, Any] = {
    "0": 0,
    "1": 1,
    "-1": -1,
    "2**53 + 1": 2**53 + 1,
    "2**63 - 1": MAX_WHOLE,
    "2**63": MAX_WHOLE + 1,
    "-2**63": -MAX_WHOLE - 1,
    "10**5000": 10**5000,
    "the last instant": MAX_INSTANT_MS,
    "one after the last instant": MAX_INSTANT_MS + 1,
    "0.0": 0.0,
    "-0.0": -0.0,
    "1.5": 1.5,
    "0.0004": 0.0004,
    "1e300": 1e300,
    "the longest duration": MAX_DURATION_S,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "a decimal": Decimal(1),
    "a complex number": 1j,
    "a member of IntEnum": _Number.TWO,
    "a subclass of int": _Int(2),
    "a subclass of float": _Float(2.5),
}

_SCALARS: Mapping[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    **_NUMBERS,
    **TEXTS,
    "empty bytes": b"",
    "bytes": b"\0\xff",
    "a subclass of bytes": _Bytes(b"\0\xff"),
    "a bytearray": bytearray(b"pears"),
    "a memoryview": memoryview(b"pears")[::2],
    "an aware datetime": datetime(2030, 1, 1, tzinfo=UTC),
    "the last datetime": datetime.max.replace(tzinfo=UTC),
    "a naive datetime": datetime(2030, 1, 1),  # noqa: DTZ001  (that is the point)
    "a date": date(2030, 1, 1),
    "a timedelta": timedelta(seconds=90),
    "a negative timedelta": timedelta(seconds=-1),
    "the longest timedelta": timedelta.max,
    "a status": Status.PAUSED,
    "the text of a status": "paused",
    "a cause": Cause.ALARM,
    "a class": State,
    "a function": len,
    "an object": object(),
    "what has no repr": _Unspeakable(),
    "a checksum": "0123456789abcdef" * 4,
    "a checksum in capitals": "0123456789ABCDEF" * 4,
    "a checksum and a newline": "0" * 63 + "\n",
}

_VALUES: Mapping[str, Any] = {
    "a state": _HERE,
    "a subclass of State": _MyState("mine"),
    "a transition": Transition(to="work", status=Status.RUNNING),
    "a subclass of Transition": _MyTransition(),
    "an alarm": Alarm(5, "ring"),
    "a subclass of Alarm": _MyAlarm(5, "ring"),
    "a policy": RetryPolicy(lease=1.5, max_attempts=None, on_give_up="sorry"),
    "a subclass of RetryPolicy": _MyPolicy(),
    "data": Data(b"pears"),
    "a subclass of Data": _MyData(b"pears"),
    "a reference": _REF,
    "a command": End(_HERE),
    "a commit": Commit(End(_HERE)),
    "a query": Query(),
}

_COLLECTIONS: Mapping[str, Any] = {
    "an empty list": [],
    "an empty tuple": (),
    "an empty mapping": {},
    "an empty set": set[str](),
    "a list of text": ["a"],
    "a tuple of text": ("a",),
    "a list of mappings": [{"a": "b"}, {}],
    "a tuple of mappings": ({"a": "b"}, {"c": _Word.MAIL}),
    "a tuple of bad mappings": ({"a": "b"}, {"c": 1}),
    "statuses": [Status.PAUSED, Status.ENDED],
    "a command in a tuple": (End(_HERE),),
    "an id and a revision": (("absent", 0),),
    "an id and the last revision": (("absent", MAX_WHOLE),),
    "an id and no revision": (("absent", True),),
    "an id without a revision": (("absent",),),
    "an ordered dict": OrderedDict(a="b"),
    "a proxy": MappingProxyType({"a": "b"}),
    "a user's dict": UserDict(a="b"),
    "checked strings": Strings({"a": "b"}),
    "contents": {"0123456789abcdef" * 4: b"pears"},
    "contents by hand": FrozenDict({"0" * 64: "pears"}),
}


@cache
def values() -> Mapping[str, Any]:
    """Everything that is given for a field, by what it is: alone, and by name in mappings."""
    alone: dict[str, Any] = {**_SCALARS, **_VALUES, **dict(_deep())}
    named = {f"{what}, by name": {"name": value} for what, value in alone.items()}
    keys = {f"{what}, as a name": {value: "x"} for what, value in _hashable(_SCALARS)}
    # that it cannot be changed does not tell what it holds
    by_hand = {f"frozen by hand: {what}": FrozenDict(given) for what, given in named.items()}
    return {**alone, **_COLLECTIONS, **named, **keys, **by_hand}


def _hashable(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for what, value in values.items():
        if not isinstance(value, bytearray | dict):
            yield what, value


def _deep() -> Iterator[tuple[str, Any]]:
    """Values as deep as they may be, and deeper by one where that can be made."""
    state, alarm = _HERE, Alarm(5, "ring")
    for depth in range(MAX_STACKED):
        state = replace(_HERE, id=f"at {depth}", stacked={"inner": state})
    for _ in range(MAX_ALARMS - 1):
        alarm = Alarm(5, "ring", then=alarm)
    yield "states as deep as may be", state
    yield "states less deep by one", state.stacked["inner"]
    yield "as many alarms as may be", Alarm(5, "ring", then=alarm)
    yield "less alarms by one", alarm


# ---------------------------------------------------------------- what is plain


_PLAIN = frozenset({str, int, float, bool, bytes, datetime, type(None), Status, Cause})


def odd_parts(value: Any, path: str = "") -> Iterator[str]:
    """Where a value holds what is not of exactly the type that a store gives back."""
    if type(value) in EXAMPLES:
        for field in value.__struct_fields__:
            yield from odd_parts(getattr(value, field), f"{path}.{field}")
    elif issubclass(type(value), FrozenDict):
        for key, part in value.items():
            yield from odd_parts(key, f"{path}, key")
            yield from odd_parts(part, f"{path}[{key!r:.40}]")
    elif type(value) in {tuple, frozenset}:
        for part in value:
            yield from odd_parts(part, f"{path}[…]")
    elif type(value) not in _PLAIN:
        yield f"{path} is a {type(value).__name__}"
