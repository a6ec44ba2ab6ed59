"""The newest revision that a driver knows of, and who waits for a newer one."""

from __future__ import annotations

import anyio
from attrs import define, field


@define(eq=False)
class Head:
    """One event loop's view of the head of the log. Not thread-safe: call it on that loop."""

    rev: int = 0
    waiting: int = field(default=0, init=False)
    """How many tasks are in ``wait`` now."""
    _newer: anyio.Event | None = field(default=None, init=False)
    _hints: int = field(default=0, init=False)
    _failure: Exception | None = field(default=None, init=False)
    """The latest."""

    def advance(self, rev: int) -> None:
        """There is revision *rev*: wake the tasks that wait for it."""
        if rev > self.rev:
            self.rev = rev
            self._wake()

    def hint(self) -> None:
        """Something changed without a new revision, a due time: wake all that wait."""
        self._hints += 1
        self._wake()

    def fail(self, error: Exception) -> None:
        """Whether there is anything new cannot be told: raise that in all tasks that wait."""
        self._failure = error
        self._wake()

    async def wait(self, after: int) -> int:
        """Return once there is a revision above *after*, or a hint; gives the newest that is known,
        or *after*."""
        self.waiting += 1
        hints, failure = self._hints, self._failure
        try:
            while self.rev <= after and hints == self._hints:
                if self._failure is not None and self._failure is not failure:
                    raise self._failure
                if self._newer is None:
                    self._newer = anyio.Event()
                await self._newer.wait()
        finally:
            self.waiting -= 1
        return max(self.rev, after)

    def _wake(self) -> None:
        if self._newer is not None:
            self._newer.set()
            self._newer = None
