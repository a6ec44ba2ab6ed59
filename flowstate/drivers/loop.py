"""Calling back into an event loop, from itself or from another thread, without waiting.

anyio's own way into a loop from a thread waits for the answer; a writer thread must not.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Self

from attrs import frozen


@frozen
class Loop:
    """The event loop of the caller."""

    soon: Callable[..., Any]
    """``soon(f, *args)``: call ``f`` once what is ready to run now has run. On the loop only."""
    soon_threadsafe: Callable[..., Any]
    """The same from any thread."""

    @classmethod
    def current(cls) -> Self:
        """Raises ``RuntimeError`` outside an event loop."""
        trio = sys.modules.get("trio")
        if trio is not None:
            try:
                token = trio.lowlevel.current_trio_token()
            except RuntimeError:
                pass  # trio is imported, but it is not what runs here
            else:
                return cls(token.run_sync_soon, token.run_sync_soon)
        loop = asyncio.get_running_loop()
        return cls(loop.call_soon, loop.call_soon_threadsafe)
