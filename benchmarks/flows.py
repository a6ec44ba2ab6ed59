"""Flows that go round a number of times and end: what the rates are measured with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

import anyio

from flowstate import Command, Commit, Driver, End, Engine, Flows, State, Transit

Wrap = Callable[[Command[State]], Command]
Beside = Callable[[Engine], AbstractAsyncContextManager[object]]
"""What is open beside the engine while it is measured, e.g. a Recoverer."""


def committed(command: Command[State]) -> Command:
    return Commit(command)


def uncommitted(command: Command[State]) -> Command:
    return command


def rounds(left: dict[str, int], wrap: Wrap) -> Flows:
    """Two flows that hand a state to each other, ``left[id]`` times."""
    flows = Flows()

    async def there(state: State, engine: Engine) -> Command:
        left[state.id] -= 1
        return wrap(Transit(state, "back")) if left[state.id] > 0 else Commit(End(state))

    async def back(state: State, engine: Engine) -> Command:
        left[state.id] -= 1
        return wrap(Transit(state, "there")) if left[state.id] > 0 else Commit(End(state))

    flows.add("there", there)
    flows.add("back", back)
    return flows


async def one_by_one(
    driver: Driver, transitions: Mapping[str, int], wrap: Wrap, beside: Beside = nullcontext
) -> float:
    """Seconds for one task to take each state through so many transitions."""
    flows = rounds(dict(transitions), wrap)
    async with driver, Engine(driver, flows) as engine, beside(engine):
        states = await _begin(engine, list(transitions))
        start = time.perf_counter()
        for state in states:
            await engine.execute(state)
        return time.perf_counter() - start


async def together(
    driver: Driver,
    flows: int,
    transitions: int,
    labels: Mapping[str, str] | None = None,
    beside: Beside = nullcontext,
) -> float:
    """Seconds for so many tasks to take a state each through so many committed transitions."""
    ids = [f"order-{number}" for number in range(flows)]
    left = dict.fromkeys(ids, transitions)
    async with driver, Engine(driver, rounds(left, committed)) as engine, beside(engine):
        states = await _begin(engine, ids, labels)
        start = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for state in states:
                tasks.start_soon(engine.execute, state)
        return time.perf_counter() - start


async def _begin(
    engine: Engine, ids: Sequence[str], labels: Mapping[str, str] | None = None
) -> list[State]:
    states: list[State] = []
    for start in range(0, len(ids), 1_000):
        new = [State(id, labels=labels or {}) for id in ids[start : start + 1_000]]
        states += await engine.do(Commit(*[Transit(state, "there") for state in new]))
    return states
