"""Deciding a batch of compaction: which versions it removes, of those that it looks at.

A durable driver says how to ask its tables, and removes what is decided here.

An example, where everything is old enough to go, with ``keep=1`` and ``ended=True``:

=========  ======  =======  =================
revision   state   status   refers to payload
=========  ======  =======  =================
1          a       running  P, which it brought
2          b       running  P, copied from a
3          a       running
4          b       ended
5          c       running
=========  ======  =======  =================

In batches of two versions a run does this:

- The first looks at 1 and 2. a has a newer version, 3, and keeps no more than that: 1 is removed. b
  has ended, so it goes whole: 2 is removed. No version refers to P any more: it is removed too.
- The second looks at 3 and 4. 3 is the current version of a: it stays. 4 is the current version of
  b, and nothing of b is left below this batch: it is removed, and with it the state.
- The third looks at 5, which stays as what is current, and as the newest version of the store:
  revisions and time go on from it.

With ``keep=2``, 1 is one of the two newest versions of a and stays, and so does P. A run that
begins above 2 leaves 4, because 2 is still there: what is current goes last, or b would be as it
was before it ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from attrs import define, field, frozen

from ..retention import Compaction, Retained, Retention
from ..state import Status

MAX_BATCH_BYTES = 8 << 20
"""Bytes of versions, and of payloads that they refer to, after which a batch ends."""
MAX_NEWER = 20_000
"""Versions that a batch steps over to find the oldest that is retained of each state."""

STATUSES = frozenset(status.value for status in Status)

Key: TypeAlias = tuple[int, str]
"""(revision, checksum) of a payload."""


@frozen
class Candidate:
    """A version that a batch looks at, and may remove."""

    rev: int
    id: str
    committed_at: int
    size: int
    labels: str | None
    """Its labels as JSON text, if it has any."""
    payloads: Mapping[Key, int]
    """The payloads that it refers to, with their sizes in bytes."""


@define
class Batch:
    """What a batch removes. ``upto`` and ``done`` are those of ``Compaction``."""

    upto: int
    done: bool
    removed: list[Candidate] = field(factory=list[Candidate])
    """The versions that it removes, in revision order."""
    current: list[Candidate] = field(factory=list[Candidate])
    """The versions of ``removed`` that are current: with each of them, its state is removed."""

    @property
    def keys(self) -> list[Key]:
        """The payloads that the removed versions refer to."""
        return list({key for version in self.removed for key in version.payloads})

    @property
    def references(self) -> list[tuple[int, str, int]]:
        """The references from removed versions: revision and checksum of the payload, and the
        revision of the version."""
        return [(*key, version.rev) for version in self.removed for key in version.payloads]

    def summary(self, payloads: Collection[int]) -> Compaction:
        """What the batch came to, if it removed payloads of these sizes (bytes)."""
        size = sum(version.size for version in self.removed) + sum(payloads)
        counts = len(self.removed), len(self.current), len(payloads)
        return Compaction(self.upto, *counts, size, self.done)


@define(eq=False)
class Decider(ABC):
    """Decides what a batch removes, by questions that a driver answers from one snapshot; changes
    nothing."""

    retention: Retention

    def dry_run(self, after: int, limit: int) -> Compaction:
        """What a batch would do in a run that began at 0."""
        batch = self.decide(after, limit, begun_at=0)
        return batch.summary(self._sizes(self._freed(batch)))

    def decide(self, after: int, limit: int, begun_at: int) -> Batch:
        """The batch of the run that began at *begun_at* which looks at versions above *after*."""
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

    def _old(self, after: int, limit: int) -> tuple[list[Candidate], bool]:
        """The next versions that are old enough to be removed, and whether there are no more."""
        found: list[Candidate] = []
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
        """The payloads that a batch removes in a run that began at 0."""
        if not batch.keys:
            return []
        # the newest reference first: if it is above this batch, a later batch counts the payload
        newest = self._newest_references(batch.keys)
        last = [key for key, rev in newest if rev <= batch.upto]
        referring = list(self._referring(last))
        retained = self._retained({id for _, id, _ in referring})
        head = self._head()
        needed = {key for key, id, rev in referring if not retained[id].may_remove(rev, head)}
        return [key for key in last if key not in needed]

    def _removes_state(self, status: str, committed_at: int) -> bool:
        """Whether a state goes whole whose current version has the status of that name and this
        time (ms). With a status that is not known here, of newer code, it stays."""
        return status in STATUSES and self.retention.removes_state(Status(status), committed_at)

    # ------------------------------------------------------------ what a driver knows

    @abstractmethod
    def _head(self) -> int:
        """The newest revision, 0 for an empty store."""

    @abstractmethod
    def _versions(self, after: int, limit: int) -> Iterable[Candidate]:
        """The next versions above a revision, ascending; fewer than *limit* only if there are no
        more, or if they have more than ``MAX_BATCH_BYTES``."""

    @abstractmethod
    def _retained(self, ids: Collection[str]) -> Mapping[str, Retained]:
        """What ``retention`` leaves of each of these states. ``Retained.oldest`` may be 0 where
        ``whole_goes`` is false."""

    @abstractmethod
    def _newest_references(self, keys: Collection[Key]) -> Iterable[tuple[Key, int]]:
        """The newest reference to each of these payloads that has one: key and revision of the
        version."""

    @abstractmethod
    def _referring(self, keys: Collection[Key]) -> Iterable[tuple[Key, str, int]]:
        """Every state with a reference to one of these payloads: key, id, and the revision of its
        newest version that has one."""

    @abstractmethod
    def _sizes(self, keys: Collection[Key]) -> list[int]:
        """The sizes in bytes of these payloads, without those that are not stored."""
