"""Deciding a batch of compaction: which versions go, of those that it looks at.

A durable driver says how to ask its tables, and takes away what is decided here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from attrs import define, field, frozen

from ..retention import Compaction, Retained, Retention

MAX_BATCH_BYTES = 8 << 20
"""Bytes of versions, and of payloads that they refer to, after which a batch ends."""
MAX_NEWER = 20_000
"""Newer versions that a batch steps over to find the oldest that are kept."""

Key: TypeAlias = tuple[int, str]
"""(revision, checksum) of a payload."""


@frozen
class Old:
    """A version that a batch looks at."""

    rev: int
    id: str
    committed_at: int
    size: int
    labels: str | None
    """As JSON text, if it has any."""
    payloads: Mapping[Key, int]
    """Those that it refers to, with their sizes in bytes."""


@define
class Batch:
    """The versions that go, up to a revision."""

    upto: int
    done: bool
    removed: list[Old] = field(factory=list[Old])
    current: list[Old] = field(factory=list[Old])
    """Those of them that are current: the last of their states."""

    @property
    def keys(self) -> list[Key]:
        """The payloads that they refer to."""
        return list({key for version in self.removed for key in version.payloads})

    @property
    def references(self) -> list[tuple[int, str, int]]:
        """Revision and checksum of a payload, and the version that refers to it."""
        return [(*key, version.rev) for version in self.removed for key in version.payloads]

    def summary(self, payloads: Collection[int]) -> Compaction:
        """What became of it; *payloads* are the sizes of those that go."""
        size = sum(version.size for version in self.removed) + sum(payloads)
        counts = len(self.removed), len(self.current), len(payloads)
        return Compaction(self.upto, *counts, size, self.done)


@define(eq=False)
class Decider(ABC):
    """Asks the tables, all in one snapshot; changes nothing."""

    retention: Retention

    def look(self, after: int, limit: int) -> Compaction:
        """What a batch would do in a run that began at 0."""
        batch = self.decide(after, limit, begun_at=0)
        return batch.summary(self._sizes(self._freed(batch)))

    def decide(self, after: int, limit: int, begun_at: int) -> Batch:
        """The versions that go, of those after a revision."""
        head = self._head()
        looked, done = self._old(after, min(limit, max(1, MAX_NEWER // self.retention.keep)))
        upto = looked[-1].rev if looked else after
        batch = Batch(upto, done or upto >= head)
        retained = self._retained({version.id for version in looked})
        for version in looked:
            of_state = retained[version.id]
            if of_state.removes(version.rev, head, begun_at):
                batch.removed.append(version)
                if version.rev == of_state.latest:
                    batch.current.append(version)
        return batch

    def _old(self, after: int, limit: int) -> tuple[list[Old], bool]:
        """Versions after a revision that are old enough to go, and whether there are no more."""
        found: list[Old] = []
        seen: set[Key] = set()
        size = 0
        for version in self._versions(after, limit):
            if not self.retention.is_old(version.committed_at):
                return found, True
            found.append(version)
            new = version.payloads.keys() - seen
            seen |= new
            size += version.size + sum(version.payloads[key] for key in new)
            if size > MAX_BATCH_BYTES:
                return found, False
        return found, len(found) < limit

    def _freed(self, batch: Batch) -> list[Key]:
        """The payloads that go with a batch, if all goes that it and those before it find."""
        if not batch.keys:
            return []
        # the newest reference first: if it is not in this batch, another one counts the payload
        newest = self._newest_references(batch.keys)
        last = [key for key, rev in newest if rev <= batch.upto]
        referring = list(self._referring(last))
        retained = self._retained({id for _, id, _ in referring})
        head = self._head()
        stay = {key for key, id, rev in referring if not retained[id].may_remove(rev, head)}
        return [key for key in last if key not in stay]

    # ------------------------------------------------------------ what a driver knows

    @abstractmethod
    def _head(self) -> int:
        """The newest revision, 0 for an empty store."""

    @abstractmethod
    def _versions(self, after: int, limit: int) -> Iterable[Old]:
        """The next versions after a revision, ascending. May end before the limit if they have
        more than ``MAX_BATCH_BYTES``."""

    @abstractmethod
    def _retained(self, ids: Collection[str]) -> Mapping[str, Retained]:
        """What ``retention`` leaves of each of these states. ``oldest`` counts only if the state
        goes whole."""

    @abstractmethod
    def _newest_references(self, keys: Collection[Key]) -> Iterable[tuple[Key, int]]:
        """To each of these payloads that is referred to: the newest version that does."""

    @abstractmethod
    def _referring(self, keys: Collection[Key]) -> Iterable[tuple[Key, str, int]]:
        """Every state that refers to one of these payloads: key, id, the newest version of it that
        does."""

    @abstractmethod
    def _sizes(self, keys: Collection[Key]) -> list[int]:
        """The sizes in bytes of those of these payloads that are there."""
