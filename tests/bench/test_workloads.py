"""Every workload runs on every kind of store, and gives what it says it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from flowstate import Durability
from flowstate.bench import WORKLOADS, Effort, Site, Workload
from flowstate.bench.place import Place
from flowstate.bench.sites import UnknownSite
from flowstate.bench.sites.memory import MemorySite
from flowstate.bench.sites.postgres import PostgresSite
from flowstate.bench.sites.sqlite import SQLiteSite
from flowstate.drivers.url import StoreUrl

TINY = Effort(rounds=1, seconds=0.0, states=20, is_quick=True)
SITES: dict[str, Callable[[StoreUrl], Site]] = {
    "memory": MemorySite,
    "sqlite": SQLiteSite,
    "postgresql": PostgresSite,
    "plugged in": UnknownSite,
}


@pytest.fixture(params=list(SITES))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    kind: str = request.param
    if kind == "postgresql":
        url: str = request.getfixturevalue("postgres").new_store()
    else:
        url = "memory:" if kind == "memory" else f"sqlite:///{tmp_path}/store.db"
    with SITES[kind](StoreUrl.parse(url)) as opened:
        yield opened


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_a_workload_gives_what_it_declares(workload: Workload, site: Site) -> None:
    if workload.needs > Durability.NONE and isinstance(site, MemorySite):
        return  # as the runner does: there is nobody else who could open it
    value = min(workload.cases(TINY))
    declared = {measure.name for measure in workload.measures}
    for number in range(1 if site.is_fresh else 2):  # the second time among what the first left
        with site.fresh() as url:
            place = Place(site, url, TINY, "" if site.is_fresh else f"{number}-")
            figures = anyio.run(workload.run, place, value).all_figures()
            missing = {"disk"} if site.size(url) is None else set[str]()
        assert declared - missing == figures.keys()
        assert all(figure > 0 for figure in figures.values())


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_a_raw_limit_is_one_of_a_figure_that_says_so(workload: Workload, site: Site) -> None:
    has_raw = {measure.name for measure in workload.measures if measure.has_raw}
    assert bool(has_raw) is (workload.raw is not None) is bool(workload.raw_about)
    if workload.raw is not None:
        raw = workload.raw(site, min(workload.cases(TINY)), TINY)
        assert raw is None or has_raw <= raw.all_figures().keys()
        assert raw is None or all(limit > 0 for limit in raw.all_figures().values())


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_a_workload_says_what_it_does_in_one_line(workload: Workload) -> None:
    about = workload.facts(TINY).about
    assert 10 < len(about) <= 80
    assert not about.endswith(".")
    assert workload.quick
    assert workload.values
