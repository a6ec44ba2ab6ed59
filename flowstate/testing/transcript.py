"""A record of events, in order, and a way to wait for one of them without sleeping."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import anyio
from attrs import define, field

from ..clock import Clock


@define(eq=False)
class Transcript:
    """Lines that say who did what when: a test waits for a line, or compares all with a file."""

    clock: Clock
    lines: list[str] = field(factory=list[str], init=False)
    _began: int = field(init=False)
    _messages: list[str] = field(factory=list[str], init=False)
    """The lines without their times."""
    _next: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self.clock.now()

    def note(self, who: str, what: str) -> None:
        """Write a line: seconds since the beginning, who, what."""
        message = f"{who}: {what}"
        self._messages.append(message)
        self.lines.append(f"{(self.clock.now() - self._began) / 1000:9.3f}  {message}")
        self._next.set()
        self._next = anyio.Event()

    def of(self, who: str) -> Callable[[Enum, int], None]:
        """A function for the *tell* of a ``Recoverer``: notes its events with their terms."""
        return lambda event, term: self.note(who, f"{event.value} (term {term})")

    async def wait_for(self, part: str, times: int = 1) -> None:
        """Return once *part* is in so many lines ("who: what"), those noted before this call
        included."""
        while sum(part in message for message in self._messages) < times:
            await self._next.wait()

    def text(self) -> str:
        """All lines, as they are written to a file."""
        return "".join(f"{line}\n" for line in self.lines)
