"""Another process on the same store."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import cast

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define

from .errors import BenchError

MAX_LINE = 1_000
"""Bytes of a line that a child says."""


@define(eq=False)
class Child:
    """A process that is told and says lines."""

    process: Process
    stdin: ByteSendStream
    stdout: BufferedByteReceiveStream

    async def tell(self, *lines: str) -> None:
        await self.stdin.send("".join(f"{line}\n" for line in lines).encode())

    async def line(self) -> str:
        """The next line that it says. Raises ``BenchError`` if it has died."""
        try:
            return (await self.stdout.receive_until(b"\n", MAX_LINE)).decode()
        except (anyio.EndOfStream, anyio.IncompleteRead):
            raise BenchError("the other process has died; it says why on stderr") from None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()


@asynccontextmanager
async def child(module: str) -> AsyncGenerator[Child]:
    """A process of this Python that runs a module. It is killed when the block is left.

    What it has to know it is told through its input: the arguments of a process can be read by
    others, and a URL may hold a password.
    """
    process = await anyio.open_process(
        [sys.executable, "-m", module],
        stderr=None,
        start_new_session=True,  # Ctrl-C is for us; we end it
    )
    async with process:
        # both are there, for both are pipes
        stdout = BufferedByteReceiveStream(cast("ByteReceiveStream", process.stdout))
        made = Child(process, cast("ByteSendStream", process.stdin), stdout)
        try:
            yield made
        finally:
            made.kill()
