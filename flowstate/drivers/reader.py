"""What reading has in common, whatever the store: bounds, errors, and what a ``ThreadedDriver``
asks of a connection that reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from .. import codec
from ..data import DataRef
from ..errors import DataNotFoundError, DecodeError, StoreCorruptError
from ..leases import Claimed, Due, DuePage, Holding, Place
from ..query import Page, Query
from ..retention import Compaction, Retention
from ..state import RetryPolicy, State

T = TypeVar("T")

MAX_SCAN = 10_000
"""Versions that one page looks at, at most."""
SCAN_PER_VERSION = 10
"""Versions that a page looks at for each that it may hold, if an index has to offer them."""


def payload_not_found(ref: DataRef) -> DataNotFoundError:
    """The error for a payload that is not stored."""
    return DataNotFoundError(f"payload {ref.checksum} stored at revision {ref.rev}")


class Decoder(ABC):
    """Makes values of what is stored, which is JSON text."""

    @property
    @abstractmethod
    def _name(self) -> str:
        """What errors call the store: a path or an address, never a password."""

    def _due(self, time: int, rev: int, text: str, policy: str | None) -> Due:
        """A version that is due, from its text and that of the policy beside it."""
        return Due(self._decode(rev, text), time, self._policy(rev, policy))

    def _claimed(self, rev: int, text: str, policy: str | None) -> Claimed:
        """A version that was claimed, from its text and that of the policy beside it."""
        return Claimed(self._decode(rev, text), self._policy(rev, policy))

    def _policy(self, rev: int, text: str | None) -> RetryPolicy | None:
        return None if text is None else self._value(rev, text, RetryPolicy, "policy")

    def _decode(self, rev: int, text: str) -> State:
        """The version at a revision from its JSON text."""
        return self._value(rev, text, State, "state")

    def _value(self, rev: int, text: str, type: type[T], name: str) -> T:
        """What is stored at a revision, from its JSON text."""
        try:
            return codec.decode(text, type, name)
        except DecodeError as error:
            raise StoreCorruptError(
                self._name, f"the version at revision {rev} cannot be read: {error}"
            ) from error


class StoreReader(Decoder):
    """Reads a store on a connection of its own, in one worker thread at a time.

    The methods give what those of ``Driver`` promise, and raise its errors. What each of them finds
    is of one moment.
    """

    @property
    def is_usable(self) -> bool:
        """Whether it can be used again; else it is closed."""
        return True

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def head(self) -> int: ...

    @abstractmethod
    def get(self, id: str, rev: int | None) -> State | None: ...

    @abstractmethod
    def find(self, query: Query) -> State | None: ...

    @abstractmethod
    def read(self, query: Query, after: int, limit: int) -> Page: ...

    @abstractmethod
    def due(self, until: int, limit: int) -> DuePage: ...

    @abstractmethod
    def may_claim(self, room: Mapping[str, int], owner: str, claim: str, now: int) -> bool:
        """Whether ``Driver.claim`` with these has something to give, ready or taken already."""

    @abstractmethod
    def holdings(self, owner: str | None) -> tuple[Holding, ...]: ...

    @abstractmethod
    def place(self, id: str) -> Place | None: ...

    @abstractmethod
    def line(self) -> Mapping[str, int]: ...

    @abstractmethod
    def dry_run(self, retention: Retention, after: int, limit: int) -> Compaction:
        """What a batch of compaction would do in a run that began at 0."""

    def load(self, ref: DataRef) -> bytes:
        content = self._payload(ref)
        if content is None:
            raise payload_not_found(ref)
        return content

    @abstractmethod
    def _payload(self, ref: DataRef) -> bytes | None:
        """The content of a payload, None if it is not stored."""
