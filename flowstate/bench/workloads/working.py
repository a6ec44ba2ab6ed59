"""Work: how soon what is ready runs, and how processes share it."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import anyio

from flowstate import Command, Commit, Durability, End, Engine, Flows, State, Transit
from flowstate.recovery import Worker

from ..child import child
from ..errors import BenchError
from ..place import Place
from ..values import Better, Measure, Sample, delays
from .workload import Workload

TAKER = "flowstate.bench.taker"
"""The module that works in other processes."""
PAUSE_S = 0.03
"""Between two states, so that each finds the worker waiting."""
JOBS_A_SECOND = 1_000
"""Jobs for each second of a measurement."""
LEAST_JOBS = 20
JOB_S = 0.02
"""What a job takes, which is waited for and needs no processor."""
CONCURRENCY = 10
"""Jobs that a process runs at a time: so its flows are what limits it."""
LOOK_S = 0.01
"""Between two looks at what is left to do."""
MAX_WAIT_S = 60.0
"""For what has to come to come."""


def new(id: str) -> State:
    """A state that knows when it was made, by a clock that all processes share."""
    return State(id, annotations={"start": repr(time.monotonic())})


def age(state: State) -> float:
    """How long ago that was (s)."""
    return time.monotonic() - float(state.annotations["start"])


async def ready(place: Place, _: int) -> Sample:
    """One state at a time, from just before the commit to the first line of its flow."""
    taken: list[float] = []
    flows = Flows()
    ran = anyio.Event()

    @flows.flow(f"{place.prefix}note")
    async def note(state: State, engine: Engine) -> Command:
        taken.append(age(state))
        ran.set()
        return Commit(End(state))

    async with place.engine(flows) as engine, Worker(engine):
        for id in place.repeat():
            await anyio.sleep(PAUSE_S)
            ran = anyio.Event()
            await engine.do(Commit(Transit(new(f"{place.prefix}order-{id}"), note)))
            with anyio.fail_after(MAX_WAIT_S):
                await ran.wait()
    return Sample(delays={"": taken})


async def ready_elsewhere(place: Place, _: int) -> Sample:
    """The same, with a worker in another process."""
    taken: list[float] = []
    async with child(TAKER) as taker, place.engine() as engine:
        await taker.tell(place.url, place.prefix)
        await taker.line()  # it works
        for id in place.repeat():
            await anyio.sleep(PAUSE_S)
            state = new(f"{place.prefix}order-{id}")
            await engine.do(Commit(Transit(state, f"{place.prefix}note")))
            with anyio.fail_after(MAX_WAIT_S):
                taken.append(float(await taker.line()))
    return Sample(delays={"": taken})


async def jobs(place: Place, processes: int) -> Sample:
    """Many jobs at once for so many processes, until all have ended; each is begun once."""
    flow = f"{place.prefix}wait"
    count = max(LEAST_JOBS, int(JOBS_A_SECOND * place.seconds))
    async with AsyncExitStack() as stack:
        takers = [await stack.enter_async_context(child(TAKER)) for _ in range(processes)]
        for taker in takers:
            await taker.tell(place.url, place.prefix)
            await taker.line()  # it works
        engine = await stack.enter_async_context(place.engine())
        start = time.perf_counter()
        await engine.do(Commit(*[Transit(State(id), flow) for id in place.ids(count)]))
        with anyio.fail_after(MAX_WAIT_S):
            await _done(engine, flow)
        took = time.perf_counter() - start
        calls = 0
        for taker in takers:
            await taker.tell("end")
            calls += int(await taker.line())
    if calls != count:
        raise BenchError(f"{count} jobs were begun {calls} times")
    return Sample({"jobs": count / took})


async def _done(engine: Engine, flow: str) -> None:
    """Return once nothing at a flow is ready or taken."""
    while True:
        is_ready = flow in await engine.timers.line()
        holdings = await engine.timers.holdings()
        if not is_ready and all(holding.flow != flow for holding in holdings):
            return
        await anyio.sleep(LOOK_S)


READY = Workload(
    "ready",
    "From a commit that makes a state ready until a worker here runs it",
    parameter="workers",
    values=(1,),
    quick=(1,),
    measures=delays(),
    run=ready,
)

READY_ELSEWHERE = Workload(
    "ready-process",
    "From such a commit until a worker in another process runs it",
    parameter="workers",
    values=(1,),
    quick=(1,),
    measures=delays(),
    run=ready_elsewhere,
    needs=Durability.PROCESS,
    is_warmed_up=False,
)

JOBS = Workload(
    "jobs",
    f"Jobs of {JOB_S * 1000:g} ms, {CONCURRENCY} at a time in each of several processes",
    parameter="processes",
    values=(1, 2),
    quick=(1, 2),
    measures=(Measure("jobs", "/s", Better.HIGHER),),
    run=jobs,
    needs=Durability.PROCESS,
    is_warmed_up=False,
    cost_s=lambda processes: 1.0 + JOBS_A_SECOND * JOB_S / CONCURRENCY / processes,
)
