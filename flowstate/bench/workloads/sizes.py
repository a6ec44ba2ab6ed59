"""What grows: payloads, the history, and what a state takes."""

from __future__ import annotations

import gc
import os
import statistics
import time
import tracemalloc
from collections.abc import Iterator

from attrs import evolve

from flowstate import Commit, Pause, State

from ..place import BATCH, Place, fill
from ..sites import Site
from ..values import Better, Effort, Measure, Sample, delays
from .commits import go_round
from .reads import query_at_random, read_at_random
from .workload import Workload

MB = 1_000_000
VERSIONS_A_STATE = 10
GROWTH_FLOWS = 100
GROWTH_MATCHING = 10


# ---------------------------------------------------------------- payloads


async def payloads(place: Place, size: int) -> Sample:
    """States that carry a payload of so many bytes, one commit at a time; then it is loaded."""
    stored: list[float] = []
    loaded: list[float] = []
    block = os.urandom(size)  # nothing that a store could compress
    async with place.engine() as engine:
        states: list[State] = []
        for number in place.repeat():
            content = number.to_bytes(8, "big") + block[8:]
            before = time.perf_counter()
            state = State(f"{place.prefix}order-{number}").attach("file", content)
            states += await engine.do(Commit(Pause(state, "work")))
            stored.append(time.perf_counter() - before)
        for number in place.repeat():
            before = time.perf_counter()
            await engine.data(states[number % len(states)], "file", type=bytes)
            loaded.append(time.perf_counter() - before)
    rate = len(stored) * size / sum(stored) / MB
    return Sample({"store": rate}, {"store": stored, "load": loaded})


def _payload_inserts(site: Site, size: int, effort: Effort) -> Sample | None:
    rate = site.raw.payload(size, effort.seconds / 2) if site.raw else None
    return None if rate is None else Sample({"store": rate / MB})


# ---------------------------------------------------------------- history


async def growth(place: Place, versions: int) -> Sample:
    """Commits, gets and queries over a history of so many versions, ten of each state."""
    count = max(GROWTH_MATCHING, versions // VERSIONS_A_STATE)
    ids = place.ids(count)
    half = evolve(
        place, effort=Effort(seconds=place.seconds / 2, states=count), prefix=place.prefix
    )
    async with place.engine() as engine:
        for batch in _batches(ids):
            states = tuple(
                State(
                    id,
                    labels={f"of-{GROWTH_MATCHING}": f"{place.prefix}{number // GROWTH_MATCHING}"},
                )
                for number, id in batch
            )
            for _ in range(VERSIONS_A_STATE):
                states = await engine.do(Commit(*[Pause(state, "work") for state in states]))
        found = await query_at_random(half, engine, GROWTH_MATCHING)
        got = await read_at_random(half, engine, ids, readers=1)
        others = evolve(half, prefix=f"{place.prefix}other-")
        committed = await go_round(others, engine, GROWTH_FLOWS)
    return Sample(
        {
            "commits": committed.figures["commits"],
            "get p50": statistics.median(got.delays[""]) * 1000,
            "query p50": statistics.median(found.delays[""]) * 1000,
        }
    )


def _batches(ids: list[str]) -> Iterator[list[tuple[int, str]]]:
    numbered = list(enumerate(ids))
    for start in range(0, len(numbered), BATCH):
        yield numbered[start : start + BATCH]


# ---------------------------------------------------------------- what a state takes


async def footprint(place: Place, states: int) -> Sample:
    """So many states with two labels, committed once: what they take, by the state."""
    figures: dict[str, float] = {}
    tracemalloc.start()
    try:
        async with place.engine() as engine:
            gc.collect()
            empty, _ = tracemalloc.get_traced_memory()
            await fill(
                engine,
                place.ids(states),
                lambda number: {"queue": "mail", "customer": f"{place.prefix}{number // 10}"},
            )
            gc.collect()
            figures["memory"] = (tracemalloc.get_traced_memory()[0] - empty) / states
    finally:
        tracemalloc.stop()
    size = place.site.size(place.url)
    if size is not None:
        figures["disk"] = size / states
    return Sample(figures)


PAYLOADS = Workload(
    "data",
    "States that carry a payload, one commit at a time, and loading it again",
    parameter="bytes",
    values=(1_000, 100_000, 1_000_000),
    quick=(1_000, 100_000, 1_000_000),
    measures=(
        Measure("store", "MB/s", Better.HIGHER, has_raw=True),
        *delays("store"),
        *delays("load"),
    ),
    run=payloads,
    raw=_payload_inserts,
    raw_about="bare inserts of a row and a payload of that size, one a sync",
)

GROWTH = Workload(
    "growth",
    f"Over a long history: commits of {GROWTH_FLOWS} flows, a get, a query of {GROWTH_MATCHING}",
    parameter="versions",
    values=(1_000, 100_000, 1_000_000),
    quick=(1_000, 10_000),
    measures=(
        Measure("commits", "/s", Better.HIGHER),
        Measure("get p50", "ms", Better.LOWER),
        Measure("query p50", "ms", Better.LOWER),
    ),
    run=growth,
    max_rounds=3,
    is_warmed_up=False,
    cost_s=lambda versions: 0.5 + versions / 50_000,
)

FOOTPRINT = Workload(
    "size",
    "What a state with two labels takes: memory of Python, and bytes on disk",
    parameter="states",
    values=(20_000,),
    quick=(2_000,),
    measures=(
        Measure("memory", "B", Better.LOWER),
        Measure("disk", "B", Better.LOWER),
    ),
    run=footprint,
    max_rounds=3,
    is_warmed_up=False,
    cost_s=lambda states: states / 10_000,
)
