"""Compaction: which versions may go, and taking them away with all that belongs to them.

A fixed number of statements for each batch, for the reason that ``writer.py`` gives.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from attrs import define, field, frozen

from ...driver import Compaction, Retention
from .rows import Key, among, delete, labels_of, payloads_of

MAX_BATCH_BYTES = 8 << 20
"""Bytes of versions, and of payloads that they refer to, after which a batch ends."""
MAX_NEWER = 20_000
"""Newer versions that a batch steps over to find the oldest that are kept."""


@frozen
class _Version:
    """A row that a batch looks at."""

    rev: int
    id: str
    committed_at: int
    size: int
    labels: str | None
    payloads: dict[Key, int]
    """Those that it refers to, with their sizes in bytes."""


@frozen
class _State:
    """What decides about the versions of one state."""

    oldest: int
    latest: int
    is_over: bool
    """It has ended long enough ago for all of it to go."""
    kept_from: int
    """The oldest of its newest versions that are to be kept; 0 if it has no more than those."""


@define
class _Batch:
    """The versions that go, up to a revision."""

    upto: int
    done: bool
    gone: list[_Version] = field(factory=list[_Version])
    current: list[_Version] = field(factory=list[_Version])
    """Those of them that are current: the last of their states."""

    @property
    def keys(self) -> list[Key]:
        """The payloads that they refer to."""
        return list({key for version in self.gone for key in version.payloads})

    def told(self, payloads: Collection[int]) -> Compaction:
        """What became of it; *payloads* are the sizes of those that go."""
        size = sum(version.size for version in self.gone) + sum(payloads)
        counts = len(self.gone), len(self.current), len(payloads)
        return Compaction(self.upto, *counts, size, self.done)


@define(eq=False)
class Compactor:
    """Works on one connection, inside a transaction that others begin and end."""

    connection: sqlite3.Connection
    retention: Retention

    def look(self, after: int, limit: int, *, payloads: bool) -> Compaction:
        """What a batch would remove in a run that began at 0; changes nothing. Leaves payloads out
        unless asked for them."""
        batch = self._decide(after, limit, begun_at=0)
        return batch.told(self._sizes(self._freed(batch)) if payloads else ())

    def compact(self, after: int, limit: int) -> Compaction:
        """Remove a batch."""
        batch = self._decide(after, limit, begun_at=after)
        if not batch.gone:
            return batch.told(())
        delete(
            self.connection,
            "labels",
            [row for v in batch.gone for row in labels_of(v.rev, v.labels)],
        )
        ended = [row for v in batch.current for row in labels_of(v.rev, v.labels)]
        delete(self.connection, "current_labels", ended)
        references = [(*key, v.rev) for v in batch.gone for key in v.payloads]
        delete(self.connection, "payload_references", references)
        freed = self._unreferred(batch.keys)
        sizes = self._sizes(freed)
        delete(self.connection, "payloads", freed)
        delete(self.connection, "versions", [(version.rev,) for version in batch.gone])
        newest = batch.gone[-1]
        self.connection.execute(
            "UPDATE compacted SET rev = ?, committed_at = ? WHERE rev < ?",
            (newest.rev, newest.committed_at, newest.rev),
        )
        return batch.told(sizes)

    # ------------------------------------------------------------ deciding

    def _decide(self, after: int, limit: int, begun_at: int) -> _Batch:
        """The versions that go, of those after a revision."""
        (head,) = self.connection.execute("SELECT max(rev) FROM versions").fetchone()
        looked, done = self._old(after, min(limit, max(1, MAX_NEWER // self.retention.keep)))
        upto = looked[-1].rev if looked else after
        batch = _Batch(upto, done or upto >= (head or 0))
        states = self._states({version.id for version in looked})
        for version in looked:
            state = states[version.id]
            if not self._may_go(version.rev, state, head):
                continue
            if version.rev < state.latest:
                batch.gone.append(version)
            elif state.oldest > begun_at:  # what is current goes last
                batch.gone.append(version)
                batch.current.append(version)
        return batch

    def _old(self, after: int, limit: int) -> tuple[list[_Version], bool]:
        """Versions after a revision that are old enough to go, and whether there are no more."""
        rows = self.connection.execute(
            "SELECT rev, id, committed_at, length(CAST(state AS BLOB)), labels, payloads "
            "FROM versions WHERE rev > ? ORDER BY rev LIMIT ?",
            (after, limit),
        )
        found: list[_Version] = []
        seen: set[Key] = set()
        size = 0
        for rev, id, committed_at, text, labels, referring in rows:
            version = _Version(rev, id, committed_at, text, labels, payloads_of(referring))
            if version.committed_at >= self.retention.before:
                return found, True
            found.append(version)
            new = version.payloads.keys() - seen
            seen |= new
            size += version.size + sum(version.payloads[key] for key in new)
            if size > MAX_BATCH_BYTES:
                return found, False
        return found, len(found) < limit

    def _may_go(self, rev: int, state: _State, head: int) -> bool:
        return rev < state.kept_from or (state.is_over and rev != head)

    def _states(self, ids: Collection[str]) -> dict[str, _State]:
        """What decides about the versions of these states."""
        of_id = "FROM versions WHERE id = wanted.value"
        rows = self.connection.execute(
            f"SELECT latest.id, (SELECT min(rev) {of_id}), latest.rev, "
            "? AND latest.status = 'ended' AND latest.committed_at < ?, "
            f"coalesce((SELECT rev {of_id} ORDER BY rev DESC LIMIT 1 OFFSET ?), 0) "
            "FROM json_each(?) AS wanted "
            f"CROSS JOIN versions AS latest ON latest.rev = (SELECT max(rev) {of_id})",
            (
                self.retention.ended,
                self.retention.before,
                self.retention.keep - 1,
                json.dumps(list(ids)),
            ),
        )
        return {id: _State(*rest) for id, *rest in rows}

    # ------------------------------------------------------------ payloads

    def _freed(self, batch: _Batch) -> list[Key]:
        """The payloads that go with a batch, if all goes that it and those before it find."""
        keys = json.dumps(batch.keys)
        # the newest reference first: if it is not in this batch, another one counts the payload
        newest = self.connection.execute(
            f"SELECT value ->> 0, value ->> 1, (SELECT max(rev) {_REFERENCES}) FROM json_each(?)",
            (keys,),
        )
        last = [(rev, checksum) for rev, checksum, found in newest if found <= batch.upto]
        rows = self.connection.execute(
            "SELECT json_each.value ->> 0, json_each.value ->> 1, versions.id, max(versions.rev) "
            "FROM json_each(?) CROSS JOIN payload_references "
            "ON payload_rev = CAST(json_each.value ->> 0 AS INTEGER) "
            "AND checksum = CAST(json_each.value ->> 1 AS TEXT) "
            "CROSS JOIN versions USING (rev) GROUP BY 1, 2, 3",
            (json.dumps(last),),
        ).fetchall()
        states = self._states({id for _, _, id, _ in rows})
        (head,) = self.connection.execute("SELECT max(rev) FROM versions").fetchone()
        stay = {
            (rev, checksum)
            for rev, checksum, id, newest_rev in rows
            if not self._may_go(newest_rev, states[id], head)
        }
        return [key for key in last if key not in stay]

    def _unreferred(self, keys: Sequence[Key]) -> list[Key]:
        """Those that no version refers to."""
        if not keys:
            return []
        return self.connection.execute(
            "SELECT value ->> 0, value ->> 1 FROM json_each(?) "
            f"WHERE NOT EXISTS (SELECT 1 {_REFERENCES})",
            (json.dumps(keys),),
        ).fetchall()

    def _sizes(self, keys: Sequence[Key]) -> list[int]:
        """The sizes in bytes of those that are there."""
        if not keys:
            return []
        rows = self.connection.execute(
            f"SELECT length(content) FROM payloads WHERE {among('payloads')}",
            (json.dumps(keys),),
        )
        return [size for (size,) in rows]


_REFERENCES = (
    "FROM payload_references WHERE payload_rev = CAST(value ->> 0 AS INTEGER) "
    "AND checksum = CAST(value ->> 1 AS TEXT)"
)
"""The references to the payload whose key is a JSON array."""
