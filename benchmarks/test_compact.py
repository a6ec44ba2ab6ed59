"""Compaction: how long commits wait for it, and how fast it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from attrs import define, field

from flowstate import Commit, Driver, Engine, Pause, State, connect
from tests.postgres import Database

from .conftest import Row, percentile

VERSIONS = {"memory": 100_000, "SQLite": 100_000, "PostgreSQL": 30_000}
VERSIONS_PER_STATE = 10
COMMIT_SIZE = 500
EVERY_S = 0.002
"""Between two commits whose delay is measured."""
ROUNDS = 3


@define
class Measured:
    """One round."""

    alone: list[float] = field(factory=list)
    """Delays of commits (s) while nothing else happens…"""
    beside: list[float] = field(factory=list)
    """…and while the store is compacted."""
    removed: int = 0
    took: float = 0.0
    """Seconds that it was compacted."""


async def fill(driver: Driver, versions: int) -> None:
    """States with two labels and a payload that is new in every version."""
    async with Engine(driver) as engine:
        states = [
            State(f"order-{n}", labels={"queue": str(n % 20), "number": str(n)})
            for n in range(versions // VERSIONS_PER_STATE)
        ]
        for turn in range(VERSIONS_PER_STATE):
            for start in range(0, len(states), COMMIT_SIZE):
                part = slice(start, start + COMMIT_SIZE)
                moves = (
                    Pause(state.attach("note", f"{turn} of {state.id}"), "work")
                    for state in states[part]
                )
                states[part] = await engine.do(Commit(*moves))


async def commit_steadily(engine: Engine, delays: list[float], while_: Callable[[], bool]) -> None:
    """Commit every so often, and note how late each is done."""
    (state,) = await engine.do(Commit(Pause(State(f"steady-{time.perf_counter_ns()}"))))
    due = anyio.current_time()
    while while_():
        due += EVERY_S
        await anyio.sleep_until(due)
        (state,) = await engine.do(Commit(Pause(state)))
        delays.append(anyio.current_time() - due)
        due = max(due, anyio.current_time() - EVERY_S)  # one delay counts once


async def measure(url: str, versions: int) -> Measured:
    measured = Measured()
    async with connect(url) as driver, Engine(driver) as engine:
        await fill(driver, versions)
        run = engine.compact(0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit_steadily, engine, measured.beside, lambda: not run.total.done)
            await anyio.sleep(EVERY_S)
            began = anyio.current_time()
            measured.removed = (await run.finish()).versions
            measured.took = anyio.current_time() - began
        commits = len(measured.beside)
        await commit_steadily(engine, measured.alone, lambda: len(measured.alone) < commits)
    return measured


@pytest.fixture
def new_store(request: pytest.FixtureRequest, name: str) -> Callable[[], str]:
    """Gives the URL of a store that does not exist yet."""
    if name == "PostgreSQL":
        postgres: Database = request.getfixturevalue("postgres")
        return postgres.new_store
    if name == "SQLite":
        folder = request.getfixturevalue("tmp_path")
        return lambda: f"sqlite:///{folder}/{time.perf_counter_ns()}.db"
    return lambda: "memory:"


@pytest.mark.parametrize("name", VERSIONS)
def test_commits_while_compacting(
    figure: Callable[[Row], None],
    benchmark: Any,
    tiny: bool,
    new_store: Callable[[], str],
    name: str,
) -> None:
    """The longest that a commit waits while many versions are looked at and nine in ten of them
    removed, each with a payload; beside the longest without."""
    versions = 2_000 if tiny else VERSIONS[name]
    rounds: list[Measured] = []

    def one_round() -> None:
        rounds.append(anyio.run(measure, new_store(), versions))

    benchmark.pedantic(one_round, rounds=1 if tiny else ROUNDS)
    assert all(one.removed == versions * 9 // 10 for one in rounds)
    beside = [delay for one in rounds for delay in one.beside]
    alone = [delay for one in rounds for delay in one.alone]
    for what, asked, of in (
        ("longest", "50 ms", max),
        ("p99", "–", lambda delays: percentile(delays, 0.99)),
    ):
        worst = [of(one.beside) * 1000 for one in rounds]
        figure(
            Row(
                f"a commit while compacting, {name}, {what}",
                "ms",
                asked,
                of(beside) * 1000,
                of(alone) * 1000,
                "without",
                f"{min(worst):.3g}–{max(worst):.3g}",
            )
        )
    rates = [one.removed / one.took for one in rounds]
    figure(
        Row(
            f"versions removed, {name}",
            "/s",
            "–",
            statistics.median(rates),
            None,
            "",
            f"{min(rates):,.0f}–{max(rates):,.0f}",
        )
    )
