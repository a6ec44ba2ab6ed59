"""Reading lines: whole, numbered, and never more of them in memory than needed."""

from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from flowstate.cli import lines
from flowstate.cli.lines import Line, read_lines, total_size

pytestmark = pytest.mark.anyio


async def read(content: bytes, chunk: int) -> list[Line]:
    """The lines of what comes in pieces of that size: each is a message, which is read alone."""
    writing, reading = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reading:
        with writing:
            for start in range(0, len(content), chunk):
                writing.send(content[start : start + chunk])
        return [line async for line in read_lines(reading.fileno())]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1_000])
async def test_lines_do_not_depend_on_how_they_are_read(chunk: int) -> None:
    assert await read(b"one\n\n three\r\nfour", chunk) == [
        Line(1, b"one", 4),
        Line(3, b" three\r", 8),
        Line(4, b"four", 4),
    ]


@pytest.mark.parametrize("chunk", [1, 5, 1_000])
async def test_a_line_that_is_too_long_is_let_go_of_but_counted(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10)
    content = b"x" * 9 + b"\n" + b"y" * 10 + b"\nz\n" + b"w" * 11
    assert await read(content, chunk) == [
        Line(1, b"x" * 9, 10),
        Line(2, b"", 11),
        Line(3, b"z", 2),
        Line(4, b"", 11),
    ]


async def test_a_large_file_is_not_read_into_memory(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes((b"x" * 999 + b"\n") * 64_000)
    file = os.open(tmp_path / "in", os.O_RDONLY)
    tracemalloc.start()
    try:
        count = 0
        async for _ in read_lines(file):
            count += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        os.close(file)
    assert count == 64_000
    assert peak < 4_000_000  # of 64,000,000


async def test_the_size_of_a_file_is_known_and_that_of_a_pipe_is_not(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"12345")
    file = os.open(tmp_path / "in", os.O_RDONLY)
    reading, writing = os.pipe()
    try:
        assert total_size(file) == 5
        assert total_size(reading) is None
    finally:
        for descriptor in (file, reading, writing):
            os.close(descriptor)
