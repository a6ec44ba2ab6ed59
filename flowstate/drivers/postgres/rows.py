"""What a group of plans comes to: one statement for each table, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, LiteralString, TypeAlias, TypeVar

from attrs import frozen
from msgspec import Struct

from ...codec import decode, encode_policy, encode_state
from ...errors import DecodeError
from ...leases import Place
from ...plan import Record, Write, references
from ...query import Labels, Left
from ...state import State, Status
from ..plans import GroupPlan, Version
from .arrays import Array, BigInts, Contents, Documents, Texts
from .schema import key

Keys: TypeAlias = list[int]
"""The keys of a version's labels."""

T = TypeVar("T")

MAX_MESSAGE = 64 << 20
"""Bytes of content in a statement, but for one row: a server takes less than 1 GiB."""

Statement: TypeAlias = tuple[LiteralString, tuple[Any, ...]]
"""Its text, and the values for it."""


def statements(group: GroupPlan[Keys]) -> Iterator[Statement]:
    """What writes the group, to be done in this order."""
    rows = [_row(version) for version in group.versions]
    current = [row for row in rows if row.version.is_current]
    for some in _parts(rows, [len(row.text) for row in rows]):
        yield _VERSIONS, _values(VERSION_COLUMNS, some)
    yield _STATES, _values(STATE_COLUMNS, current)
    superseded = [(key, latest.rev) for latest in group.superseded for key in latest.stored or ()]
    if superseded:
        yield NOT_CURRENT, pairs(superseded)
    if any(row.label_keys for row in rows):
        yield _LABELS, pairs(_labels(rows))
        yield _CURRENT_LABELS, pairs(_labels(current))
    if lost := [(key, row.state.rev) for row in rows for key in row.lost_keys]:
        yield _LEFT_LABELS, pairs(lost)
    for part in _parts(group.payloads, [len(content) for *_, content in group.payloads]):
        revs, checksums, contents = zip(*part, strict=True)
        yield _PAYLOADS, (BigInts.of(revs), Texts.of(checksums), Contents.of(contents))
    refs = {(ref.rev, ref.checksum, row.state.rev) for row in rows for ref in references(row.state)}
    if refs:
        revs, checksums, by = zip(*sorted(refs), strict=True)
        yield _PAYLOAD_REFS, (BigInts.of(revs), Texts.of(checksums), BigInts.of(by))
    if group.new_records:
        yield _RECORDS, _values(RECORD_COLUMNS, group.new_records)
    yield _HEAD, (group.first + len(group.versions) - 1, group.now)


# ---------------------------------------------------------------- columns


class Row(Struct, gc=False):
    """A version to be stored: what the columns of its rows are made of."""

    version: Version
    state: State
    text: bytes
    """The state as JSON."""
    labels: bytes | None
    """Its labels as JSON, if it has any."""
    label_keys: Keys
    was_labels: bytes | None
    """Those of the version before, if they were others."""
    lost_keys: Keys
    """The keys of those that it has no more."""
    place: Place | None
    taken: Place | None
    """Its place, if it is taken."""


@frozen
class Column(Generic[T]):
    """A column of a table, and how a group's rows fill it."""

    name: LiteralString
    array: Callable[[Iterable[Any]], Array]
    value: Callable[[T], Any]
    cast: LiteralString = ""


VERSION_COLUMNS: tuple[Column[Row], ...] = (
    Column("rev", BigInts.of, lambda row: row.state.rev),
    Column("id", Texts.of, lambda row: row.state.id),
    Column("status", Texts.of, lambda row: row.state.transition.status.value),
    Column("committed_at", BigInts.of, lambda row: row.state.committed_at),
    Column("commit_id", Texts.of, lambda row: row.version.commit_id),
    Column("size", BigInts.of, lambda row: len(row.text)),
    Column("state", Documents.of, lambda row: row.text),
    Column("flow", Texts.of, lambda row: row.state.transition.to),
    Column("labels", Documents.of, lambda row: row.labels),
    Column("was_labels", Documents.of, lambda row: row.was_labels),
    Column("was_status", Texts.of, lambda row: _was_status(row.version.left)),
    Column("was_flow", Texts.of, lambda row: row.version.left and row.version.left.flow),
)
"""``versions``"""

STATE_COLUMNS: tuple[Column[Row], ...] = (
    Column("id", Texts.of, lambda row: row.state.id),
    Column("rev", BigInts.of, lambda row: row.state.rev),
    Column("alarm", BigInts.of, lambda row: row.version.write.alarm),
    Column("lease", BigInts.of, lambda row: row.version.write.lease),
    Column("flow", Texts.of, lambda row: row.place and row.state.transition.to),
    Column("since", BigInts.of, lambda row: row.place and row.place.since),
    Column("owner", Texts.of, lambda row: row.taken and row.taken.owner),
    Column("claim", Texts.of, lambda row: row.taken and row.taken.claim),
    Column("until", BigInts.of, lambda row: row.taken and row.taken.until),
    Column("policy", Texts.of, lambda row: _policy(row.version.write)),
    Column("label_keys", Texts.of, lambda row: _array_text(row.label_keys), "::bigint[]"),
    Column("resting", Texts.of, lambda row: resting(row.state.transition.status)),
)
"""``states``, the primary key first"""

RECORD_COLUMNS: tuple[Column[tuple[str, Record]], ...] = (
    Column("id", Texts.of, lambda keyed: keyed[0]),
    Column("digest", Texts.of, lambda keyed: keyed[1].digest),
    Column("commit_id", Texts.of, lambda keyed: keyed[1].commit_id),
    Column("rev", BigInts.of, lambda keyed: keyed[1].first_rev),
    Column("committed_at", BigInts.of, lambda keyed: keyed[1].committed_at),
)
"""``records``"""


def _row(version: Version) -> Row:
    state, left = version.state, version.left
    labels, was = state.labels, None if left is None else left.labels
    place = version.write.place
    return Row(
        version,
        state,
        encode_state(state),
        encode_state(labels) if labels else None,
        _keys(labels),
        None if was is None else encode_state(was),
        [] if not was else _keys(dict(was.items() - labels.items())),
        place,
        place if place is not None and place.since is None else None,
    )


def resting(status: Status) -> str | None:
    """The column ``states.resting`` for a status."""
    return None if status is Status.RUNNING else status.value


def _was_status(left: Left | None) -> str | None:
    return None if left is None or left.status is None else left.status.value


def _policy(write: Write) -> str | None:
    """The policy that it goes by, as JSON text."""
    return None if write.policy is None else encode_policy(write.policy)


def _values(columns: Sequence[Column[T]], rows: Sequence[T]) -> tuple[Array, ...]:
    return tuple([column.array(map(column.value, rows)) for column in columns])


def _insertion(table: LiteralString, columns: Sequence[Column[T]]) -> LiteralString:
    """The statement that inserts rows, with an array for each column."""
    names: LiteralString = ", ".join([column.name for column in columns])
    selected: LiteralString = ", ".join([column.name + column.cast for column in columns])
    marks: LiteralString = ", ".join(["%s" for _ in columns])
    return (
        "INSERT INTO {s}." + table + " (" + names + ")\n"
        "SELECT " + selected + " FROM unnest(" + marks + ") AS n(" + names + ")"
    )


def _replacement(columns: Sequence[Column[T]]) -> LiteralString:
    """What has an insertion replace the row with the same first column."""
    names: list[LiteralString] = [column.name for column in columns]
    excluded: LiteralString = ", ".join([name + " = excluded." + name for name in names[1:]])
    return "\nON CONFLICT (" + names[0] + ") DO UPDATE SET " + excluded


def _array_text(numbers: Sequence[int]) -> str | None:
    """An array as text, None if it is empty: an array of arrays would have to be rectangular."""
    return f"{{{','.join(map(str, numbers))}}}" if numbers else None


def _keys(labels: Labels) -> Keys:
    return list({key(name, value) for name, value in labels.items()}) if labels else []


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


def _labels(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """The rows of ``labels`` for these versions."""
    return [(key, row.state.rev) for row in rows for key in row.label_keys]


def pairs(rows: Sequence[tuple[int, int]]) -> tuple[BigInts, BigInts]:
    """Rows of two columns as the columns."""
    return BigInts.of(first for first, _ in rows), BigInts.of(second for _, second in rows)


def left_of(labels: str | None, status: str | None, flow: str | None) -> Left:
    """What the columns tell of a version, or of the one before it. What this code does not know is
    left out."""
    return Left(_read(labels), _STATUSES.get(status or ""), flow)


def _read(labels: str | None) -> Labels | None:
    if labels is None:
        return None
    try:
        return decode(labels, dict[str, str])
    except DecodeError:
        return None


_STATUSES = {status.value: status for status in Status}


# ---------------------------------------------------------------- statements

_VERSIONS: LiteralString = _insertion("versions", VERSION_COLUMNS)

_STATES: LiteralString = _insertion("states", STATE_COLUMNS) + _replacement(STATE_COLUMNS)

NOT_CURRENT: LiteralString = """
DELETE FROM {s}.current_labels c USING unnest(%s, %s) AS g(key, rev)
WHERE c.key = g.key AND c.rev = g.rev
"""

_LABELS: LiteralString = "INSERT INTO {s}.labels (key, rev) SELECT * FROM unnest(%s, %s)"

_CURRENT_LABELS: LiteralString = (
    "INSERT INTO {s}.current_labels (key, rev) SELECT * FROM unnest(%s, %s)"
)

_LEFT_LABELS: LiteralString = "INSERT INTO {s}.left_labels (key, rev) SELECT * FROM unnest(%s, %s)"

_PAYLOADS: LiteralString = (
    "INSERT INTO {s}.payloads (rev, checksum, content) SELECT * FROM unnest(%s, %s, %s)"
)

_PAYLOAD_REFS: LiteralString = (
    "INSERT INTO {s}.payload_refs (payload_rev, checksum, rev) SELECT * FROM unnest(%s, %s, %s)"
)

_RECORDS: LiteralString = _insertion("records", RECORD_COLUMNS)

_HEAD: LiteralString = "UPDATE {s}.head SET rev = %s, committed_at = %s"
