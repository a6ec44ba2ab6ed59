"""What the harness (``flowstate.bench``) measures, for the rows that are asked for here too."""

from __future__ import annotations

import anyio

from flowstate.bench import WORKLOADS, Effort, Sample, Site, sites_of
from flowstate.bench.place import Place

TINY_S = 0.0
FULL_S = 1.0


def measured(name: str, site: Site, value: int, *, tiny: bool) -> Sample:
    """One measurement of a workload, in a fresh store."""
    with site.fresh() as url:
        return anyio.run(WORKLOADS[name].run, Place(site, url, effort(tiny=tiny)), value)


def raw_limit(name: str, site: Site, value: int, *, tiny: bool) -> Sample:
    """Its raw limit."""
    raw = WORKLOADS[name].raw
    assert raw is not None
    limit = raw(site, value, effort(tiny=tiny))
    assert limit is not None
    return limit


def effort(*, tiny: bool) -> Effort:
    return Effort(seconds=TINY_S if tiny else FULL_S)


def raw_seconds(url: str, a_sync: int, *, tiny: bool) -> float:
    """Seconds for one of the rows that a kind of store could take at most."""
    (site,) = sites_of([url]).values()
    assert site.raw is not None
    with site:
        return 1 / site.raw.insert(a_sync, effort(tiny=tiny).seconds / 2)
