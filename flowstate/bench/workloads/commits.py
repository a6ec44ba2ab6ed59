"""Committed transitions: of concurrent flows, with labels, and many in one commit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import anyio

from flowstate import Command, Commit, Durability, End, Engine, Flows, Pause, State, Transit

from ..child import child
from ..place import Place
from ..sites import Site
from ..values import Better, Effort, Measure, Sample, delays
from .workload import Workload

LABELLED_FLOWS = 100
PROCESS_FLOWS = 100
WORKER = "flowstate.bench.worker"
"""The module that commits in other processes."""
RATE = Measure("commits", "/s", Better.HIGHER, has_raw=True)


async def commits(place: Place, flows: int) -> Sample:
    """So many flows, each of which commits one transition after the other."""
    async with place.engine(Flows()) as engine:
        return await go_round(place, engine, flows)


async def commits_with_labels(place: Place, labels: int) -> Sample:
    """The same, of a hundred flows whose states have so many labels."""
    async with place.engine(Flows()) as engine:
        some = {f"label-{number}": f"{place.prefix}value" for number in range(labels)}
        return await go_round(place, engine, LABELLED_FLOWS, some)


async def processes(place: Place, count: int) -> Sample:
    """So many processes on one store, with a hundred flows each, all at the same time."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(child(WORKER)) for _ in range(count)]
        for number, worker in enumerate(workers):
            prefix = f"{place.prefix}{number}-"
            await worker.tell(place.url, prefix, str(PROCESS_FLOWS), str(place.seconds))
            await worker.line()  # it is ready
        for worker in workers:
            await worker.tell("go")
        rates = [float(await worker.line()) for worker in workers]
    return Sample({RATE.name: sum(rates)})


async def go_round(
    place: Place, engine: Engine, flows: int, labels: Mapping[str, str] | None = None
) -> Sample:
    """Transitions of so many concurrent flows, for as long as a measurement lasts.

    The delay of a transition is from one call of a state's flow to the next.
    """
    taken: list[float] = []
    called: dict[str, float] = {}
    until = 0.0

    async def first(state: State, engine: Engine) -> Command:
        called[state.id] = time.perf_counter()
        return Commit(Transit(state, "step"))

    async def step(state: State, engine: Engine) -> Command:
        now = time.perf_counter()
        taken.append(now - called[state.id])
        called[state.id] = now
        return Commit(Transit(state, "step")) if now < until else Commit(End(state))

    engine.flows.add("first", first)
    engine.flows.add("step", step)
    new = [State(id, labels=labels or {}) for id in place.ids(flows)]
    begun = await engine.do(Commit(*[Transit(state, "first") for state in new]))
    start = time.perf_counter()
    until = start + place.seconds
    async with anyio.create_task_group() as tasks:
        for state in begun:
            tasks.start_soon(engine.execute, state)
    took = time.perf_counter() - start
    # one for each call: those of `first` are not among the delays
    return Sample({RATE.name: (len(taken) + flows) / took}, {"": taken})


async def batches(place: Place, states: int) -> Sample:
    """One commit after the other, each of so many new states."""
    taken: list[float] = []
    async with place.engine() as engine:
        start = before = time.perf_counter()
        for number in place.repeat():
            ids = (f"{place.prefix}order-{number}-{nth}" for nth in range(states))
            await engine.do(Commit(*[Pause(State(id), "work") for id in ids]))
            now = time.perf_counter()
            taken.append(now - before)
            before = now
        return Sample({"states": states * len(taken) / (before - start)}, {"": taken})


def _inserts(site: Site, a_sync: int, effort: Effort, measure: str = RATE.name) -> Sample | None:
    raw = site.raw
    return None if raw is None else Sample({measure: raw.insert(a_sync, effort.seconds / 2)})


COMMITS = Workload(
    "commit",
    "Committed transitions of concurrent flows, each one after the other",
    parameter="flows",
    values=(1, 10, 100, 1_000),
    quick=(1, 10, 100, 1_000),
    measures=(RATE, *delays()),
    run=commits,
    raw=_inserts,
    raw_about="bare inserts, as many rows a sync as there are flows",
)

LABELS = Workload(
    "labels",
    f"The same of {LABELLED_FLOWS} flows whose states have labels, which are indexed",
    parameter="labels",
    values=(0, 2, 8),
    quick=(2,),
    measures=(RATE, *delays()),
    run=commits_with_labels,
    raw=lambda site, _, effort: _inserts(site, LABELLED_FLOWS, effort),
    raw_about=f"bare inserts of rows without labels, {LABELLED_FLOWS} a sync",
)

PROCESSES = Workload(
    "processes",
    f"Committed transitions of several processes on one store, {PROCESS_FLOWS} flows each",
    parameter="processes",
    values=(1, 2, 4),
    quick=(1, 2),
    measures=(RATE,),
    run=processes,
    raw=lambda site, _, effort: _inserts(site, PROCESS_FLOWS, effort),
    raw_about=f"bare inserts of one process, {PROCESS_FLOWS} rows a sync",
    needs=Durability.PROCESS,
    is_warmed_up=False,
    cost_s=lambda count: 1.0 + count / 2,
)

BATCHES = Workload(
    "batch",
    "Many states in one commit, one commit after the other",
    parameter="states",
    values=(1, 10, 100, 1_000),
    quick=(1, 100, 1_000),
    measures=(Measure("states", "/s", Better.HIGHER, has_raw=True), *delays()),
    run=batches,
    raw=lambda site, states, effort: _inserts(site, states, effort, "states"),
    raw_about="bare inserts, as many rows a sync as there are states in a commit",
)
