"""The only place that encodes and decodes states and payloads for a store.

States and JSON payloads are UTF-8 JSON, written and read by msgspec. ``decode`` checks types, so
what comes out of a store is either a valid value or a :class:`~flowstate.errors.DecodeError`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from .errors import DecodeError, EncodeError

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
encode_state: Callable[[object], bytes] = _encoder.encode
"""JSON bytes of a state: a checked value, so nothing in it can fail to encode."""
_making = threading.RLock()


@functools.lru_cache(maxsize=256)
def encode_policy(policy: object) -> str:
    """JSON text of a retry policy, made once: nearly every version has that of its engine."""
    return _encoder.encode(policy).decode()


_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


def encode(value: object, name: str = "value") -> bytes:
    """JSON bytes of any value that msgspec can encode.

    Raises ``EncodeError`` whose ``field`` is the path from *name* to the part that cannot be
    encoded, e.g. ``order.items[3].price``.
    """
    try:
        encoded = _encoder.encode(value)
    except _UNENCODABLE as error:
        path, part = _culprit(value, name)
        raise EncodeError(
            path,
            f"cannot be written as JSON: {error} (a {type(part).__name__}); "
            "attach bytes, or a value made of JSON types, dataclasses or msgspec Structs",
        ) from error
    # msgspec writes what is no number as null, and nobody would ever know
    if b"null" in encoded and (lost := _not_a_number(value, name)) is not None:
        path, number = lost
        raise EncodeError(path, f"cannot be written as JSON: {number} has no place in it")
    return encoded


def digest(value: object) -> str:
    """SHA-256, in hexadecimal, of a value that can be written as JSON; equal mappings have the same
    in whatever order they are."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def decode(encoded: bytes | str, type: type[T], name: str = "value") -> T:
    """The value of *type* that the JSON text holds, or ``DecodeError``."""
    try:
        decoded: T = decoder(type).decode(encoded)  # type: ignore[arg-type]  # types do hash
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DecodeError(name, f"does not decode as {_name(type)}: {error}") from error
    return decoded


@functools.lru_cache(maxsize=256)
def decoder(type: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of one type, made once."""
    # while msgspec makes one, another thread that asks for the same type would be given a decoder
    # that is not finished, and decoding with that ends the process
    with _making:
        return msgspec.json.Decoder(type)


def schema(type: Any) -> dict[str, Any]:
    """The JSON Schema of the values of one type."""
    made = msgspec.json.schema(type)
    for definition in made["$defs"].values():
        if "description" in definition:  # msgspec takes docstrings as they are indented
            definition["description"] = inspect.cleandoc(definition["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _culprit(value: object, path: str) -> tuple[str, object]:
    """The deepest part of *value* that cannot be encoded on its own, with its path."""
    for depth in range(_MAX_DEPTH):
        for step, part in _parts(value):
            try:
                _encoder.encode(part)
            except _UNENCODABLE:
                path, value = (path + step if depth < _SHOWN_DEPTH else path), part
                break
        else:
            break
    return path, value


def _not_a_number(value: object, path: str) -> tuple[str, float] | None:
    """The first NaN or infinity in a value, with its path."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, value)
    for step, part in _parts(value):
        if (found := _not_a_number(part, path + step)) is not None:
            return found
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, part in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield f".{key}", part  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        for index, part in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield f"[{index}]", part
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield f".{field}", getattr(value, field)
    else:
        fields: Any = getattr(value, "__dataclass_fields__", None) or getattr(
            value, "__attrs_attrs__", ()
        )
        for field in fields:
            name = getattr(field, "name", field)
            yield f".{name}", getattr(value, name)


def _name(type: object) -> str:
    return getattr(type, "__name__", None) or repr(type)


_MAX_DEPTH = 2_000  # deeper than this nothing is JSON: it is a cycle
_SHOWN_DEPTH = 20  # steps of a path that still help a reader
