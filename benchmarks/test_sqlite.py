"""SQLite: how near to the disk, and how group commit grows with load."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import anyio
import pytest

from flowstate import connect

from .flows import together
from .measured import raw_seconds


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
    rate(
        f"SQLite, {flows:,} concurrent flow{'s' if flows > 1 else ''}",
        asked,
        flows * transitions,
        lambda: anyio.run(
            together, connect(f"sqlite:///{tmp_path}/{next(numbers)}.db"), flows, transitions
        ),
        raw=lambda: raw_seconds(f"sqlite:///{tmp_path}/raw.db", flows, tiny=tiny),
        raw_n=1,
        raw_what=f"bare inserts, {flows:,} a sync",
    )


def test_committed_transitions_with_labels(
    rate: Callable[..., None], tiny: bool, tmp_path: Path
) -> None:
    """The same with two labels a state: what the label index costs."""
    flows, transitions = (10, 5) if tiny else (100, 200)
    numbers = count()
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
        raw=lambda: raw_seconds(f"sqlite:///{tmp_path}/raw.db", flows, tiny=tiny),
        raw_n=1,
        raw_what=f"bare inserts, {flows:,} a sync",
    )
