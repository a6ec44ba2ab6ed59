"""What happened, in order, and a way to wait for it that is no sleep."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import anyio
from attrs import define, field

from ..clock import Clock


@define(eq=False)
class Transcript:
    """Lines of who did what when: a test waits for one, and compares all of them with a file."""

    clock: Clock
    lines: list[str] = field(factory=list[str], init=False)
    _began: int = field(init=False)
    _told: list[str] = field(factory=list[str], init=False)
    """The lines without their times."""
    _next: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self.clock.now()

    def note(self, who: str, what: str) -> None:
        """Write a line: seconds since the beginning, who, what."""
        line = f"{who}: {what}"
        self._told.append(line)
        self.lines.append(f"{(self.clock.now() - self._began) / 1000:9.3f}  {line}")
        self._next.set()
        self._next = anyio.Event()

    def of(self, who: str) -> Callable[[Enum, int], None]:
        """What a ``Recoverer`` takes as *tell*: notes its events with their terms."""
        return lambda event, term: self.note(who, f"{event.value} (term {term})")

    async def wait_for(self, part: str, times: int = 1) -> None:
        """Return once *part* stands in so many lines ("who: what"); those before this count."""
        while sum(part in line for line in self._told) < times:
            await self._next.wait()

    def text(self) -> str:
        """All lines, as a file holds them."""
        return "".join(f"{line}\n" for line in self.lines)
