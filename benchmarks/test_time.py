"""Time: how late alarms fire, how soon the work of a dead process goes on, what waiting costs."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstate import (
    Command,
    Commit,
    Delay,
    Driver,
    Engine,
    Flows,
    State,
    connect,
)
from flowstate.bench import sites_of
from flowstate.bench.workloads.timing import LEASE_S
from flowstate.drivers.memory import MemoryDriver
from flowstate.recovery import Recoverer

from .conftest import Row
from .flows import committed, one_by_one, together
from .measured import measured, raw_limit

DRIVERS = {"memory": "memory:", "SQLite": "sqlite:///{}/{}.db"}
SLEEPERS = 100_000
YEARS_MS = 10 * 365 * 24 * 3_600_000


def url_of(name: str, path: Path, number: int = 0) -> str:
    return DRIVERS[name].format(path, number)


@pytest.mark.parametrize("name", DRIVERS)
def test_alarms_at_a_thousand_a_second(
    latency: Callable[..., None], tiny: bool, tmp_path: Path, name: str
) -> None:
    """From an alarm's instant until its flow runs, through the index, a commit and the election."""
    (site,) = sites_of([url_of(name, tmp_path)]).values()
    with site:
        latency(
            f"alarms fired late by, {name}",
            "– / 20 ms",
            lambda: list(measured("alarms", site, 1_000, tiny=tiny).delays[""]),
            raw=lambda: list(raw_limit("alarms", site, 1_000, tiny=tiny).delays[""]),
            raw_what="sleeping tasks",
        )


def test_an_executor_that_is_killed(
    benchmark: Any, figure: Callable[[Row], None], tiny: bool, tmp_path: Path
) -> None:
    """Real processes on one file, kill -9: the executor, which leads too, so that the term must
    run out as well as the leases."""
    late: list[float] = []
    (site,) = sites_of([url_of("SQLite", tmp_path)]).values()
    with site:

        def one_round() -> None:
            late.append(measured("takeover", site, 50, tiny=tiny).figures["all"])

        benchmark.pedantic(one_round, rounds=1 if tiny else 5)
    figure(
        Row(
            "executor and leader killed, its states run elsewhere after",
            "s",
            "lease + 1 s = 2 s",
            max(late),
            LEASE_S,
            "the lease",
            f"{min(late):.2f}–{max(late):.2f}",
        )
    )


# ---------------------------------------------------------------- what waiting costs


def counting(driver: Driver) -> Counter[str]:
    """Count the calls to a driver from now on."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(type(driver), name)

        async def call(*args: Any) -> Any:
            calls[name] += 1
            return await method(driver, *args)

        return call

    for name in ("commit", "get", "find", "read", "head", "due", "renew", "wait"):
        setattr(driver, name, counted(name))
    return calls


async def asleep(url: str, sleepers: int, seconds: float) -> tuple[float, float]:
    """Driver calls a second, and the share of a CPU, of a recoverer over sleeping states."""
    flows = Flows()

    @flows.flow
    async def wake(state: State, engine: Engine) -> Command:
        raise AssertionError

    async with connect(url) as driver, Engine(driver, flows) as engine:
        for start in range(0, sleepers, 1_000):
            at = engine.clock.now() + YEARS_MS
            ids = range(start, min(start + 1_000, sleepers))
            await engine.do(Commit(*(Delay(State(str(id)), "wake", at=at + id) for id in ids)))
        leads = anyio.Event()
        async with Recoverer(engine, lease=30, tell=lambda *_: leads.set()):
            await leads.wait()
            await anyio.sleep(0.1)  # its first look is over
            calls = counting(driver)
            used = resource.getrusage(resource.RUSAGE_SELF)
            await anyio.sleep(seconds)
            now = resource.getrusage(resource.RUSAGE_SELF)
            cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            return calls.total() / seconds, cpu / seconds


@pytest.mark.parametrize("name", DRIVERS)
def test_sleeping_states(
    benchmark: Any, figure: Callable[[Row], None], tiny: bool, tmp_path: Path, name: str
) -> None:
    """A hundred thousand states that sleep for ten years, and none, beside a recoverer."""
    sleepers, seconds = (100, 0.1) if tiny else (SLEEPERS, 5.0)
    numbers = count()

    def measure(states: int) -> tuple[float, float]:
        return anyio.run(asleep, url_of(name, tmp_path, next(numbers)), states, seconds)

    idle_calls, idle_cpu = measure(0)
    calls, cpu = benchmark.pedantic(lambda: measure(sleepers), rounds=1)
    assert tiny or calls < 1  # it sleeps, too
    what = f"recoverer beside {sleepers:,} sleeping states, {name}"
    figure(Row(f"{what}, driver calls", "/s", "nothing", calls, idle_calls or None, "none", ""))
    figure(Row(f"{what}, CPU", "%", "nothing", cpu * 100, idle_cpu * 100 or None, "no states", ""))


# ---------------------------------------------------------------- beside the other rows


def test_memory_beside_a_recoverer(rate: Callable[..., None], tiny: bool) -> None:
    """Committed transitions of one task, with a recoverer open and without."""
    n = 1_000 if tiny else 300_000
    transitions = {f"order-{number}": n // 100 for number in range(100)}
    rate(
        "memory, committed transitions, recoverer open",
        "90 % of without",
        n,
        lambda: anyio.run(one_by_one, MemoryDriver(), transitions, committed, Recoverer),
        raw=lambda: anyio.run(one_by_one, MemoryDriver(), transitions, committed),
        raw_n=n,
        raw_what="the same without",
    )


@pytest.mark.parametrize(("flows", "transitions"), [(1, 2_000), (100, 300), (1_000, 60)])
def test_sqlite_beside_a_recoverer(
    rate: Callable[..., None], tiny: bool, tmp_path: Path, flows: int, transitions: int
) -> None:
    """Committed transitions of concurrent flows, with a recoverer open and without."""
    if tiny:
        flows, transitions = min(flows, 10), 5
    numbers = count()

    def run(**beside: Any) -> float:
        driver = connect(url_of("SQLite", tmp_path, next(numbers)))
        return anyio.run(partial(together, driver, flows, transitions, **beside))

    rate(
        f"SQLite, {flows:,} concurrent flow{'s' if flows > 1 else ''}, recoverer open",
        "90 % of without",
        flows * transitions,
        lambda: run(beside=Recoverer),
        raw=run,
        raw_n=flows * transitions,
        raw_what="the same without",
    )
