"""Work: how soon what is ready runs, how processes share it, and what it costs to begin."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import anyio
import pytest

from flowstate import Command, Commit, Delay, Driver, End, Engine, Flows, State, Transit, connect
from flowstate.bench import sites_of
from flowstate.bench.workloads.working import JOBS_A_SECOND
from flowstate.drivers.memory import MemoryDriver
from flowstate.recovery import Recoverer
from tests.postgres import Database

from .measured import measured

MANY_FLOWS = 1_500


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of a new store of a kind."""
    numbers = count()

    def url(kind: str) -> str:
        if kind == "PostgreSQL":
            database: Database = request.getfixturevalue("postgres")
            return database.new_store()
        return "memory:" if kind == "memory" else f"sqlite:///{tmp_path}/{next(numbers)}.db"

    return url


@pytest.mark.parametrize(
    ("kind", "is_here"),
    [
        ("memory", True),
        ("SQLite", True),
        ("SQLite", False),
        ("PostgreSQL", True),
        ("PostgreSQL", False),
    ],
)
def test_ready_to_running(
    latency: Callable[..., None], tiny: bool, url_of: Callable[[str], str], kind: str, is_here: bool
) -> None:
    """From just before the commit that makes a state ready to the first line of its flow."""
    (site,) = sites_of([url_of(kind)]).values()
    work, watch = ("ready", "watch") if is_here else ("ready-process", "watch-process")
    with site:
        latency(
            f"ready to running, {kind}, {'same' if is_here else 'other'} process",
            "2 ms / –" if is_here else "10 ms / –",
            lambda: list(measured(work, site, 1, tiny=tiny).delays[""]),
            raw=lambda: list(measured(watch, site, 1, tiny=tiny).delays[""]),
            raw_what="commit to watcher",
        )


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_jobs_on_two_workers(
    rate: Callable[..., None], tiny: bool, url_of: Callable[[str], str], kind: str
) -> None:
    """Jobs that wait, in two processes beside one; each of them is begun once."""
    (site,) = sites_of([url_of(kind)]).values()
    with site:

        def run(processes: int) -> float:
            return JOBS_A_SECOND / measured("jobs", site, processes, tiny=tiny).figures["jobs"]

        rate(
            f"{JOBS_A_SECOND:,} jobs on two workers, {kind}",
            "1.6 × one",
            JOBS_A_SECOND,
            lambda: run(2),
            raw=lambda: run(1),
            raw_n=JOBS_A_SECOND,
            raw_what="one worker",
        )


# ---------------------------------------------------------------- many flows


@pytest.mark.parametrize("kind", ["memory", "SQLite", "PostgreSQL"])
def test_an_alarm_among_many_flows(
    latency: Callable[..., None], tiny: bool, url_of: Callable[[str], str], kind: str
) -> None:
    """How late the flow of an alarm runs, one at a time, of a process that has many flows."""
    alarms = 3 if tiny else 40
    latency(
        f"an alarm among {MANY_FLOWS:,} flows late by, {kind}",
        "as among one / as among one",
        lambda: anyio.run(late, url_of(kind), MANY_FLOWS, alarms),
        raw=lambda: anyio.run(late, url_of(kind), 1, alarms),
        raw_what="one flow",
    )


async def late(url: str, flows: int, alarms: int) -> list[float]:
    """How late each alarm's flow began (s)."""
    found: list[float] = []
    has_rung = anyio.Event()

    async def ring(state: State, engine: Engine) -> Command:
        found.append(time.time() - int(state.annotations["at"]) / 1000)
        has_rung.set()
        return Commit(End(state))

    registered = Flows()
    for number in range(flows):
        registered.add(f"ring-{number}", ring)
    leads = anyio.Event()
    async with (
        connect(url) as driver,
        Engine(driver, registered) as engine,
        Recoverer(engine, tell=lambda *_: leads.set()),
    ):
        await leads.wait()
        for number in range(alarms):
            has_rung = anyio.Event()
            at = engine.clock.now() + 50
            state = State(f"alarm-{number}", annotations={"at": str(at)})
            await engine.do(Commit(Delay(state, f"ring-{number % flows}", at=at)))
            await has_rung.wait()
    return found


# ---------------------------------------------------------------- beginning


@pytest.mark.parametrize("kind", ["memory", "SQLite", "PostgreSQL"])
def test_executing_a_command(
    rate: Callable[..., None], tiny: bool, url_of: Callable[[str], str], kind: str
) -> None:
    """Fresh states of one flow, one after the other: `execute` of a commit, which takes what it
    stores, beside `do` and then `execute`, which has to take it."""
    states = 10 if tiny else (20_000 if kind == "memory" else 500)

    def driver() -> Driver:
        return MemoryDriver() if kind == "memory" else connect(url_of(kind))

    rate(
        f"execute(commit), fresh states, {kind}",
        "do and execute",
        states,
        lambda: anyio.run(executed, driver(), states, at_once),
        raw=lambda: anyio.run(executed, driver(), states, in_two),
        raw_n=states,
        raw_what="do and execute",
    )


async def at_once(engine: Engine, new: Commit) -> None:
    await engine.execute(new)


async def in_two(engine: Engine, new: Commit) -> None:
    (state,) = await engine.do(new)
    await engine.execute(state)


async def executed(
    driver: Driver, states: int, run: Callable[[Engine, Commit], Awaitable[None]]
) -> float:
    """Seconds to begin so many states and to bring them to their end."""
    flows = Flows()

    @flows.flow
    async def finish(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    async with driver, Engine(driver, flows) as engine:
        start = time.perf_counter()
        for number in range(states):
            await run(engine, Commit(Transit(State(f"order-{number}"), finish)))
        return time.perf_counter() - start
