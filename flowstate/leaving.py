"""Leaving: how waits inside flows learn that their engine is being left."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio
from attrs import define, field

from .errors import EngineClosedError


@define(eq=False)
class Leaving:
    """Whether an engine is being left, and the waits that end with it."""

    event: anyio.Event = field(factory=anyio.Event, init=False)
    """Set once leaving begins."""
    has_begun: bool = field(default=False, init=False)
    """The same: asked after every commit, and asking the event takes three calls."""
    _waits: dict[anyio.CancelScope, None] = field(factory=dict[anyio.CancelScope, None], init=False)
    """In the order in which they began."""

    def begin(self) -> None:
        """Have every wait raise ``EngineClosedError``, and those that would begin from now on."""
        self.has_begun = True
        self.event.set()
        for scope in list(self._waits):
            scope.cancel()

    @contextmanager
    def ends_this(self) -> Generator[None]:
        """A wait of a flow: raises ``EngineClosedError`` as soon as leaving begins."""
        if not self.has_begun:
            with anyio.CancelScope() as scope:
                self._waits[scope] = None
                try:
                    yield
                finally:
                    del self._waits[scope]
            if not scope.cancelled_caught:
                return
        raise EngineClosedError("the engine is being left: what waits in a flow is given back")
