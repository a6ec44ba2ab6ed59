"""Reading: by id, and by label."""

from __future__ import annotations

import random
import time

import anyio

from flowstate import Engine, Query

from ..place import Place, fill
from ..sites import Site
from ..values import Better, Effort, Measure, Sample, delays
from .workload import Workload

SEED = 20_060_102
"""Of the order in which states are read: the same in every run."""


async def gets(place: Place, readers: int) -> Sample:
    """So many tasks, each of which gets one state after the other, anywhere in the store."""
    ids = place.ids(place.states)
    async with place.engine() as engine:
        await fill(engine, ids)
        return await read_at_random(place, engine, ids, readers)


async def read_at_random(place: Place, engine: Engine, ids: list[str], readers: int) -> Sample:
    taken: list[float] = []
    turns = place.repeat()

    async def read(chance: random.Random) -> None:
        for _ in turns:  # whoever is free takes the next
            before = time.perf_counter()
            await engine.get(chance.choice(ids))
            taken.append(time.perf_counter() - before)

    start = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for reader in range(readers):
            tasks.start_soon(read, random.Random(SEED + reader))
    return Sample({"gets": len(taken) / (time.perf_counter() - start)}, {"": taken})


async def queries(place: Place, matching: int) -> Sample:
    """Current versions by a label that so many of the states have."""
    async with place.engine() as engine:
        await fill(
            engine,
            place.ids(place.states),
            lambda number: {
                f"of-{many}": _group(place, number, many) for many in _sizes(place.states)
            },
        )
        return await query_at_random(place, engine, matching)


async def query_at_random(place: Place, engine: Engine, matching: int) -> Sample:
    taken: list[float] = []
    found = 0
    chance = random.Random(SEED)
    start = time.perf_counter()
    for _ in place.repeat():
        group = _group(place, chance.randrange(place.states // matching) * matching, matching)
        before = time.perf_counter()
        async for _state in engine.states(Query(labels={f"of-{matching}": group}, latest=True)):
            found += 1
        taken.append(time.perf_counter() - before)
    return Sample({"states": found / (time.perf_counter() - start)}, {"": taken})


def _group(place: Place, number: int, many: int) -> str:
    return f"{place.prefix}{number // many}"


def _sizes(states: int) -> list[int]:
    """How many states share a label: 1, 10, 100… of them, up to a tenth of all."""
    return [10**digits for digits in range(len(str(states)) - 1)]


def _lookups(site: Site, _: int, effort: Effort) -> Sample | None:
    raw = site.raw
    return None if raw is None else Sample({"gets": raw.lookup(effort.states, effort.seconds / 2)})


GETS = Workload(
    "get",
    "Current versions by id, in a store of {states:,} states",
    parameter="readers",
    values=(1, 100),
    quick=(1, 100),
    measures=(Measure("gets", "/s", Better.HIGHER, has_raw=True), *delays()),
    run=gets,
    raw=_lookups,
    raw_about="bare lookups by id, one at a time, without flowstate",
)

QUERIES = Workload(
    "query",
    "Current versions with a label that so many of {states:,} states have",
    parameter="matching",
    values=(1, 10, 100, 1_000),
    quick=(1, 10, 100),
    measures=(Measure("states", "/s", Better.HIGHER), *delays()),
    run=queries,
)
