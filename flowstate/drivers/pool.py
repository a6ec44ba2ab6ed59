"""Reading in threads: a few readers, each with a connection of its own, made when needed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar, cast

import anyio
import anyio.to_thread
from attrs import define, field

from .loop import Loop


class Closeable(Protocol):
    """A reader."""

    @property
    def is_usable(self) -> bool:
        """Whether it can be used again; else it is closed."""
        ...

    def close(self) -> None: ...


R = TypeVar("R", bound=Closeable)
T = TypeVar("T")


@define(eq=False)
class _Turn:
    """The use of a reader, by a task that waits for it and the thread that reads."""

    has_begun: bool = False
    has_ended: bool = False
    is_abandoned: bool = False
    """The task waits no more."""


@define(eq=False)
class Pool(Generic[R]):
    """At most ``size`` readers, each used by one thread at a time. Made on the event loop."""

    make: Callable[[], R]
    """Called in a worker thread."""
    size: int
    _idle: list[R] = field(factory=list[R], init=False)
    _limit: anyio.CapacityLimiter = field(init=False)
    _threads: anyio.CapacityLimiter = field(init=False)
    """Bounds nothing: whoever has a turn has a thread, also beside one that was abandoned."""
    _loop: Loop = field(init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    """For what a turn has come to."""
    _is_closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._limit = anyio.CapacityLimiter(self.size)
        self._threads = anyio.CapacityLimiter(math.inf)
        self._loop = Loop.current()

    async def run(self, read: Callable[[R], T]) -> T:
        """Read something in a worker thread. Whoever is cancelled does not wait for it, which may
        be long where a store does not answer; the turn ends when the thread has."""
        turn = _Turn()
        try:  # mostly one is free, and a turn of the event loop would cost as much as some reads
            self._limit.acquire_on_behalf_of_nowait(turn)
        except anyio.WouldBlock:
            await self._limit.acquire_on_behalf_of(turn)

        def serve() -> T | None:
            with self._lock:
                if turn.is_abandoned:
                    return None  # nobody is there any more
                turn.has_begun = True
            try:
                return self._with_reader(read)
            finally:
                with self._lock:
                    turn.has_ended = True
                    is_abandoned = turn.is_abandoned
                if is_abandoned:
                    with suppress(RuntimeError):  # the loop has ended
                        self._loop.soon_threadsafe(self._limit.release_on_behalf_of, turn)

        try:
            found = await anyio.to_thread.run_sync(
                serve, abandon_on_cancel=True, limiter=self._threads
            )
            return cast("T", found)
        finally:
            with self._lock:
                turn.is_abandoned = not turn.has_ended
                is_in_use = turn.has_begun and not turn.has_ended
            if not is_in_use:
                self._limit.release_on_behalf_of(turn)

    def close(self) -> None:
        """Close every reader; those in use, as soon as they are not."""
        self._is_closed = True
        self.clear()

    def clear(self) -> None:
        """Close every reader that is not in use."""
        with suppress(IndexError):  # several may do so at once
            while True:
                self._idle.pop().close()

    def _with_reader(self, read: Callable[[R], T]) -> T:
        reader = self._usable() or self.make()
        try:
            return read(reader)
        finally:
            if reader.is_usable and not self._is_closed:
                self._idle.append(reader)
            else:
                reader.close()

    def _usable(self) -> R | None:
        """A reader that nobody uses, if there is one."""
        with suppress(IndexError):
            while not (reader := self._idle.pop()).is_usable:
                reader.close()
            return reader
        return None
