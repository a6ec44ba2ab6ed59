"""What a group of plans comes to: one statement for each table, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString, TypeAlias, TypeVar

from ...codec import encode_state
from ...plan import references
from ...state import State
from ..plans import GroupPlan, Version
from .arrays import BigInts, Contents, Documents, Texts
from .schema import key

Keys: TypeAlias = list[int]
"""The keys of a version's labels."""

T = TypeVar("T")

MAX_MESSAGE = 64 << 20
"""Bytes of content in a statement, but for one row: a server takes less than 1 GiB."""

Statement: TypeAlias = tuple[LiteralString, tuple[Any, ...]]
"""Its text, and the values for it."""

_VERSIONS: LiteralString = """
INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state)
SELECT %s + v.place, v.id, v.status, %s, v.commit_id, v.size, v.state
FROM unnest(%s, %s, %s, %s, %s) WITH ORDINALITY AS v(id, status, commit_id, size, state, place)
"""

_STATES: LiteralString = """
INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys)
SELECT n.id, n.rev, n.due, n.due_key, n.due_flow, n.label_keys::bigint[]
FROM unnest(%s, %s, %s, %s, %s, %s) AS n(id, rev, due, due_key, due_flow, label_keys)
ON CONFLICT (id) DO UPDATE SET rev = excluded.rev, due = excluded.due,
    due_key = excluded.due_key, due_flow = excluded.due_flow, label_keys = excluded.label_keys
"""

NOT_CURRENT: LiteralString = """
DELETE FROM {s}.current_labels c USING unnest(%s, %s) AS g(key, rev)
WHERE c.key = g.key AND c.rev = g.rev
"""

_LABELS: LiteralString = "INSERT INTO {s}.labels (key, rev) SELECT * FROM unnest(%s, %s)"

_CURRENT_LABELS: LiteralString = (
    "INSERT INTO {s}.current_labels (key, rev) SELECT * FROM unnest(%s, %s)"
)

_PAYLOADS: LiteralString = (
    "INSERT INTO {s}.payloads (rev, checksum, content) SELECT * FROM unnest(%s, %s, %s)"
)

_PAYLOAD_REFS: LiteralString = (
    "INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) SELECT * FROM unnest(%s, %s, %s)"
)

_HEAD: LiteralString = "UPDATE {s}.head SET rev = %s, committed_at = %s"


def statements(group: GroupPlan[Keys]) -> Iterator[Statement]:
    """What writes the group, to be done in this order."""
    keyed = [(version, _label_keys(version.state)) for version in group.versions]
    current = [(version, keys) for version, keys in keyed if version.is_current]
    yield from _versions(group)
    yield _states(current)
    superseded = [(key, latest.rev) for latest in group.superseded for key in latest.stored or ()]
    if superseded:
        yield NOT_CURRENT, pairs(superseded)
    if any(keys for _, keys in keyed):
        yield _LABELS, pairs([(key, v.state.rev) for v, keys in keyed for key in keys])
        yield _CURRENT_LABELS, pairs([(key, v.state.rev) for v, keys in current for key in keys])
    for part in _parts(group.payloads, [len(content) for *_, content in group.payloads]):
        revs, checksums, contents = zip(*part, strict=True)
        yield _PAYLOADS, (BigInts.of(revs), Texts.of(checksums), Contents.of(contents))
    refs = {
        (ref.rev, ref.checksum, version.state.rev)
        for version in group.versions
        for ref in references(version.state)
    }
    if refs:
        revs, checksums, by = zip(*sorted(refs), strict=True)
        yield _PAYLOAD_REFS, (BigInts.of(revs), Texts.of(checksums), BigInts.of(by))
    yield _HEAD, (group.first + len(group.versions) - 1, group.now)


def _versions(group: GroupPlan[Keys]) -> Iterator[Statement]:
    encoded = [encode_state(version.state) for version in group.versions]
    rows = list(zip(group.versions, encoded, strict=True))
    for part in _parts(rows, [len(text) for text in encoded]):
        yield (
            _VERSIONS,
            (
                part[0][0].state.rev - 1,
                group.now,
                Texts.of(version.state.id for version, _ in part),
                Texts.of(version.state.transition.status.value for version, _ in part),
                Texts.of(version.commit_id for version, _ in part),
                BigInts.of(len(text) for _, text in part),
                Documents.of(text for _, text in part),
            ),
        )


def _states(current: Sequence[tuple[Version, Keys]]) -> Statement:
    flows = [v.write.flow if v.write.due is not None else None for v, _ in current]
    return _STATES, (
        Texts.of(version.state.id for version, _ in current),
        BigInts.of(version.state.rev for version, _ in current),
        BigInts.of(version.write.due for version, _ in current),
        BigInts.of(None if flow is None else key(flow) for flow in flows),
        Texts.of(flows),
        Texts.of(f"{{{','.join(map(str, keys))}}}" if keys else None for _, keys in current),
    )


def _label_keys(state: State) -> Keys:
    if not state.labels:
        return []
    return list({key(name, value) for name, value in state.labels.items()})


def _parts(rows: Sequence[T], sizes: Sequence[int]) -> Iterator[Sequence[T]]:
    """The rows, so many at a time as fit into a message."""
    first, size = 0, 0
    for place, each in enumerate(sizes):
        if size + each > MAX_MESSAGE and place > first:
            yield rows[first:place]
            first, size = place, 0
        size += each
    if rows:
        yield rows[first:]


def pairs(of: Sequence[tuple[int, int]]) -> tuple[BigInts, BigInts]:
    """Two columns."""
    return BigInts.of(a for a, _ in of), BigInts.of(b for _, b in of)
