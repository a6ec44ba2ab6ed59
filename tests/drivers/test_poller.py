"""The thread that looks for commits of other processes ends whenever it is asked to."""

from __future__ import annotations

import threading

import anyio.to_thread
import pytest
from attrs import define, field

from flowstate.drivers.head import Head
from flowstate.drivers.poller import Poller, Seen, Source

pytestmark = pytest.mark.anyio

PATIENCE_S = 10


@define(eq=False)
class SlowSource(Source):
    """Finds nothing. Its first pause takes until the test lets it go on, and the look after that
    until the poller is closed."""

    failures = ()

    pausing: threading.Event = field(factory=threading.Event)
    go_on: threading.Event = field(factory=threading.Event)
    looking: threading.Event = field(factory=threading.Event)
    woken: threading.Event = field(factory=threading.Event)

    def look(self) -> Seen | None:
        if self.go_on.is_set():
            self.looking.set()
            assert self.woken.wait(PATIENCE_S)
        return None

    def pause(self) -> None:
        self.pausing.set()
        assert self.go_on.wait(PATIENCE_S)

    def rest(self) -> None:
        """Nothing to let go of."""

    def wake(self) -> None:
        self.woken.set()

    def reset(self) -> None:
        """Nothing to give up."""

    def close(self) -> None:
        """Nothing to close."""


async def test_closing_just_before_the_thread_goes_to_rest_ends_it() -> None:
    """During the look after which it would rest until somebody waits again."""
    source = SlowSource()
    poller = Poller(source, Head(), "poller")
    closing = threading.Thread(target=poller.close, daemon=True)
    with poller.watching():
        assert await anyio.to_thread.run_sync(source.pausing.wait, PATIENCE_S)
    source.go_on.set()
    assert await anyio.to_thread.run_sync(source.looking.wait, PATIENCE_S)
    closing.start()
    await anyio.to_thread.run_sync(closing.join, PATIENCE_S)
    assert not closing.is_alive()
