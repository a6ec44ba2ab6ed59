"""Calling back into an event loop, from itself or from another thread, without waiting.

anyio's own way into a loop from a thread waits for the answer; a writer thread must not.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from attrs import define, field, frozen


class Waiter(Protocol):
    """What a task waits on, until it is woken."""

    def wait(self) -> Awaitable[None]: ...
    def set(self) -> None: ...


@frozen
class Loop:
    """The event loop that runs now."""

    soon: Callable[..., Any]
    """``soon(f, *args)``: call ``f`` once what is ready to run now has run. On the loop only."""
    soon_threadsafe: Callable[..., Any]
    """The same from any thread. Raises ``RuntimeError`` when the loop has ended."""
    waiter: Callable[[], Waiter]
    """Makes a ``Waiter`` of the loop's own kind."""

    @classmethod
    def current(cls) -> Loop:
        """Raises ``RuntimeError`` outside an event loop."""
        trio: Any = sys.modules.get("trio")
        if trio is not None:
            try:
                token = trio.lowlevel.current_trio_token()
            except RuntimeError:
                pass  # trio is imported, but it is not what runs here
            else:
                return cls(token.run_sync_soon, token.run_sync_soon, trio.Event)
        loop = asyncio.get_running_loop()
        return cls(
            loop.call_soon,
            loop.call_soon_threadsafe,
            lambda: _AsyncioWaiter(loop.create_future()),
        )


@define(eq=False)
class _AsyncioWaiter:
    """A bare future: a quarter of the cost of an event, and there is one for every commit."""

    _future: asyncio.Future[None] = field()

    def wait(self) -> asyncio.Future[None]:
        return self._future

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
