"""What reading has in common, whatever the store: bounds, errors, and what a ``ThreadedDriver``
asks of a connection that reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from .. import codec
from ..data import DataRef
from ..errors import DataForgottenError, DataNotFoundError, DecodeError, StoreError
from ..leases import Claimed, Due, DuePage, Holding, Place
from ..plan import Record
from ..query import Page, Query, Unreadable
from ..retention import Compaction, Retention
from ..state import RetryPolicy, State

MAX_SCAN = 10_000
"""Versions that one page looks at, at most."""
SCAN_PER_VERSION = 10
"""Versions that a page looks at for each that it may hold, if an index has to offer them."""


class DueRow(NamedTuple):
    """A version that is due, as it is stored."""

    time: int
    rev: int
    id: str
    text: bytes | str
    """The state as JSON."""
    policy: str | None
    """The policy beside it as JSON, if there is one."""


def payload_not_found(ref: DataRef) -> DataNotFoundError:
    """The error for a payload that is not stored."""
    return DataNotFoundError(_payload_name(ref))


def payload_forgotten(ref: DataRef) -> DataForgottenError:
    """The error for a payload whose content was forgotten."""
    return DataForgottenError(_payload_name(ref))


def _payload_name(ref: DataRef) -> str:
    return f"payload {ref.checksum} stored at revision {ref.rev}"


def unexpected(store: str, error: Exception) -> StoreError:
    """The error for one that no driver should raise."""
    return StoreError(store, f"failed unexpectedly: {type(error).__name__}: {error}")


class Decoder(ABC):
    """Makes values of rows."""

    @property
    @abstractmethod
    def _name(self) -> str:
        """What errors call the store: a path or an address, never a password."""

    def _entry(self, rev: int, id: str, text: bytes | str) -> State | Unreadable:
        """The version in a row, or that it cannot be read."""
        try:
            state = codec.decode(text, State, "state")
        except DecodeError as error:
            return Unreadable(self._name, id, rev, str(error))
        if state.rev != rev or (id and state.id != id):
            why = f"what is there says that it is revision {state.rev} of state {state.id!r}"
            return Unreadable(self._name, id, rev, why)
        return state

    def _readable(self, rev: int, id: str, text: bytes | str) -> State | None:
        """The version in a row; None if it cannot be read."""
        entry = self._entry(rev, id, text)
        return None if type(entry) is Unreadable else entry

    def _claimed(
        self, rev: int, id: str, text: bytes | str, policy: str | None
    ) -> Claimed | Unreadable:
        """The version in a row and the policy beside it, both as JSON."""
        entry = self._entry(rev, id, text)
        if type(entry) is Unreadable:
            return entry
        if policy is None:
            return Claimed(entry, None)
        try:
            return Claimed(entry, codec.decode(policy, RetryPolicy, "policy"))
        except DecodeError as error:
            return Unreadable(self._name, id, rev, str(error))


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
    def record(self, id: str) -> Record | None: ...

    @abstractmethod
    def find(self, query: Query) -> State | None: ...

    @abstractmethod
    def read(self, query: Query, after: int, limit: int, newest_first: bool) -> Page: ...  # noqa: FBT001

    @abstractmethod
    def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]: ...

    @abstractmethod
    def due(self, until: int, limit: int) -> DuePage: ...

    @abstractmethod
    def holdings(self, owner: str | None) -> tuple[Holding, ...]: ...

    @abstractmethod
    def place(self, id: str) -> Place | None: ...

    @abstractmethod
    def line(self) -> Mapping[str, int]: ...

    @abstractmethod
    def dry_run(self, retention: Retention, after: int, limit: int) -> Compaction:
        """What a batch of compaction would do in a run that began at 0."""

    def may_claim(
        self,
        room: Mapping[str, int],
        owner: str,
        claim: str,
        now: int,  # noqa: ARG002  (who can tells what is due by its alarm, and is not given)
    ) -> bool:
        """Whether ``Driver.claim`` with these may have something to give: something is ready, or
        taken by it already."""
        return any(room.get(flow, 0) > 0 for flow in self.line()) or any(
            each.place.claim == claim for each in self.holdings(owner)
        )

    def load(self, ref: DataRef) -> bytes:
        found = self._payload(ref)
        if found is None:
            raise payload_not_found(ref)
        (content,) = found
        if content is None:
            raise payload_forgotten(ref)
        return content

    @abstractmethod
    def _payload(self, ref: DataRef) -> tuple[bytes | None] | None:
        """The content of a payload, alone in a row: None if it was forgotten. None in place of the
        row if it is not stored."""

    # ------------------------------------------------------------ versions from their rows

    def _newest_of(self, entries: Iterable[State | Unreadable]) -> State | None:
        """The newest of these. Raises ``UnreadableVersionError`` if that cannot be read."""
        newest = max(entries, key=lambda entry: entry.rev, default=None)
        if isinstance(newest, Unreadable):
            raise newest.error()
        return newest

    def _due_page(
        self, limit: int, look: Callable[[int], tuple[Sequence[DueRow], int | None]]
    ) -> DuePage:
        """A page of what is due. ``look`` gives at most so many rows that are due, soonest first;
        and if these are all, the soonest due time that is still to come."""
        most = limit + 1
        while True:
            rows, following = look(most)
            found: list[Due] = []
            unreadable: list[Unreadable] = []
            for row in rows:
                due = self._due(row)
                if type(due) is Unreadable:
                    unreadable.append(due)
                elif len(found) < limit:
                    found.append(due)
                else:
                    return DuePage(tuple(found), row.time, tuple(unreadable))
            if len(rows) < most:
                return DuePage(tuple(found), following, tuple(unreadable))
            most *= 2  # what cannot be read took the places of others

    def _due(self, row: DueRow) -> Due | Unreadable:
        claimed = self._claimed(row.rev, row.id, row.text, row.policy)
        if type(claimed) is Unreadable:
            return claimed
        return Due(claimed.state, row.time, claimed.policy)
