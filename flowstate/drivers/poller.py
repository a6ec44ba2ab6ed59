"""Noticing what other processes commit, while somebody waits for it and no longer."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, NamedTuple

from attrs import define, field

from .head import Head
from .loop import Loop


class Seen(NamedTuple):
    """What a look at a store found."""

    rev: int
    """The newest revision."""
    mark: int
    """Differs from that of the last look if anything has changed, also without a revision."""


class Source(ABC):
    """How a store is looked at. ``wake`` and ``close`` run in any thread, the other methods in that
    of the poller."""

    linger: ClassVar[int] = 0
    """Pauses without anybody waiting before the poller rests."""

    @property
    def patience_s(self) -> float:
        """For how long looks may fail, one after the other, before those who wait are told."""
        return math.inf

    @abstractmethod
    def look(self) -> Seen | None:
        """What there is now; None if nothing has changed since the last look."""

    @abstractmethod
    def pause(self) -> None:
        """Wait until it is worth to look again, or until woken."""

    @abstractmethod
    def rest(self) -> None:
        """Nobody waits for now: the next look may be long after this one."""

    @abstractmethod
    def wake(self) -> None:
        """End the present pause, or the next. From any thread."""

    @abstractmethod
    def reset(self) -> None:
        """Give up a connection that does not work; the next look opens another."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Called once the thread has ended."""


@define(eq=False)
class Poller:
    """A thread that keeps a head up to date while there are tasks waiting for it."""

    source: Source
    head: Head
    name: str
    _watching: int = field(default=0, init=False)
    _wanted: threading.Event = field(factory=threading.Event, init=False)
    _closing: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _loop: Loop = field(init=False)
    _seen: Seen | None = field(default=None, init=False)
    _failing_since: float | None = field(default=None, init=False)
    """When the first look failed since the last that succeeded."""

    @contextmanager
    def watching(self) -> Generator[None]:
        """Keep the head up to date for as long as this lasts. On the event loop."""
        if self._thread is None:
            self._loop = Loop.current()
            self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
            self._thread.start()
        self._watching += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._watching -= 1

    def close(self) -> None:
        self._closing.set()
        self._wanted.set()
        self.source.wake()
        if self._thread is not None:
            self._thread.join()
        self.source.close()

    # ------------------------------------------------------------ in the thread

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                self._poll()
            except Exception as error:  # noqa: BLE001  (whatever the store does, the next look may succeed)
                self.source.reset()
                self._failed(error)
                if self._seen is not None:  # whatever is found then may have changed meanwhile
                    self._seen = self._seen._replace(mark=-1)
                self.source.pause()

    def _poll(self) -> None:
        """Poll for as long as somebody waits, then rest until somebody does."""
        idle = 0
        while not self._closing.is_set():
            found = self.source.look()
            self._failing_since = None
            if found is not None:
                self._found(found)
            idle = 0 if self._watching else idle + 1
            if idle <= self.source.linger:
                self.source.pause()
                continue
            self._wanted.clear()
            # again: someone may have come, or closed it, just before the event was cleared
            if not self._is_wanted():
                self.source.rest()
                self._wanted.wait()

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self.source.patience_s:
            self._call(partial(self.head.fail, error))

    def _found(self, found: Seen) -> None:
        seen, self._seen = self._seen, found
        if seen is None or found.rev != seen.rev:
            self._call(partial(self.head.advance, found.rev))
        if seen is None or found.mark != seen.mark:
            # perhaps a change without a new revision, a release: beside a commit of this process,
            # or before the first look of all
            self._call(self.head.hint)

    def _is_wanted(self) -> bool:
        return self._watching > 0 or self._closing.is_set()

    def _call(self, on_loop: Callable[[], None]) -> None:
        try:
            self._loop.soon_threadsafe(on_loop)
        except RuntimeError:
            self._closing.set()  # the loop has ended
