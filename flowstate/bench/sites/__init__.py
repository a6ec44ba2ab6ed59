"""Where stores are made to be measured: one module for each kind that comes with flowstate.

A store of another kind plugs in through the entry-point group ``flowstate.bench``: the name is the
scheme of its URLs, the value a callable that takes a ``flowstate.drivers.url.StoreUrl`` and gives a
``Site``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from urllib.parse import parse_qsl

from flowstate import connect
from flowstate.drivers.url import StoreUrl

from .site import STATE, RawLimit, Site, head_of
from .unknown import UnknownSite

__all__ = ["STATE", "RawLimit", "Site", "UnknownSite", "head_of", "sites_of", "store_names"]

GROUP = "flowstate.bench"


def sites_of(urls: Iterable[str]) -> dict[str, Site]:
    """A site for each URL, by the name that its store gets in the figures.

    Raises ``StoreUrlError``. Nothing is opened yet.
    """
    parsed = [StoreUrl.parse(url) for url in urls]
    return {name: _site(url) for name, url in zip(store_names(parsed), parsed, strict=True)}


def _site(url: StoreUrl) -> Site:
    connect(url.original)  # there is a driver, it takes this URL, and what it needs is installed
    for entry in entry_points(group=GROUP):
        if entry.name == url.scheme:
            site: Site = entry.load()(url)
            return site
    return UnknownSite(url)


def store_names(urls: Sequence[StoreUrl]) -> list[str]:
    """A short name for each store, the same in every run that has these stores: its scheme, with
    the options that tell it from others of its kind, and a number if nothing does."""
    alike: dict[str, list[set[tuple[str, str]]]] = {}
    for url in urls:
        alike.setdefault(url.scheme, []).append(set(_options(url)))
    names: list[str] = []
    for url in urls:
        shared = set[tuple[str, str]].intersection(*alike[url.scheme])
        own = [f"{name}={value}" for name, value in _options(url) if (name, value) not in shared]
        names.append(f"{url.scheme}?{'&'.join(own)}" if own else url.scheme)
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[index] = f"{name} #{seen[name]}"
    return names


def _options(url: StoreUrl) -> list[tuple[str, str]]:
    """As they may be shown: of the text that has no password."""
    return parse_qsl(url.text.partition("?")[2])
