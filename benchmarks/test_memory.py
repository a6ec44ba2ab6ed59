"""Memory: what the kernel itself costs."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstate.drivers.memory import MemoryDriver

from .conftest import Row, timed
from .flows import committed, one_by_one, uncommitted


def bare_loop(n: int) -> float:
    """What Python itself needs: a coroutine call, a dict write and a list append a step."""

    async def step(latest: dict[str, int], log: list[int], number: int) -> None:
        latest["order"] = number
        log.append(number)

    async def loop() -> None:
        latest: dict[str, int] = {}
        log: list[int] = []
        for number in range(n):
            await step(latest, log, number)

    return timed(lambda: anyio.run(loop))


@pytest.mark.parametrize("states", [1_000, 1_000_000])
def test_committed_transitions(rate: Callable[..., None], tiny: bool, states: int) -> None:
    """Committed transitions a second of one task, over few and over many states."""
    n = 1_000 if tiny else 300_000
    active = min(states, n // 10)
    others = (states if not tiny else 1_000) - active

    def work() -> float:
        driver = MemoryDriver()
        if others > 0:
            anyio.run(_fill, driver, others)
        ids = {f"order-{number}": n // active for number in range(active)}
        return anyio.run(one_by_one, driver, ids, committed)

    rate(
        f"memory, committed transitions, {states:,} states",
        "250,000/s",
        n,
        work,
        raw=lambda: bare_loop(n),
        raw_n=n,
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
        raw=lambda: bare_loop(n),
        raw_n=n,
        raw_what="coroutine + dict + list",
    )


def test_memory_a_state(figure: Callable[[Row], None], benchmark: Any, tiny: bool) -> None:
    """Resident memory of a state that was committed once, in a process of its own."""
    states = 1_000 if tiny else 100_000
    grown = benchmark.pedantic(
        lambda: subprocess.run(
            [sys.executable, "-m", __spec__.name, str(states)],
            cwd=Path(__file__).parent.parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout,
        rounds=1,
    )
    bytes_a_state = float(grown) / states
    assert bytes_a_state > 0
    figure(
        Row("memory driver, a state", "KB", "2 KB", bytes_a_state / 1000, None, "", "")
    )


async def _fill(driver: MemoryDriver, states: int) -> None:
    await one_by_one(driver, {f"other-{number}": 1 for number in range(states)}, committed)


if __name__ == "__main__":
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = MemoryDriver()
    from flowstate import Commit, Engine, Pause, State

    async def main() -> None:
        async with kept, Engine(kept) as engine:
            for number in range(int(sys.argv[1])):
                state = State(f"order-{number}", labels={"queue": "mail"})
                await engine.do(Commit(Pause(state, "work")))

    anyio.run(main)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
