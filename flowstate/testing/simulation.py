"""A cluster with faults, simulated from a seed: the same seed gives the same run, to the revision.

    python -m flowstate.testing.simulation --seeds 1000
    python -m flowstate.testing.simulation --seed 17        # one run, with all that happened

Several processes, each an engine with a recoverer, work on one store in memory, on virtual time.
Clients create states, operators move them, watchers watch: those of a ``Scenario``, which may be
yours. Calls to the store are slow, fail before or after they are done, and lose wake-ups; processes
are killed, frozen for longer than a lease, and left cleanly; their clocks are an hour off for some
seconds, in either direction. The store tells who died, and lies about it: who lives is missed for a
while, and who died is not. Then the faults end, everything must come to rest, and ``check`` judges
the history. All chance comes from the seed, and asyncio runs
tasks in the order in which they become ready; so nothing else decides anything.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import click
from attrs import define, field, frozen
from msgspec.structs import replace

from ..commands import Command, Commit
from ..engine import Engine
from ..errors import FlowstateError
from ..query import Query
from ..state import KERNEL_PREFIX, State, Status
from .cluster import Duty, Process, World
from .history import History, Seen, check
from .scenario import LEASE_S, Scenario, everything

PROCESSES = 3
CLIENTS = 2
WATCHERS = 3
FAULTY_MS = 30_000
"""For how long there are faults and new states (ms)."""
MAX_AHEAD_MS = 300
"""By how much the clock of a process may differ from that of the store (ms)."""
KILLS = ("kill", "kill unseen", "claim")
FAULTS = (*KILLS, "freeze", "freeze", "miss", "leave", "cut", "outage", "clock")
HOUR_MS = 3_600_000
"""By how much the clock of a process may be wrong for a while (ms), in either direction."""
MAX_WRONG_MS = 8_000
"""For how long it may (ms): longer than a lease."""
CATCH_UP_MS = 20_000
"""Within this time (ms) after every state has come to rest, every watcher must have seen all."""
THOUSAND_YEARS_MS = 1_000 * 366 * 24 * 3_600_000


@frozen
class Outcome:
    """The result of the simulation of a seed."""

    seed: int
    history: History
    story: str
    """What happened to the processes, as lines of text."""
    problems: list[str]
    """Where a law of the kernel or an invariant of the scenario was broken; empty if nowhere."""


def simulate(seed: int, scenario: Callable[[random.Random], Scenario] = everything) -> Outcome:
    """Run the cluster of a seed over a scenario and judge the history that it left."""
    world = World(random.Random(seed), presence=True)
    made = scenario(world.chance)
    simulation = _Simulation(world, made)
    with _quiet():
        log = anyio.run(simulation.run, backend="asyncio")
    history = History(
        log=tuple(log),
        plans=tuple(world.plans),
        acknowledged=tuple(world.acknowledged),
        seen=tuple(world.seen),
        policy=made.policy,
        changes=tuple(world.places.changes),
        # what is cancelled in one moment ends in any order: that of the tasks of a group
        calls=tuple(sorted(world.places.calls, key=lambda call: (call.began, call.id, call.rev))),
        # that nothing is early is shown by the seeds in which clocks only ever fall behind
        clocks_apart_ms=2 * MAX_AHEAD_MS + simulation.ahead_ms,
    )
    problems = check(history, made.invariants) + simulation.problems
    return Outcome(seed, history, world.transcript.text(), problems)


@define(eq=False)
class _Simulation:
    world: World
    scenario: Scenario
    processes: list[Process] = field(factory=list[Process])
    """The processes that live now, by place."""
    ids: list[str] = field(factory=list[str])
    """The ids of the states that clients have begun, or tried to begin."""
    problems: list[str] = field(factory=list[str])
    begun: int = 0
    """How many states clients have begun, or tried to begin."""
    wrong_by_ms: Sequence[int] = (0, 0)
    """By how much a clock that is wrong may be so (ms): always right, behind, or either."""

    @property
    def ahead_ms(self) -> int:
        """By how much what was set by such a clock, an alarm or the end of a lease, comes late."""
        return max(0, *self.wrong_by_ms)

    async def run(self) -> list[State]:
        """Run the cluster until every state rests, and give the log."""
        world = self.world
        self.wrong_by_ms = world.chance.choice(((0, 0), (0, -HOUR_MS), (HOUR_MS, -HOUR_MS)))
        world.clock.stand_still_while(lambda: any(each.is_in_thread for each in self.processes))
        async with world.clock.running(), anyio.create_task_group() as tasks:
            world.later = tasks
            self.processes = [self._process(place, 0) for place in range(PROCESSES)]
            for place in range(PROCESSES):
                tasks.start_soon(self._place, place)
            async with anyio.create_task_group() as watchers:
                over = anyio.Event()
                for n in range(WATCHERS):
                    watchers.start_soon(self._watcher, f"watcher {n}", over)
                async with anyio.create_task_group() as faulty:
                    faulty.start_soon(self._faults)
                    if self.scenario.intervene is not None:
                        faulty.start_soon(self._operator, self.scenario.intervene)
                    for _ in range(CLIENTS):
                        faulty.start_soon(self._client)
                world.is_healed = True
                await self._rest()
                await world.sleep(CATCH_UP_MS)
                over.set()
            for process in self.processes:
                process.kill()  # or else chance would decide who leaves first
            tasks.cancel_scope.cancel()
        return await world.log()

    async def _place(self, place: int) -> None:
        """Run one process after the other at a place, each until it dies or leaves."""
        world = self.world
        for life in range(1, 1_000_000):
            process = self.processes[place]
            await process.live()
            world.transcript.note(process.name, "is gone")
            if not world.is_healed:
                await world.sleep(world.chance.randrange(10_000))
            self.processes[place] = self._process(place, life)

    def _process(self, place: int, life: int) -> Process:
        # leases are longer from place to place, so that it shows whose policy a state goes by
        policy = self.scenario.policy
        policy = replace(policy, lease=policy.lease + place)
        name, flows, chance = f"p{place}.{life}", self.scenario.flows, self.world.chance
        ahead = chance.randint(-MAX_AHEAD_MS, MAX_AHEAD_MS)
        places = chance.choice((2, 5, 1_000))
        if not place:  # whatever the others are, everything comes to rest
            return Process(
                self.world, name, flows, (), Duty.RECOVER, 20, places, ahead, policy=policy
            )
        duty = chance.choice((Duty.RECOVER, Duty.RECOVER, Duty.LEAD, Duty.WORK))
        older = [flow.name for flow in flows if chance.random() < 0.2]
        return Process(self.world, name, flows, older, duty, 20, places, ahead, policy=policy)

    async def _rest(self) -> None:
        world = self.world
        end = world.clock.now() + round(self.scenario.rest * 1000) + self.ahead_ms
        while world.clock.now() < end and any(map(_is_moving, await world.log(Query(latest=True)))):
            await world.sleep(1_000)

    # ------------------------------------------------------------ faults

    async def _faults(self) -> None:
        world, chance = self.world, self.world.chance
        end = world.clock.now() + FAULTY_MS
        while world.clock.now() < end:
            await world.sleep(chance.randrange(10_000))
            process = chance.choice(self.processes)
            now = world.clock.now()
            match chance.choice(FAULTS):
                case "kill":
                    world.transcript.note(process.name, "is killed")
                    process.kill()
                case "kill unseen":
                    world.transcript.note(process.name, "is killed, and seems to live")
                    process.seems_there = True
                    process.kill()
                case "miss":
                    process.missed_until = now + chance.randrange(round(3_000 * LEASE_S))
                    world.transcript.note(process.name, "seems dead")
                case "claim":
                    process.dies_at_claim = True
                case "freeze":
                    process.frozen_until = now + chance.randrange(round(3_000 * LEASE_S))
                    world.transcript.note(process.name, "is frozen")
                case "leave":
                    world.transcript.note(process.name, "is told to leave")
                    process.told_to_leave.set()
                case "clock":
                    process.wrong_by_ms = chance.choice(self.wrong_by_ms)
                    process.wrong_until = now + chance.randrange(MAX_WRONG_MS)
                    world.transcript.note(process.name, f"has a clock {process.wrong_by_ms} ms off")
                case "cut":
                    process.cut_until = now + chance.randrange(round(2_000 * LEASE_S))
                    world.transcript.note(process.name, "is cut off")
                case _:
                    world.outage_until = now + chance.randrange(round(2_000 * LEASE_S))
                    world.transcript.note("store", "is out")

    # ------------------------------------------------------------ people

    async def _client(self) -> None:
        """Begin states; run them, or leave them to recovery."""
        world, chance = self.world, self.world.chance
        end = world.clock.now() + FAULTY_MS
        while world.clock.now() < end:
            await world.sleep(chance.randrange(4_000))
            engine = chance.choice(self.processes).engine
            self.begun += 1
            command: Any = self.scenario.begin(self.begun)
            self.ids.append(command.state.id)
            await _attempt(self._begin(engine, command))

    async def _begin(self, engine: Engine, command: Command[State]) -> None:
        """Record it for whoever works, or have it run by this process, in one write or in two."""
        chance = self.world.chance.random()
        if chance < 0.3:
            await engine.start(Commit(command))
            return
        (state,) = await engine.do(Commit(command))
        if chance < 0.7 and state.transition.status is Status.RUNNING:
            await engine.start(state)

    async def _operator(self, intervene: Callable[[State], Command[State]]) -> None:
        """Move states as an operator does, whatever they are doing."""
        world, chance = self.world, self.world.chance
        end = world.clock.now() + FAULTY_MS
        while world.clock.now() < end:
            await world.sleep(chance.randrange(5_000))
            if self.ids:
                await _attempt(self._intervene(chance.choice(self.processes).engine, intervene))

    async def _intervene(
        self, engine: Engine, intervene: Callable[[State], Command[State]]
    ) -> None:
        state = await engine.get(self.world.chance.choice(self.ids))
        await engine.do(Commit(intervene(state)))

    async def _watcher(self, name: str, over: anyio.Event) -> None:
        """Watch by one process after the other, each time from the revision it got to."""
        world, chance = self.world, self.world.chance
        query = chance.choice(self.scenario.queries)
        upto = 0
        while not over.is_set():
            watcher = None
            revs: list[int] = []

            async def see(stop: anyio.CancelScope, engine: Engine, after: int) -> None:
                nonlocal watcher
                try:
                    watcher = engine.watch(query, after=after)
                    async for state in watcher:
                        revs.append(state.rev)  # noqa: B023, PERF401  (they stay when it is cancelled)
                finally:  # its process has ended, or the store failed
                    stop.cancel()

            async with anyio.create_task_group() as turn:
                engine = chance.choice(self.processes).engine
                turn.start_soon(_attempt_call, see, turn.cancel_scope, engine, upto)
                span = THOUSAND_YEARS_MS if world.is_healed else chance.randrange(20_000)
                await world.clock.wait_until(world.clock.now() + span, over)
                turn.cancel_scope.cancel()
            await world.sleep(chance.randrange(100))
            if watcher is not None:
                world.seen.append(Seen(name, query, upto, watcher.rev, tuple(revs)))
                upto = watcher.rev
        if upto != await world.store.head():
            self.problems.append(f"watched: {name} ended at {upto}, before the end")


# ---------------------------------------------------------------- helpers


def _is_moving(state: State) -> bool:
    transition = state.transition
    return not state.id.startswith(KERNEL_PREFIX) and (
        transition.status is Status.RUNNING or transition.alarm is not None
    )


async def _attempt(doing: Awaitable[object]) -> None:
    """Await something that may fail, since the cluster is faulty."""
    try:
        await doing
    except FlowstateError:
        return


async def _attempt_call(do: Callable[..., Awaitable[object]], *args: object) -> None:
    await _attempt(do(*args))


@contextmanager
def _quiet() -> Generator[None]:
    """Log nothing: it would be the faults themselves."""
    logger = logging.getLogger("flowstate")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@click.command()
@click.option("--seeds", default=1000, show_default=True, help="How many seeds to run.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Run only this one, and tell what happened.")
def main(seeds: int, first: int, seed: int | None) -> None:
    """Simulate clusters with faults; ends with 1 and the seed if a law was broken."""
    if seed is not None:
        first, seeds = seed, 1
    began, versions = time.monotonic(), 0
    for number in range(first, first + seeds):
        outcome = simulate(number)
        versions += len(outcome.history.log)
        if seed is not None:
            click.echo(outcome.story, nl=False)
        if outcome.problems:
            click.echo("\n".join(outcome.problems))
            broken = len(outcome.problems)
            click.echo(f"seed {number} breaks {broken} laws; again: --seed {number}")
            sys.exit(1)
        done = number - first + 1
        if done % 50 == 0:
            click.echo(f"{done:,} of {seeds:,} seeds", err=True)
    took = time.monotonic() - began
    click.echo(f"{seeds:,} seeds, {versions:,} versions, no law broken, {took:.0f} s")


if __name__ == "__main__":
    main()
