"""SQLite: how near to the disk, and how group commit grows with load."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import count
from pathlib import Path

import anyio
import pytest

from flowstate import connect

from .conftest import timed
from .flows import together

STATE = (
    '{"id":"order-1","rev":12345,"transition":{"to":"there","status":"running"},'
    '"committed_at":1700000000000}'
)


def bare_inserts(path: Path, rows: int, a_sync: int) -> float:
    """Seconds for plain inserts of rows like ours, so many in a transaction, synchronous=FULL."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE log (rev INTEGER PRIMARY KEY, id TEXT, state TEXT)")

    def insert() -> None:
        for first in range(0, rows, a_sync):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO log VALUES (?, ?, ?)",
                [(rev, "order-1", STATE) for rev in range(first, first + a_sync)],
            )
            connection.execute("COMMIT")

    try:
        return timed(insert)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("flows", "asked", "transitions"),
    [(1, "70 % of raw", 2_000), (100, "40,000/s", 300), (1_000, "50,000/s", 60)],
)
def test_committed_transitions(
    rate: Callable[..., None],
    tiny: bool,
    tmp_path: Path,
    flows: int,
    asked: str,
    transitions: int,
) -> None:
    """Committed transitions a second of concurrent flows."""
    if tiny:
        flows, transitions = min(flows, 10), 5
    numbers = count()
    rows = 100 if tiny else (2_000 if flows == 1 else 50_000)
    rate(
        f"SQLite, {flows:,} concurrent flow{'s' if flows > 1 else ''}",
        asked,
        flows * transitions,
        lambda: anyio.run(
            together, connect(f"sqlite:///{tmp_path}/{next(numbers)}.db"), flows, transitions
        ),
        raw=lambda: bare_inserts(tmp_path / "raw.db", rows, flows),
        raw_n=rows,
        raw_what=f"bare inserts, {flows:,} a sync",
    )


def test_committed_transitions_with_labels(
    rate: Callable[..., None], tiny: bool, tmp_path: Path
) -> None:
    """The same with two labels a state: what the label index costs."""
    flows, transitions = (10, 5) if tiny else (100, 200)
    numbers = count()
    rows = 100 if tiny else 50_000
    labels = {"queue": "mail", "customer": "c-1"}
    rate(
        f"SQLite, {flows:,} concurrent flows, 2 labels",
        "–",
        flows * transitions,
        lambda: anyio.run(
            together,
            connect(f"sqlite:///{tmp_path}/{next(numbers)}.db"),
            flows,
            transitions,
            labels,
        ),
        raw=lambda: bare_inserts(tmp_path / "raw.db", rows, flows),
        raw_n=rows,
        raw_what=f"bare inserts, {flows:,} a sync",
    )
