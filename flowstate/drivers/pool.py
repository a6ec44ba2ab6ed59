"""Reading in threads: a few readers, each with a connection of its own, made when needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import anyio
import anyio.to_thread
from attrs import define, field


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
class Pool(Generic[R]):
    """At most ``size`` readers, each used by one thread at a time. Made on the event loop."""

    make: Callable[[], R]
    """Called in a worker thread."""
    size: int
    _idle: list[R] = field(factory=list[R], init=False)
    _limit: anyio.CapacityLimiter = field(init=False)
    _is_closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._limit = anyio.CapacityLimiter(self.size)

    async def run(self, read: Callable[[R], T]) -> T:
        """Read something in a worker thread."""
        return await anyio.to_thread.run_sync(self._with_reader, read, limiter=self._limit)

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
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = self.make()
        try:
            return read(reader)
        finally:
            if reader.is_usable and not self._is_closed:
                self._idle.append(reader)
            else:
                reader.close()
