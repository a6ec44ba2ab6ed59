"""What a text, a number or a mapping must be so that every store keeps it and gives it back equal.

Each check gives the plain value, or raises ``InvalidValueError`` with the field, what was given and
what is taken. A value of a subclass (a member of an ``enum.StrEnum``, a ``numpy.str_``) becomes one
of the plain type, for that is what a store gives back. A bool is no number here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import InvalidValueError, shown
from .flow import Flow
from .frozendict import EMPTY, FrozenDict

T = TypeVar("T")

MAX_BITS = 63
MAX_WHOLE = 2**MAX_BITS - 1
"""The largest whole number that every store keeps."""

# Most values are what they are if nobody says otherwise. Telling that by identity costs nothing,
# and nothing that is not of the right type passes for them.
ZERO = 0
NO_TEXT = ""

_CHECKSUM = re.compile(r"[0-9a-f]{64}")


def check_text(field: str, text: object) -> str:
    """Any text but one with a NUL character or a lone surrogate."""
    if type(text) is not str:
        if not isinstance(text, str):
            raise InvalidValueError(field, f"takes a string, not {shown(text)}")
        text = str.__str__(text)  # the characters themselves, whatever the subclass makes of them
    if "\0" in text:
        raise InvalidValueError(field, f"may not hold a NUL character: {shown(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            problem = f"is not valid Unicode: {shown(text)} ({error.reason} at {error.start})"
            raise InvalidValueError(field, problem) from None
    return text


def check_name(field: str, name: object) -> str:
    """Text that is not empty."""
    name = check_text(field, name)
    if not name:
        raise InvalidValueError(field, "may not be empty")
    return name


def check_flow(field: str, flow: object) -> str:
    """The name of a flow, which may be given as the flow itself."""
    if isinstance(flow, Flow):
        return flow.name
    if callable(flow):
        problem = (
            f"takes a flow or its name, not {shown(flow)}; decorate it with @flows.flow, or give "
            "what flows.add(name, …) gives"
        )
        raise InvalidValueError(field, problem)
    flow = check_text(field, flow)
    if not flow:
        raise InvalidValueError(field, "the flow id may not be empty")
    return flow


def check_whole(field: str, number: object, low: int = 0, what: str = "a whole number") -> int:
    """A whole number from *low* to 2**63 - 1."""
    if type(number) is not int:
        if not isinstance(number, int) or isinstance(number, bool):
            raise InvalidValueError(field, f"takes {what} from {low}, not {shown(number)}")
        number = int.__int__(number)
    if number < low:
        raise InvalidValueError(field, f"takes {what} from {low}, not {shown(number)}")
    if number > MAX_WHOLE:
        raise InvalidValueError(field, f"takes {what} up to 2**63 - 1, not {shown(number)}")
    return number


def check_rev(field: str, rev: object) -> int:
    """A revision; 0 is that of what was never committed."""
    return check_whole(field, rev, 0, "a revision: a whole number")


def check_flag(field: str, flag: object) -> bool:
    """True or False, and nothing that only counts as one of them."""
    if flag is not True and flag is not False:
        raise InvalidValueError(field, f"takes True or False, not {shown(flag)}")
    return flag


def check_bytes(field: str, content: object) -> bytes:
    """Bytes, also of what is like them: a ``bytearray``, a ``memoryview``."""
    if type(content) is bytes:
        return content
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InvalidValueError(field, f"takes bytes, not {shown(content)}")
    try:
        return memoryview(content).tobytes()  # pyright: ignore[reportUnknownArgumentType]
    except ValueError as error:  # the view was released
        raise InvalidValueError(field, f"takes bytes that can be read: {error}") from None


def check_checksum(field: str, checksum: object) -> str:
    """A SHA-256 in hexadecimal."""
    checksum = check_text(field, checksum)
    if _CHECKSUM.fullmatch(checksum) is None:
        problem = f"takes a SHA-256, 64 lower-case hexadecimal digits, not {shown(checksum)}"
        raise InvalidValueError(field, problem)
    return checksum


def check_type(field: str, value: object, kind: type[T]) -> T:
    """A value of exactly this class."""
    if type(value) is kind:
        return value
    if isinstance(value, kind):
        problem = (
            f"takes a plain {kind.__name__}, not one of the subclass {type(value).__name__}, "
            "which no store gives back"
        )
        raise InvalidValueError(field, problem)
    raise InvalidValueError(field, f"takes {_a(kind.__name__)}, not {shown(value)}")


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


# ---------------------------------------------------------------- mappings


def as_dict(field: str, mapping: object) -> dict[str, Any]:
    """A copy of any mapping by names, with plain keys, and its values as they are."""
    if type(mapping) is not dict and not isinstance(mapping, Mapping):
        raise InvalidValueError(field, f"takes a mapping, not {shown(mapping)}")
    copied: dict[Any, Any] = dict(mapping)  # pyright: ignore[reportUnknownArgumentType]
    for key in copied:
        if type(key) is not str or not key or "\0" in key or not key.isascii():
            return {_key(field, key): value for key, value in copied.items()}
    return copied


def _key(field: str, key: object) -> str:
    key = check_text(f"{field}, key", key)
    if not key:
        raise InvalidValueError(field, "a key may not be empty")
    return key


class Strings(FrozenDict[str, str]):
    """Text by name.

    Making one checks what it holds, whoever makes it, so its type is the proof that this was done:
    a value that is given one looks no further.
    """

    __slots__ = ()

    def __init__(self, mapping: object = EMPTY, /, field: str = "mapping") -> None:
        texts = as_dict(field, mapping)
        for key, text in texts.items():
            texts[key] = check_text(f"{field}[{shown(key)}]", text)
        super().__init__(texts)


def strings(field: str, mapping: object) -> FrozenDict[str, str]:
    """The mapping, frozen; its keys and values are plain text, and no key is empty."""
    frozen = plain_strings(mapping)
    return (Strings(mapping, field) or EMPTY) if frozen is None else frozen


def plain_strings(mapping: object) -> FrozenDict[str, str] | None:
    """What ``strings`` gives, if a quick look finds nothing that is odd; else None."""
    if type(mapping) is not dict:
        return None
    frozen = Strings.__new__(Strings)
    _fill(frozen, mapping)  # pyright: ignore[reportUnknownArgumentType]
    texts: dict[Any, Any] = frozen  # as far as is known yet
    for key, text in texts.items():
        if type(key) is not str or type(text) is not str or not key:
            return None
        if "\0" in key or "\0" in text:
            return None
        if not (key.isascii() and text.isascii()) and not (_is_unicode(key) and _is_unicode(text)):
            return None
    return frozen or EMPTY


_fill = dict[str, str].update


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
