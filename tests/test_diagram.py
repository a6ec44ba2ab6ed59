"""The diagram and the table of the docs are what flowstate.transitions.TRANSITIONS says now."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
STALE = "the table of transitions has changed: run python docs/diagram.py, and look at it"


@pytest.fixture(scope="module")
def diagram() -> dict[str, Any]:
    """What docs/diagram.py defines."""
    return runpy.run_path(str(DOCS / "diagram.py"))


def test_the_committed_picture_is_what_the_table_gives(diagram: dict[str, Any]) -> None:
    assert diagram["svg"]() == (DOCS / "transitions.svg").read_text(), STALE


def test_the_committed_page_has_the_table_as_it_is(diagram: dict[str, Any]) -> None:
    page = (DOCS / "concepts.md").read_text()
    assert diagram["table"]() in page, STALE
    assert diagram["page"]() == page, STALE


def test_every_arrow_that_is_laid_out_is_in_the_table(diagram: dict[str, Any]) -> None:
    assert diagram["moves"]().keys() == diagram["ROUTES"].keys()
