"""flowstate: a committed transition is a step."""

from __future__ import annotations

import anyio

from flowstate import Command, Commit, End, Engine, Flows, State, Transit, connect

from .peer import Steps


def measure(steps: Steps, url: str, flows: int) -> None:
    """Flows that go round and commit each transition; in memory, they commit only their end."""
    anyio.run(_run, steps, url, flows)


async def _run(steps: Steps, url: str, flows: int) -> None:
    registered = Flows()
    is_committed = url != "memory:"

    @registered.flow
    async def first(state: State, engine: Engine) -> Command:
        return Commit(Transit(state, "step"))

    @registered.flow
    async def step(state: State, engine: Engine) -> Command:
        if not steps.end(state.id):
            return Commit(End(state))
        return Commit(Transit(state, "step")) if is_committed else Transit(state, "step")

    async with connect(url) as driver, Engine(driver, registered) as engine:
        new = [Transit(State(f"order-{number}"), "first") for number in range(flows)]
        begun = await engine.do(Commit(*new))
        steps.begin()
        async with anyio.create_task_group() as tasks:
            for state in begun:
                tasks.start_soon(engine.execute, state)
