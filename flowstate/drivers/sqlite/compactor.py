"""Compaction: what a batch asks the tables, and removing what was decided, in every table.

A fixed number of statements for each batch, for the reason that ``writer.py`` gives.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping

from attrs import define

from ...retention import Compaction, Retained
from ..compaction import Candidate, Decider, Key
from .rows import among, delete, labels_of, payloads_of


@define(eq=False)
class Compactor(Decider):
    """Works on one connection, inside a transaction that others begin and end."""

    connection: sqlite3.Connection

    def compact(self, after: int, limit: int) -> Compaction:
        """Remove a batch."""
        batch = self.decide(after, limit, begun_at=after)
        if not batch.removed:
            return batch.summary(())
        delete(self.connection, "labels", _labels(batch.removed))
        delete(self.connection, "current_labels", _labels(batch.current))
        delete(self.connection, "left_labels", self._left_labels(batch.removed))
        delete(self.connection, "payload_references", batch.references)
        unreferenced = self._unreferenced(batch.keys)
        sizes = self._sizes(unreferenced)
        delete(self.connection, "payloads", unreferenced)
        delete(self.connection, "versions", [(version.rev,) for version in batch.removed])
        newest = batch.removed[-1]
        self.connection.execute(_COMPACTED, (newest.rev, newest.committed_at, newest.rev))
        return batch.summary(sizes)

    # ------------------------------------------------------------ what deciding asks

    def _head(self) -> int:
        (head,) = self.connection.execute(_HEAD).fetchone()
        return head or 0

    def _versions(self, after: int, limit: int) -> Iterable[Candidate]:
        rows = self.connection.execute(_CANDIDATES, (after, limit))
        return (
            Candidate(rev, id, committed_at, size, labels, payloads_of(payloads))
            for rev, id, committed_at, size, labels, payloads in rows
        )

    def _retained(self, ids: Collection[str]) -> Mapping[str, Retained]:
        retention = self.retention
        rows = self.connection.execute(_HISTORIES, (retention.keep - 1, json.dumps(list(ids))))
        return {
            id: Retained(oldest, latest, first, self._removes_state(status, at))
            for id, oldest, latest, status, at, first in rows
        }

    # ------------------------------------------------------------ labels and payloads

    def _left_labels(self, versions: Iterable[Candidate]) -> list[tuple[str, str, int]]:
        """Where there may be rows of ``left_labels`` for these versions."""
        rows = self.connection.execute(_WAS, (json.dumps([version.rev for version in versions]),))
        return [(*label, rev) for rev, was in rows for label in labels_of(was).items()]

    def _newest_references(self, keys: Collection[Key]) -> Iterable[tuple[Key, int]]:
        rows = self.connection.execute(_NEWEST_REFERENCES, (json.dumps(keys),))
        return (((rev, checksum), newest) for rev, checksum, newest in rows)

    def _referring(self, keys: Collection[Key]) -> Iterable[tuple[Key, str, int]]:
        rows = self.connection.execute(_REFERRING, (json.dumps(keys),))
        return (((rev, checksum), id, newest) for rev, checksum, id, newest in rows)

    def _unreferenced(self, keys: Collection[Key]) -> list[Key]:
        """Those of these payloads that no version refers to."""
        if not keys:
            return []
        return self.connection.execute(_UNREFERENCED, (json.dumps(keys),)).fetchall()

    def _sizes(self, keys: Collection[Key]) -> list[int]:
        if not keys:
            return []
        return [size for (size,) in self.connection.execute(_SIZES, (json.dumps(keys),))]


def _labels(versions: Iterable[Candidate]) -> list[tuple[str, str, int]]:
    """The rows of ``labels`` for these versions."""
    return [
        (*label, version.rev) for version in versions for label in labels_of(version.labels).items()
    ]


# ---------------------------------------------------------------- statements
# json_each(?) has keys of payloads, each an array of revision and checksum

_HEAD = """
SELECT max(rev) FROM versions
"""

_CANDIDATES = """
SELECT rev, id, committed_at, length(CAST(state AS BLOB)), labels, payload_keys
FROM versions WHERE rev > ? ORDER BY rev LIMIT ?
"""

_HISTORIES = """
SELECT latest.id,
    (SELECT min(rev) FROM versions WHERE id = wanted.value),
    latest.rev, latest.status, latest.committed_at,
    coalesce((
        SELECT rev FROM versions WHERE id = wanted.value ORDER BY rev DESC LIMIT 1 OFFSET ?
    ), 0)
FROM json_each(?) AS wanted CROSS JOIN versions AS latest
ON latest.rev = (SELECT max(rev) FROM versions WHERE id = wanted.value)
"""

_WAS = """
SELECT rev, was_labels FROM versions
WHERE rev IN (SELECT value FROM json_each(?)) AND was_labels IS NOT NULL
"""

_NEWEST_REFERENCES = """
SELECT value ->> 0, value ->> 1, (
    SELECT max(rev) FROM payload_references
    WHERE payload_rev = CAST(value ->> 0 AS INTEGER) AND checksum = CAST(value ->> 1 AS TEXT)
) FROM json_each(?)
"""

_REFERRING = """
SELECT wanted.value ->> 0, wanted.value ->> 1, versions.id, max(versions.rev)
FROM json_each(?) AS wanted CROSS JOIN payload_references
ON payload_rev = CAST(wanted.value ->> 0 AS INTEGER)
AND checksum = CAST(wanted.value ->> 1 AS TEXT)
CROSS JOIN versions USING (rev) GROUP BY 1, 2, 3
"""

_UNREFERENCED = """
SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE NOT EXISTS (
    SELECT 1 FROM payload_references
    WHERE payload_rev = CAST(value ->> 0 AS INTEGER) AND checksum = CAST(value ->> 1 AS TEXT)
)
"""

_SIZES = f"""
SELECT length(content) FROM payloads WHERE {among("payloads")}
"""

_COMPACTED = """
UPDATE compacted SET rev = ?, committed_at = ? WHERE rev < ?
"""
