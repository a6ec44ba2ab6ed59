"""The input of ``flowstate run``: lines of JSON, each of which is a state to be.

Read as they are needed: a file may be larger than memory, and a pipe may still be written to.
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
"""A longer line is rejected without being kept in memory."""
_CHUNK_BYTES = 256 << 10
_BOM = b"\xef\xbb\xbf"


class LineError(Exception):
    """Why a line cannot be a state."""


@frozen
class Line:
    """A line that is not blank, by its number in the input (from 1)."""

    number: int
    content: bytes
    size: int
    """Bytes, with its line break. More than the content: it was too long to be kept."""


class _Record(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a line may hold."""

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
        raise LineError(_told(error)) from None
    except msgspec.DecodeError as error:
        raise LineError(f"is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise LineError(f"is not UTF-8: {error}") from None
    except RecursionError:
        raise LineError("is nested too deeply") from None
    return state


def total_size(file: int) -> int | None:
    """How many bytes there are to read, if that is known before."""
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
    """(content, size) of each line; the content of one that is too long is let go of."""
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
    """Some bytes, when there are any; none at the end."""
    with suppress(PermissionError):  # what cannot be waited for, like a file, is always ready
        await anyio.wait_readable(file)
    return os.read(file, _CHUNK_BYTES)


def _told(error: msgspec.ValidationError) -> str:
    text = str(error)
    if text.startswith("Object contains unknown field"):
        text += f"; a line has {', '.join(_Record.__struct_fields__)}"
    return text
