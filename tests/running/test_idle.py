"""When an engine is idle: nothing runs, and whoever waits for that is told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import define, field

from flowstate import Command, Commit, End, Engine, Flows, State
from flowstate.drivers.memory import MemoryDriver

pytestmark = pytest.mark.anyio


@define(eq=False)
class SlowClaims(MemoryDriver):
    """Answers a claim once it may."""

    asked: anyio.Event = field(factory=anyio.Event, init=False)
    may_answer: anyio.Event = field(factory=anyio.Event, init=False)

    async def claim(self, *arguments: Any) -> Any:
        self.asked.set()
        await self.may_answer.wait()
        return await MemoryDriver.claim(self, *arguments)


async def test_a_claim_that_gave_nothing_leaves_the_engine_idle() -> None:
    """Places are reserved while the store is asked; whoever waits meanwhile is told in the end."""
    flows = Flows()

    @flows.flow
    async def send(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    async with SlowClaims() as driver, Engine(driver, flows) as engine:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(engine.timers.claim, {"send": 1}, 1, lambda _: None)
                await driver.asked.wait()
                tasks.start_soon(engine.idle)
                await anyio.wait_all_tasks_blocked()
                driver.may_answer.set()
