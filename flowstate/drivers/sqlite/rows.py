"""Rows as the tables have them, and picking them out by their keys."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ...codec import decode, encode_policy, encode_state
from ...errors import DecodeError
from ...frozendict import EMPTY
from ...plan import references
from ...query import Left
from ...state import State, Status
from ..compaction import Key
from ..plans import Version


class VersionRow(NamedTuple):
    """A row of ``versions``: its fields are the columns that an insert fills."""

    rev: int
    id: str
    status: str
    labels: str | None
    """JSON text, as ``labels_of`` takes it."""
    committed_at: int
    commit_id: str
    current: int
    state: str
    payload_keys: str | None
    """JSON text, as ``payloads_of`` takes it."""
    flow: str | None
    """Empty if there is none; NULL if an older version cannot be read."""
    was_labels: str | None
    """What its state was before: this and the next two. NULL if it was as it is, or if there was
    no state."""
    was_status: str | None
    was_flow: str | None
    due_at: int | None = None
    """The sooner of ``alarm`` and ``until``. This and all below is of current versions."""
    policy: str | None = None
    """JSON text."""
    alarm: int | None = None
    lease: int | None = None
    """Its length. This and all below is of RUNNING ones."""
    since: int | None = None
    owner: str | None = None
    """Who has taken it; NULL if it is ready."""
    claim: str | None = None
    until: int | None = None

    @classmethod
    def of(cls, version: Version) -> VersionRow:
        state = version.state
        write = version.write
        # by place, as it is made for every version: names would cost twice as much
        about = (
            state.rev,
            state.id,
            state.transition.status.value,
            labels_json(state.labels) if state.labels else None,
            state.committed_at,
            version.commit_id,
            int(version.is_current),
            encode_state(state).decode(),
            payloads_json(state) if state.data or state.stacked else None,
            state.transition.to,
            *_was(version.left),
        )
        if not version.is_current:
            return cls(*about)
        policy = None if write.policy is None else encode_policy(write.policy)
        alarm = write.alarm
        place = write.place
        if place is None:
            return cls(*about, alarm, policy, alarm)
        until = place.until
        due = alarm if until is None or (alarm is not None and alarm < until) else until
        line = (due, policy, alarm, write.lease)
        if place.since is not None:
            return cls(*about, *line, place.since)
        return cls(*about, *line, None, place.owner, place.claim, until)


ROW = "rev, id, CAST(state AS BLOB)"
"""What a version is read from. Text that is not UTF-8 would be an error of the statement."""

COLUMNS: Mapping[str, Sequence[str]] = {
    "versions": VersionRow._fields,
    "labels": ("key", "value", "rev"),
    "current_labels": ("key", "value", "rev"),
    "left_labels": ("key", "value", "rev"),
    "payloads": ("rev", "checksum", "content"),
    "payload_references": ("payload_rev", "checksum", "rev"),
    "records": ("id", "digest", "commit_id", "rev", "committed_at"),
}
"""The columns of the tables, in the order in which rows have their values here."""

KEYS: Mapping[str, Mapping[str, str]] = {
    "versions": {"rev": "INTEGER"},
    "labels": {"key": "TEXT", "value": "TEXT", "rev": "INTEGER"},
    "current_labels": {"key": "TEXT", "value": "TEXT", "rev": "INTEGER"},
    "left_labels": {"key": "TEXT", "value": "TEXT", "rev": "INTEGER"},
    "payloads": {"rev": "INTEGER", "checksum": "TEXT"},
    "payload_references": {"payload_rev": "INTEGER", "checksum": "TEXT", "rev": "INTEGER"},
}
"""The primary keys of the tables, with the types of their columns."""


def payloads_json(state: State) -> str | None:
    """The payloads that a version refers to, as ``versions.payload_keys`` has them: a JSON array of
    [revision, checksum, bytes]; None if there are none."""
    found = {(ref.rev, ref.checksum): ref.size for ref in references(state)}
    return json.dumps([(*key, size) for key, size in found.items()]) if found else None


def payloads_of(payloads: str | None) -> dict[Key, int]:
    """What ``versions.payload_keys`` has: the payloads with their sizes in bytes."""
    if payloads is None:
        return {}
    found: list[tuple[int, str, int]] = json.loads(payloads)
    return {(rev, checksum): size for rev, checksum, size in found}


def labels_json(labels: Mapping[str, str]) -> str:
    """Labels as JSON text."""
    return encode_state(labels).decode()


def labels_of(labels: str | None) -> Mapping[str, str]:
    """The labels of a version that has this in ``versions.labels``; none if it is damaged."""
    if labels is not None:
        with suppress(DecodeError):
            return decode(labels, dict[str, str], "labels")
    return EMPTY


def left_of(state: State, labels: str | None, status: str | None, flow: str | None) -> Left | None:
    """What a state was before a version that has these in the columns for it."""
    if labels is None and status is None and flow is None:
        return None
    was = Left(None if labels is None else labels_of(labels), STATUSES.get(status), flow)
    return was.before(state)


def _was(left: Left | None) -> tuple[str | None, str | None, str | None]:
    """The columns for what a state was before."""
    if left is None:
        return (None, None, None)
    return (
        None if left.labels is None else labels_json(left.labels),
        None if left.status is None else left.status.value,
        left.flow,
    )


STATUSES: Mapping[str | None, Status] = {status.value: status for status in Status}
"""By what the columns have for them. There may be others, of newer code."""


def delete(connection: sqlite3.Connection, table: str, keys: Sequence[Sequence[Any]]) -> None:
    """Delete the rows with these primary keys."""
    if keys:
        connection.execute(f"DELETE FROM {table} WHERE {among(table)}", (json.dumps(keys),))


def among(table: str) -> str:
    """A condition: the key of the row is in a JSON array of arrays."""
    # without the casts, or with a number first, SQLite does not look up by all columns
    columns = sorted(enumerate(KEYS[table].items()), key=lambda column: column[1][1] != "TEXT")
    names = ", ".join(name for _, (name, _) in columns)
    casts = ", ".join(f"CAST(value ->> {place} AS {type})" for place, (_, type) in columns)
    return f"({names}) IN (SELECT {casts} FROM json_each(?))"
