"""A cluster on virtual time, whose processes are killed, frozen, cut off and left by a test."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import pytest
from attrs import define

from flowstate import Command, Commit, End, Engine, Flows, State
from flowstate.testing.cluster import Process, World
from flowstate.testing.scenario import POLICY


@define(eq=False)
class Cluster:
    """Processes on one store in memory, without any faults but those of the test."""

    tasks: anyio.abc.TaskGroup
    world: World
    engine: Engine
    """That of the test, which recovers nothing and is never without its store."""

    def begin(
        self, name: str, flows: Flows | None = None, group: str = "default", concurrency: int = 20
    ) -> Process:
        """A process that stands for election and works."""
        work = flows if flows is not None else self.flows(name)
        process = Process(self.world, name, work, group, concurrency)
        self.tasks.start_soon(process.live)
        return process

    def flows(self, name: str, *flows: str) -> Flows:
        """Flows that end their state and note that it was run here."""
        made = Flows()
        for flow in flows or ("work",):

            @made.flow(flow)
            async def run(state: State, engine: Engine) -> Command:
                where, cause = state.transition.to, state.transition.cause.value
                self.world.transcript.note(name, f"runs {state.id} at {where} ({cause})")
                return Commit(End(state))

        return made

    async def heard(self, part: str, times: int = 1) -> None:
        """Wait until the transcript has so many lines with *part*."""
        await self.world.transcript.wait_for(part, times)

    async def sleep(self, seconds: float) -> None:
        await self.world.sleep(round(seconds * 1000))

    @property
    def now(self) -> int:
        return self.world.clock.now()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """What still lives when the test is over is killed."""
    world = World(random.Random(0), is_healed=True)
    async with (
        world.clock.running(),
        Engine(world.store, clock=world.clock, retry=POLICY) as engine,
        anyio.create_task_group() as tasks,
    ):
        yield Cluster(tasks, world, engine)
        tasks.cancel_scope.cancel()
