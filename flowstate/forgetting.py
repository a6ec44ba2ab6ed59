"""Forgetting: what users gave is removed from a store, and the history of their states stays."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct

from .data import DataRef
from .driver import Driver
from .errors import DataNotFoundError
from .query import Query
from .state import State

PAGE_SIZE = 1_000
"""Versions that are looked at together."""


class Forgotten(Struct, frozen=True):
    """What was forgotten: so many ``payloads``, to which so many other ``states`` referred as well:
    they have lost them too."""

    payloads: int
    states: int


async def payloads_of(driver: Driver, id: str, names: Collection[str]) -> set[tuple[int, str]]:
    """The payloads with these names of every version of a state, also inside what is stacked in it;
    each a revision and a checksum.

    Raises ``DataNotFoundError`` for a name that no version has, ``UnreadableVersionError`` for a
    version that cannot be looked at.
    """
    found: dict[str, set[tuple[int, str]]] = {name: set() for name in names}
    end, after = await driver.head(), 0
    while after < end:
        page = await driver.read(Query(id=id), after, PAGE_SIZE)
        for entry in page.entries:
            if not isinstance(entry, State):
                raise entry.error()
            for name, ref in _references(entry):
                if name in found:
                    found[name].add((ref.rev, ref.checksum))
        after = page.upto
    for name, keys in found.items():
        if not keys:
            raise DataNotFoundError(f"data {name!r} in any version of state {id!r}")
    return {key for keys in found.values() for key in keys}


def _references(state: State) -> Iterator[tuple[str, DataRef]]:
    for name, payload in state.data.items():
        if isinstance(payload, DataRef):
            yield name, payload
    for other in state.stacked.values():
        yield from _references(other)
