"""Each guarantee names the tests that prove it, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "flowstate" / "testing" / "conformance"

GUARANTEED, PROOFS = (ROOT / "docs" / "guarantees.md").read_text().split("## What proves it")


def rows(table: str) -> dict[str, str]:
    """The name of each row of a table, and the rest of it."""
    return dict(re.findall(r"^\| \*\*(.+?)\*\* \|(.*)$", table, re.MULTILINE))


def test_each_guarantee_has_its_proof() -> None:
    assert list(rows(GUARANTEED)) == list(rows(PROOFS))


def test_each_proof_is_there() -> None:
    for guarantee, proof in rows(PROOFS).items():
        files = re.findall(r"`(\S+\.py)`", proof)
        assert files, guarantee
        for file in files:
            assert (ROOT / file if "/" in file else SUITE / file).is_file(), file
