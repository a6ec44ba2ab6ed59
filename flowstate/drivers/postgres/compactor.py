"""Compaction: what a batch asks the tables, and what removes what was decided.

All is decided without the head row's lock, which is held only for removing. Meanwhile others may
commit: what is superseded stays so, a state that has ended does not move, and a new reference to a
payload has a revision above the head as it was. But two who compact would count the same versions,
and each might remove what the other leaves; so the head row counts batches, and what was decided
holds only if no other batch came between.

Rows that are removed leave dead ones behind, in tables and indexes: that is autovacuum's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString, TypeAlias, cast

from attrs import define, field, frozen

from ...retention import Retained
from ..compaction import MAX_BATCH_BYTES, Batch, Candidate, Decider, Key
from .arrays import BigInts, Texts
from .rows import NOT_CURRENT, Statement, pairs
from .schema import key

Ask: TypeAlias = Callable[..., list[tuple[Any, ...]]]
"""Gives the rows that a statement finds, with these values by name."""


@frozen
class Removal:
    """A batch that is to be removed, unless another batch was since it was decided."""

    batch: Batch
    batches: int
    """How many batches had been removed when this one was decided."""
    statements: Sequence[Statement]
    """What removes it, to be executed in this order. The last gives the sizes of the payloads."""


@define(eq=False)
class Compactor(Decider):
    """Asks inside a transaction that others begin and end."""

    ask: Ask
    _newest: int = field(default=0, init=False)
    _batches: int = field(default=0, init=False)
    _left: dict[int, str] = field(factory=dict[int, str], init=False)
    """revision -> the labels of the version before, as JSON, of versions that have others"""

    def removal(self, after: int, limit: int) -> Removal:
        """A batch that is to be removed."""
        batch = self.decide(after, limit, begun_at=after)
        if not batch.removed:
            return Removal(batch, self._batches, ())
        statements = [*self._removing_left(batch), *_removing(batch)]
        return Removal(batch, self._batches, [*statements, self._removing_payloads(batch)])

    def _removing_left(self, batch: Batch) -> Iterator[Statement]:
        removed = [version.rev for version in batch.removed if version.rev in self._left]
        if lost := [pair for rev in removed for pair in _labels(rev, self._left[rev])]:
            yield _LEFT_LABELS, pairs(lost)

    def _removing_payloads(self, batch: Batch) -> Statement:
        rows: list[tuple[Any, ...]] = []
        if keys := batch.keys:
            removed = BigInts.of(version.rev for version in batch.removed)
            rows = self.ask(_UNREFERENCED, **_columns(keys), removed=removed)
        revs, checksums = BigInts.of(rev for rev, _ in rows), Texts.of(name for _, name in rows)
        return _PAYLOADS, (revs, checksums, self._newest)

    # ------------------------------------------------------------ what deciding asks

    def _head(self) -> int:
        ((self._newest, self._batches),) = self.ask("SELECT rev, batches FROM {s}.head")
        return self._newest

    def _versions(self, after: int, limit: int) -> Iterable[Candidate]:
        rows = self.ask(_OLD, after=after, limit=limit, most=MAX_BATCH_BYTES)
        for rev, id, committed_at, size, labels, was_labels, revs, checksums, sizes in rows:
            if was_labels is not None:
                self._left[rev] = was_labels
            payloads: dict[Key, int] = {}
            if revs is not None:
                payloads.update(zip(zip(revs, checksums, strict=True), sizes, strict=True))
            yield Candidate(rev, id, committed_at, size, labels, payloads)

    def _retained(self, ids: Collection[str]) -> Mapping[str, Retained]:
        retention = self.retention
        rows = self.ask(
            _HISTORIES,
            ids=Texts.of(ids),
            ended=bool(retention.removed_statuses),
            others=retention.keep - 1,
        )
        return {
            id: Retained(oldest, latest, first, self._removes_state(status, at))
            for id, oldest, latest, status, at, first in rows
        }

    def _newest_references(self, keys: Collection[Key]) -> Iterable[tuple[Key, int]]:
        rows = self.ask(_NEWEST_REFERENCES, **_columns(keys))
        return (((rev, checksum), newest) for rev, checksum, newest in rows)

    def _referring(self, keys: Collection[Key]) -> Iterable[tuple[Key, str, int]]:
        rows = self.ask(_REFERRING, **_columns(keys))
        return (((rev, checksum), id, newest) for rev, checksum, id, newest in rows)

    def _sizes(self, keys: Collection[Key]) -> list[int]:
        return [size for (size,) in self.ask(_SIZES, **_columns(keys))]


def _columns(keys: Collection[Key]) -> Mapping[str, Any]:
    return {
        "revs": BigInts.of(rev for rev, _ in keys),
        "checksums": Texts.of(checksum for _, checksum in keys),
    }


def _removing(batch: Batch) -> Iterator[Statement]:
    """What removes all but payloads."""
    removed, current = batch.removed, batch.current
    if labels := [pair for each in removed for pair in _labels(each.rev, each.labels)]:
        yield _LABELS, pairs(labels)
    if labels := [pair for each in current for pair in _labels(each.rev, each.labels)]:
        yield NOT_CURRENT, pairs(labels)
    if current:
        ids = Texts.of(version.id for version in current)
        yield _STATES, (ids, BigInts.of(version.rev for version in current))
    if references := batch.references:
        revs, checksums, by = zip(*references, strict=True)
        yield _REFERENCES, (BigInts.of(revs), Texts.of(checksums), BigInts.of(by))
    yield _VERSIONS, (BigInts.of(version.rev for version in removed),)
    yield _HEAD, (removed[-1].rev, removed[-1].committed_at)


def _labels(rev: int, text: str | None) -> list[tuple[int, int]]:
    """The rows of ``labels`` for the labels of a version, as far as they can be read."""
    labels: object = json.loads(text or "{}")
    if not isinstance(labels, dict):
        return []
    given = cast("dict[str, object]", labels).items()
    return [(key(name, value), rev) for name, value in given if isinstance(value, str)]


# ---------------------------------------------------------------- statements

_OLD: LiteralString = """
SELECT v.rev, v.id, v.committed_at, v.size, v.labels::text, v.was_labels::text,
    p.revs, p.checksums, p.sizes
FROM (
    SELECT v.*, sum(v.size) OVER (ORDER BY v.rev) - v.size AS before FROM (
        SELECT v.* FROM {s}.versions v WHERE v.rev > %(after)s ORDER BY v.rev LIMIT %(limit)s
    ) v
) v CROSS JOIN LATERAL (
    SELECT array_agg(r.payload_rev) AS revs, array_agg(r.checksum) AS checksums,
        array_agg(coalesce(octet_length(p.content), 0)) AS sizes
    FROM {s}.payload_refs r
    LEFT JOIN {s}.payloads p ON p.rev = r.payload_rev AND p.checksum = r.checksum
    WHERE r.rev = v.rev
) p WHERE v.before <= %(most)s ORDER BY v.rev
"""

_HISTORIES: LiteralString = """
SELECT s.id,
    CASE WHEN %(ended)s THEN (
        SELECT v.rev FROM {s}.versions v WHERE v.id = s.id ORDER BY v.rev LIMIT 1
    ) ELSE 0 END,
    s.rev, l.status, l.committed_at,
    coalesce((
        SELECT v.rev FROM {s}.versions v WHERE v.id = s.id ORDER BY v.rev DESC
        OFFSET %(others)s LIMIT 1
    ), 0)
FROM unnest(%(ids)s) AS w(id)
JOIN {s}.states s ON s.id = w.id JOIN {s}.versions l ON l.rev = s.rev
"""

_NEWEST_REFERENCES: LiteralString = """
SELECT k.rev, k.checksum, r.rev
FROM unnest(%(revs)s, %(checksums)s) AS k(rev, checksum) CROSS JOIN LATERAL (
    SELECT r.rev FROM {s}.payload_refs r WHERE r.payload_rev = k.rev AND r.checksum = k.checksum
    ORDER BY r.rev DESC LIMIT 1
) r
"""

_REFERRING: LiteralString = """
SELECT k.rev, k.checksum, v.id, max(v.rev)
FROM unnest(%(revs)s, %(checksums)s) AS k(rev, checksum)
JOIN {s}.payload_refs r ON r.payload_rev = k.rev AND r.checksum = k.checksum
JOIN {s}.versions v ON v.rev = r.rev GROUP BY k.rev, k.checksum, v.id
"""

_SIZES: LiteralString = """
SELECT coalesce(octet_length(p.content), 0) FROM unnest(%(revs)s, %(checksums)s) AS k(rev, checksum)
JOIN {s}.payloads p ON p.rev = k.rev AND p.checksum = k.checksum
"""

_LABELS: LiteralString = """
DELETE FROM {s}.labels l USING unnest(%s, %s) AS g(key, rev) WHERE l.key = g.key AND l.rev = g.rev
"""

_LEFT_LABELS: LiteralString = _LABELS.replace("{s}.labels", "{s}.left_labels")

_STATES: LiteralString = """
DELETE FROM {s}.states s USING unnest(%s, %s) AS g(id, rev) WHERE s.id = g.id AND s.rev = g.rev
"""

_REFERENCES: LiteralString = """
DELETE FROM {s}.payload_refs r USING unnest(%s, %s, %s) AS g(payload_rev, checksum, rev)
WHERE r.payload_rev = g.payload_rev AND r.checksum = g.checksum AND r.rev = g.rev
"""

_VERSIONS: LiteralString = """
DELETE FROM {s}.versions v USING unnest(%s) AS g(rev) WHERE v.rev = g.rev
"""

_UNREFERENCED: LiteralString = """
SELECT k.rev, k.checksum FROM unnest(%(revs)s, %(checksums)s) AS k(rev, checksum)
WHERE (
    SELECT r.rev FROM {s}.payload_refs r WHERE r.payload_rev = k.rev AND r.checksum = k.checksum
    AND r.rev <> ALL(%(removed)s) ORDER BY r.rev DESC LIMIT 1
) IS NULL
"""
"""From the newest reference on: of the older, many may be removed and not yet vacuumed."""

_PAYLOADS: LiteralString = """
DELETE FROM {s}.payloads p USING unnest(%s, %s) AS k(rev, checksum)
WHERE p.rev = k.rev AND p.checksum = k.checksum AND NOT EXISTS (
    SELECT FROM {s}.payload_refs r
    WHERE r.payload_rev = k.rev AND r.checksum = k.checksum AND r.rev > %s
)
RETURNING coalesce(octet_length(p.content), 0)
"""

_HEAD: LiteralString = """
UPDATE {s}.head SET batches = batches + 1,
    compacted = greatest(compacted, %s), compacted_at = greatest(compacted_at, %s)
"""
