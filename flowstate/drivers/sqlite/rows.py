"""Rows as the tables have them, and picking them out by their keys."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from ...plan import references
from ...state import State
from ..compaction import Key

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "versions": {"rev": "INTEGER"},
    "labels": {"key": "TEXT", "value": "TEXT", "rev": "INTEGER"},
    "current_labels": {"key": "TEXT", "value": "TEXT", "rev": "INTEGER"},
    "payloads": {"rev": "INTEGER", "checksum": "TEXT"},
    "payload_references": {"payload_rev": "INTEGER", "checksum": "TEXT", "rev": "INTEGER"},
}
"""The primary keys of the tables."""


def payloads_json(state: State) -> str | None:
    """The payloads that a version refers to, as ``versions.payloads`` has them: a JSON array of
    [revision, checksum, bytes]; None if there are none."""
    found = {(ref.rev, ref.checksum): ref.size for ref in references(state)}
    return json.dumps([(*key, size) for key, size in found.items()]) if found else None


def labels_of(rev: int, labels: str | None) -> list[tuple[str, str, int]]:
    """The rows of ``labels`` for a version with this in ``versions.labels``."""
    return [] if labels is None else [(*pair, rev) for pair in json.loads(labels).items()]


def payloads_of(payloads: str | None) -> dict[Key, int]:
    """What stands in ``versions.payloads``: the payloads with their sizes in bytes."""
    if payloads is None:
        return {}
    found: list[tuple[int, str, int]] = json.loads(payloads)
    return {(rev, checksum): size for rev, checksum, size in found}


def delete(connection: sqlite3.Connection, table: str, keys: Sequence[Sequence[Any]]) -> None:
    """Delete the rows with these primary keys."""
    if keys:
        connection.execute(f"DELETE FROM {table} WHERE {among(table)}", (json.dumps(keys),))


def among(table: str) -> str:
    """A condition: the key of the row is in a JSON array of arrays."""
    # without the casts, or with a number first, SQLite does not look up by all columns
    columns = sorted(enumerate(COLUMNS[table].items()), key=lambda column: column[1][1] != "TEXT")
    names = ", ".join(name for _, (name, _) in columns)
    casts = ", ".join(f"CAST(value ->> {place} AS {type})" for place, (_, type) in columns)
    return f"({names}) IN (SELECT {casts} FROM json_each(?))"
