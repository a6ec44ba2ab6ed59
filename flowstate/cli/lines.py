"""The input of ``flowstate run``: lines of JSON, each of which becomes a state.

Lines are read as they are needed: a file may be larger than memory, and a pipe may still be written
to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import anyio
import msgspec
from attrs import frozen

from flowstate import InvalidValueError, State

MAX_LINE_BYTES = 64 << 20
"""The longest line that is accepted. The content of a longer one is not held in memory."""
_CHUNK_BYTES = 256 << 10
_MAX_SHOWN = 100
"""Characters of the name of an unknown field that are shown."""
_BOM = b"\xef\xbb\xbf"


class LineError(Exception):
    """A line cannot become a state; the message says why."""


@frozen
class Line:
    """A line of the input that is not blank."""

    number: int
    """Its place in the input, from 1 on; blank lines count."""
    content: bytes
    """The line without its line break; empty if it is too long."""
    size: int
    """How many bytes the line has, its line break included."""


class _Record(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The fields that a line may have."""

    id: str
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    data: Mapping[str, Any] = {}


_decoder = msgspec.json.Decoder(_Record)


def parse(line: Line) -> State:
    """The state that the line describes, not committed yet. Raises ``LineError``."""
    if line.size > MAX_LINE_BYTES:
        raise LineError(f"is {line.size:,} bytes long; the limit is {MAX_LINE_BYTES:,}")
    try:
        record = _decoder.decode(line.content)
        state = State(record.id, labels=record.labels, annotations=record.annotations)
        for name, value in record.data.items():
            state = state.attach(name, value)
    except InvalidValueError as error:
        raise LineError(str(error)) from None
    except msgspec.ValidationError as error:
        raise LineError(_message(error)) from None
    except msgspec.DecodeError as error:
        raise LineError(f"is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise LineError(f"is not UTF-8: {error}") from None
    except RecursionError:
        raise LineError("is nested too deeply") from None
    return state


def total_size(file: int) -> int | None:
    """How many bytes there are to read; None if that is not known before they are read."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size - os.lseek(file, 0, os.SEEK_CUR)


async def read_lines(file: int) -> AsyncIterator[Line]:
    """The lines of a file descriptor, blank ones left out."""
    number = 0
    async for content, size in _split(file):
        number += 1
        if content.strip() or size > MAX_LINE_BYTES:
            yield Line(number, content.removeprefix(_BOM) if number == 1 else content, size)


async def _split(file: int) -> AsyncIterator[tuple[bytes, int]]:
    """(content, size) of each line; the content of a line that is too long is empty."""
    parts: list[bytes] = []
    size = 0
    while chunk := await _read(file):
        *complete, rest = chunk.split(b"\n")
        for end in complete:
            size += len(end) + 1
            yield b"".join([*parts, end]) if size <= MAX_LINE_BYTES else b"", size
            parts, size = [], 0
        size += len(rest)
        parts = [*parts, rest] if size <= MAX_LINE_BYTES else []
    if size:
        yield b"".join(parts), size


async def _read(file: int) -> bytes:
    """Some bytes, as soon as there are any; none at the end of the input."""
    with suppress(PermissionError):  # a file cannot be waited for, and is always ready
        await anyio.wait_readable(file)
    return os.read(file, _CHUNK_BYTES)


def _message(error: msgspec.ValidationError) -> str:
    text = str(error)
    known, unknown_field, name = text.partition("Object contains unknown field ")
    if not known and unknown_field:
        name = name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"
        text = f"{unknown_field}{name}; a line has {', '.join(_Record.__struct_fields__)}"
    return text
