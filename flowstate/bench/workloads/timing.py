"""Time: how late alarms fire, and how soon the work of a dead process goes on."""

from __future__ import annotations

import time

import anyio

from flowstate import Command, Commit, Delay, Durability, End, Engine, Flows, RetryPolicy, State
from flowstate.recovery import Recoverer

from ..child import child
from ..errors import BenchError
from ..place import BATCH, Place
from ..sites import Site
from ..values import Better, Effort, Measure, Sample, delays
from .workload import Workload

HOLDER = "flowstate.bench.holder"
"""The module that is killed in another process."""
LEAD_MS = 500
"""From the first look at the clock to the first alarm: an election, and making the alarms."""
LEAST_ALARMS = 100
LEASE_S = 1.0
"""Of the process that is killed, and of what it runs."""
HELD = 50
"""States that run in the process that is killed."""
MAX_WAIT_S = 30.0
"""For what has to come to come."""


# ---------------------------------------------------------------- alarms


async def alarms(place: Place, a_second: int) -> Sample:
    """So many alarms a second, each late by the time from its instant to its flow's first line:
    through the index of what is due, and a commit."""
    late: list[float] = []
    done = anyio.Event()
    flows = Flows()
    ring_at = f"{place.prefix}ring"

    @flows.flow(ring_at)
    async def ring(state: State, engine: Engine) -> Command:
        late.append(time.time() - int(state.annotations["at"]) / 1000)
        if len(late) == count:
            done.set()
        return Commit(End(state))

    count = _alarms(a_second, place.effort)
    async with place.engine(flows) as engine, Recoverer(engine):
        # a slow store needs longer to make them than the first of them lasts
        first = engine.clock.now() + LEAD_MS + count // 2
        ats = [first + number * 1000 // a_second for number in range(count)]
        pairs = list(zip(place.ids(count), ats, strict=True))
        for start in range(0, count, BATCH):
            delayed = [
                Delay(State(id, annotations={"at": str(at)}), ring_at, at=at)
                for id, at in pairs[start : start + BATCH]
            ]
            await engine.do(Commit(*delayed))
        if engine.clock.now() >= first:
            raise BenchError(f"the store took longer than {LEAD_MS + count // 2} ms for the alarms")
        with anyio.fail_after(place.seconds + MAX_WAIT_S):
            await done.wait()
    return Sample(delays={"": late})


def _alarms(a_second: int, effort: Effort) -> int:
    return max(LEAST_ALARMS, int(a_second * effort.seconds * 2))


def _timers(_site: Site, a_second: int, effort: Effort) -> Sample:
    """The raw limit: as many tasks that sleep until their instant, and do nothing then."""

    async def main() -> Sample:
        late: list[float] = []
        first = anyio.current_time() + 0.05

        async def ring(at: float) -> None:
            await anyio.sleep_until(at)
            late.append(anyio.current_time() - at)

        async with anyio.create_task_group() as tasks:
            for number in range(_alarms(a_second, effort) // 2):
                tasks.start_soon(ring, first + number / a_second)
        return Sample(delays={"": late})

    return anyio.run(main)


# ---------------------------------------------------------------- a dead process


async def take_over(place: Place, states: int) -> Sample:
    """From the death of a process (SIGKILL) until its states run here.

    It was the leader too, so the term must run out as well as the leases.
    """
    late: list[float] = []
    done = anyio.Event()
    flows = Flows()

    @flows.flow(f"{place.prefix}hold")
    async def hold(state: State, engine: Engine) -> Command:
        late.append(time.perf_counter() - killed)
        if len(late) == states:
            done.set()
        return Commit(End(state))

    killed = 0.0
    policy = RetryPolicy(lease=LEASE_S)
    async with child(HOLDER) as other, place.engine(flows, retry=policy) as engine:
        await other.tell(place.url, place.prefix, str(states), str(LEASE_S))
        await other.line()  # all of them run there
        async with Recoverer(engine, lease=LEASE_S):
            # so that they live on renewed leases
            await anyio.sleep(LEASE_S * 1.5)
            if late:
                raise BenchError("its states were taken from a process that was alive")
            other.kill()
            killed = time.perf_counter()
            with anyio.fail_after(MAX_WAIT_S):
                await done.wait()
    return Sample({"all": max(late)})


ALARMS = Workload(
    "alarms",
    "How late an alarm's flow runs, at so many alarms a second",
    parameter="alarms/s",
    values=(100, 1_000),
    quick=(1_000,),
    measures=delays(has_raw=True),
    run=alarms,
    raw=_timers,
    raw_about="as many sleeping tasks that do nothing, without a store",
    cost_s=lambda _: 3.0,
)

TAKEOVER = Workload(
    "takeover",
    f"From kill -9 of a process until what it ran runs elsewhere; a lease of {LEASE_S:g} s",
    parameter="states",
    values=(HELD,),
    quick=(HELD,),
    measures=(Measure("all", "s", Better.LOWER),),
    run=take_over,
    needs=Durability.PROCESS,
    max_quick_rounds=1,
    is_warmed_up=False,
    cost_s=lambda _: 4.0,
)
