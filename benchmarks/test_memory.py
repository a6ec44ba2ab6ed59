"""Memory: what the kernel itself costs."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flowstate import Commit, Engine, Pause, State
from flowstate.drivers.memory import MemoryDriver

from .conftest import Row
from .flows import committed, one_by_one, uncommitted
from .measured import raw_seconds


@pytest.mark.parametrize(
    ("states", "moved"), [(1_000, 1_000), (1_000_000, 1_000), (1_000_000, 30_000)]
)
def test_committed_transitions(
    rate: Callable[..., None], tiny: bool, states: int, moved: int
) -> None:
    """Committed transitions a second of one task: in small and in large stores, and of many states
    that are executed for ten transitions each, where what an execution costs counts too."""
    n = 1_000 if tiny else 300_000
    moved = min(moved, n // 10)
    others = (1_000 if tiny else states) - moved

    def work() -> float:
        driver = MemoryDriver()
        if others > 0:
            anyio.run(_fill, driver, others)
        ids = {f"order-{number}": n // moved for number in range(moved)}
        return anyio.run(one_by_one, driver, ids, committed)

    rate(
        f"memory, committed transitions, {states:,} states, {moved:,} of them move",
        "250,000/s",
        n,
        work,
        raw=lambda: raw_seconds("memory:", 1, tiny=tiny),
        raw_n=1,
        raw_what="coroutine + dict + list",
    )


def test_uncommitted_transitions(rate: Callable[..., None], tiny: bool) -> None:
    """Transitions in memory only, a second, of one task."""
    n = 1_000 if tiny else 1_000_000
    rate(
        "memory, uncommitted transitions",
        "1,000,000/s",
        n,
        lambda: anyio.run(one_by_one, MemoryDriver(), {"order": n}, uncommitted),
        raw=lambda: raw_seconds("memory:", 1, tiny=tiny),
        raw_n=1,
        raw_what="coroutine + dict + list",
    )


def test_memory_a_state(figure: Callable[[Row], None], benchmark: Any, tiny: bool) -> None:
    """What the memory driver keeps of a labelled state that was committed once."""
    states = 1_000 if tiny else 100_000

    async def grow() -> float:
        async with MemoryDriver() as driver, Engine(driver) as engine:
            tracemalloc.start()
            try:
                for number in range(states):
                    state = State(f"order-{number}", labels={"queue": "mail"})
                    await engine.do(Commit(Pause(state, "work")))
                gc.collect()
                return tracemalloc.get_traced_memory()[0] / states
            finally:
                tracemalloc.stop()

    size = benchmark.pedantic(lambda: anyio.run(grow), rounds=1)
    assert size > 0
    figure(Row("memory driver, a state", "KB", "2 KB", size / 1000, None, "", ""))


async def _fill(driver: MemoryDriver, states: int) -> None:
    await one_by_one(driver, {f"other-{number}": 1 for number in range(states)}, committed)
