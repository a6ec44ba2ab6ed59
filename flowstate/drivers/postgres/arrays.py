"""Whole columns as one parameter: arrays in PostgreSQL's binary format.

psycopg writes lists too, but asks each element for its type, and gives a list of small numbers
another type than one of large numbers, so that a statement would be prepared several times. These
have one type each. The format: https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES
and ``array_send`` in ``src/backend/utils/adt/arrayfuncs.c``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import ClassVar

from attrs import frozen
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import StrBinaryDumper

_header = Struct("!iiIii").pack
"""Dimensions, whether there are NULLs, the elements' type, how many there are, the first index."""
_length = Struct("!i").pack
_bigint = Struct("!iq").pack
_NULL = _length(-1)
_JSONB_VERSION = b"\1"


@frozen(eq=False)
class Array:
    """A column. ``element`` and ``array`` are object ids of types, as in ``pg_type``."""

    values: Sequence[bytes]
    """Each with its length before it."""

    element: ClassVar[int]
    array: ClassVar[int]

    def encoded(self) -> bytes:
        """The array as the server takes it."""
        count = len(self.values)
        return _header(1, 1, self.element, count, 1) + b"".join(self.values)


class BigInts(Array):
    """``bigint[]``"""

    element = 20
    array = 1016

    @classmethod
    def of(cls, values: Iterable[int | None]) -> BigInts:
        return cls([_NULL if value is None else _bigint(8, value) for value in values])


class Texts(Array):
    """``text[]``"""

    element = 25
    array = 1009

    @classmethod
    def of(cls, values: Iterable[str | None]) -> Texts:
        return cls([_NULL if value is None else _sized(value.encode()) for value in values])


class Contents(Array):
    """``bytea[]``"""

    element = 17
    array = 1001

    @classmethod
    def of(cls, values: Iterable[bytes]) -> Contents:
        return cls([_sized(value) for value in values])


class Documents(Array):
    """``jsonb[]``, from JSON text."""

    element = 3802
    array = 3807

    @classmethod
    def of(cls, values: Iterable[bytes | None]) -> Documents:
        return cls([_NULL if value is None else _sized(_JSONB_VERSION + value) for value in values])


def register(adapters: AdaptersMap) -> None:
    """Write parameters so: columns as above, every number as ``bigint``, all text as ``text``."""
    for kind, dumper in _DUMPERS:
        adapters.register_dumper(kind, dumper)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(str, StrBinaryDumper)


def _sized(value: bytes) -> bytes:
    return _length(len(value)) + value


def _dumper(kind: type[Array]) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = kind.array

        def dump(self, obj: Array) -> Buffer:
            return obj.encoded()

    return ArrayDumper


_DUMPERS = [(kind, _dumper(kind)) for kind in (BigInts, Texts, Contents, Documents)]
