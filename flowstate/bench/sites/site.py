"""What the harness asks of a kind of store, besides its driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import ClassVar, Protocol, Self

import anyio
from attrs import define

from flowstate import Durability, connect
from flowstate.drivers.url import StoreUrl

ID = "order-1"
COMMIT_ID = "0123456789abcdef-1"
STATE = (
    '{"id":"order-1","rev":12345,"transition":{"to":"step","status":"running"},'
    '"committed_at":1700000000000}'
)
"""A version as it is stored: what the rows of a raw limit hold."""
INSTANT_MS = 1_700_000_000_000


class RawLimit(Protocol):
    """The same rows and syncs without flowstate: what its figures are shares of.

    Each makes what it needs in a fresh place, works for about so many seconds, and cleans up.
    """

    @property
    def about(self) -> str:
        """What it does, for people."""
        ...

    def insert(self, a_sync: int, seconds: float) -> float:
        """Rows a second, *a_sync* of them made durable at a time."""
        ...

    def payload(self, size: int, seconds: float) -> float | None:
        """Bytes a second, in rows that have a payload of *size* bytes each and are made durable
        one at a time; None if that copies nothing."""
        ...

    def lookup(self, rows: int, seconds: float) -> float:
        """Rows a second that are looked up by id, one at a time, where there are so many."""
        ...


@define(eq=False)
class Site(ABC):
    """A place where stores of one kind are made, looked at from outside, and removed.

    Open while inside ``with``; all that was made is gone afterwards.
    """

    url: StoreUrl

    is_fresh: ClassVar[bool] = True
    """Whether each measurement gets a store of its own."""

    @property
    def shown(self) -> str:
        """The URL, without a password."""
        return self.url.text

    @abstractmethod
    def check(self) -> None:
        """Raise ``BenchError``, having changed nothing, if the store that the URL names has
        states."""

    @abstractmethod
    def fresh(self) -> AbstractContextManager[str]:
        """The URL of an empty store, which is removed when the block is left."""

    def durability(self) -> Durability:
        """What an acknowledged commit survives there."""

        async def declared(url: str) -> Durability:
            async with connect(url) as driver:  # some ask their server
                return driver.durability

        with self.fresh() as url:
            return anyio.run(declared, url)

    @property
    def raw(self) -> RawLimit | None:
        """Its raw limit, if one is known."""
        return None

    def size(self, url: str) -> int | None:  # noqa: ARG002  (for those that have a disk)
        """Bytes on disk of a store that nobody has open; None if that does not apply."""
        return None

    def facts(self) -> Mapping[str, str]:
        """Versions and settings that the figures depend on, by name."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """What one has to know to read the figures."""
        return ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove what is left."""
        return


def head_of(url: str) -> int:
    """The newest revision of a store, 0 if it is empty."""

    async def head() -> int:
        async with connect(url) as driver:
            return await driver.head()

    return anyio.run(head)
