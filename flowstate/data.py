"""Payloads: what a state carries by reference because it is too large to be its label.

``Data`` is pending: it is in memory and will be written by the commit that carries it, atomically
with the state. From then on the state holds a ``DataRef`` in its place. A reference may be copied
to other states; the payload is stored once. Content that was attached again knows the reference
that it had, and is stored only if that payload is gone by the time of the commit.
"""

from __future__ import annotations

import hashlib
from typing import cast

from msgspec import Struct
from msgspec.structs import force_setattr

from . import codec
from .checks import (
    MAX_WHOLE,
    check_bytes,
    check_checksum,
    check_name,
    check_rev,
    check_type,
    check_whole,
)
from .errors import InvalidValueError

JSON = "application/json"
BYTES = "application/octet-stream"


class Data(Struct, frozen=True, tag="pending", tag_field="kind"):
    """A payload that no commit has stored yet, as far as is known.

    ``stored`` is the reference to equal content that it was attached in place of: the commit keeps
    that reference if its payload is still there, and stores the content otherwise.
    """

    content: bytes
    content_type: str = BYTES
    stored: DataRef | None = None

    def __post_init__(self) -> None:
        if type(self.content) is not bytes:
            force_setattr(self, "content", check_bytes("Data.content", self.content))
        if self.content_type is not BYTES and self.content_type is not JSON:
            kind = check_name("Data.content_type", self.content_type)
            force_setattr(self, "content_type", kind)
        if self.stored is not None:
            ref = check_type("Data.stored", self.stored, DataRef)
            if ref.content_type != self.content_type or ref.checksum != self.checksum:
                raise InvalidValueError("Data.stored", "refers to other content")

    @classmethod
    def of(cls, value: object, name: str = "data", content_type: str | None = None) -> Data:
        """Bytes as they are; any other value that msgspec can encode as JSON.

        *name* is what an error calls the value. Raises ``EncodeError`` with the path to the part
        that cannot be encoded.
        """
        if content_type is not None and not content_type:
            raise InvalidValueError(f"data {name!r}", "the content type may not be empty")
        if isinstance(value, bytes | bytearray | memoryview):
            content = check_bytes(f"data {name!r}", cast("object", value))
            return cls(content, content_type or BYTES)
        return cls(codec.encode(value, name), content_type or JSON)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)

    @property
    def checksum(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return checksum(self.content)


class DataRef(Struct, frozen=True, tag="stored", tag_field="kind"):
    """Where a payload is stored and what it must be.

    ``rev`` is the first revision of the commit that stored it (0: the commit that is being made),
    ``size`` is in bytes, ``checksum`` is the SHA-256 of the content. (rev, checksum) is its key.
    """

    rev: int
    size: int
    content_type: str
    checksum: str

    def __post_init__(self) -> None:
        rev, size, kind = self.rev, self.size, self.content_type
        if type(rev) is not int or not 0 <= rev <= MAX_WHOLE:
            force_setattr(self, "rev", check_rev("DataRef.rev", rev))
        if type(size) is not int or not 0 <= size <= MAX_WHOLE:
            force_setattr(self, "size", check_whole("DataRef.size", size))
        if type(kind) is not str or not kind or "\0" in kind or not kind.isascii():
            force_setattr(self, "content_type", check_name("DataRef.content_type", kind))
        force_setattr(self, "checksum", check_checksum("DataRef.checksum", self.checksum))


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
