"""The tables and plots of docs/performance.md are those of the runs that are kept beside it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
STALE = "the page is not that of the runs: run python docs/performance.py, and read the page again"


@pytest.fixture(scope="module")
def performance() -> dict[str, Any]:
    """What docs/performance.py defines."""
    return runpy.run_path(str(DOCS / "performance.py"))


def test_the_page_has_the_figures_of_the_runs(performance: dict[str, Any]) -> None:
    page = (DOCS / "performance.md").read_text()
    assert performance["page"](performance["load"]()) == page, STALE


def test_every_workload_of_the_runs_is_on_the_page(performance: dict[str, Any]) -> None:
    marked = {found[1] for found in performance["MARKED"].findall(performance["PAGE"].read_text())}
    assert marked == {
        f"{name}/{part}"
        for name, run in performance["load"]().items()
        for part in ["machine", *(facts.name for facts in run.workloads)]
    }


def test_the_plots_that_are_kept_are_those_that_the_page_shows(performance: dict[str, Any]) -> None:
    drawn = {path.name for path, _ in performance["plots"](performance["load"]())}
    assert drawn == {path.name for path in (DOCS / "performance").glob("*.svg")}, STALE


def test_no_run_says_where_its_stores_were(performance: dict[str, Any]) -> None:
    stores = [store for run in performance["load"]().values() for store in run.stores]
    assert stores
    assert all(store.url.endswith(":…") for store in stores)
