"""A cluster on virtual time, whose processes are killed, frozen, cut off and left by a test."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import pytest
from attrs import define

from flowstate import Command, Commit, End, Engine, Flows, State
from flowstate.testing.cluster import Duty, Process, World
from flowstate.testing.scenario import POLICY


@define(eq=False)
class Cluster:
    """Processes on one store in memory, without any faults but those of the test."""

    tasks: anyio.abc.TaskGroup
    world: World
    engine: Engine
    """That of the test, which recovers nothing and is never without its store."""

    def begin(
        self,
        name: str,
        flows: Flows | None = None,
        duty: Duty = Duty.RECOVER,
        concurrency: int = 20,
        max_background: int = 1_000,
    ) -> Process:
        """A process that stands for election and works, if nothing else is said."""
        work = flows if flows is not None else self.flows(name)
        process = Process(
            self.world,
            name,
            work,
            duty=duty,
            concurrency=concurrency,
            max_background=max_background,
        )
        self.tasks.start_soon(process.live)
        return process

    def flows(self, name: str, *flows: str) -> Flows:
        """Flows that note that a state was run here, and end it after a tenth of a second."""
        made = Flows()
        for flow in flows or ("work",):

            @made.flow(flow)
            async def run(state: State, engine: Engine) -> Command:
                where, cause = state.transition.to, state.transition.cause.value
                self.world.transcript.note(name, f"runs {state.id} at {where} ({cause})")
                await engine.sleep_until(engine.clock.now() + 100)
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
        Engine(world.places, clock=world.clock, retry=POLICY) as engine,
        anyio.create_task_group() as tasks,
    ):
        yield Cluster(tasks, world, engine)
        tasks.cancel_scope.cancel()
