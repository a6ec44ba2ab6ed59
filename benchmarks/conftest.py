"""The benchmarks: each row beside what is asked of it and the raw limit of the same run.

`make bench` measures. In the ordinary suite (`--benchmark-disable`) every benchmark runs once,
tiny, so that none rots.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import define, field, frozen
from rich.console import Console
from rich.table import Table

from tests.postgres import Database, database

ROUNDS = 5


@frozen
class Row:
    """One figure: what was asked, what was reached, and the raw limit of the same run."""

    what: str
    unit: str
    asked: str
    reached: float
    raw: float | None
    raw_what: str
    spread: str


@define
class Report:
    rows: list[Row] = field(factory=list)

    def print(self) -> None:
        table = Table(title="asked, reached, and the raw limit of the same run")
        for column in ("what", "asked", "reached", "min–max", "raw limit", "of raw"):
            table.add_column(column, justify="left" if column == "what" else "right")
        for row in self.rows:
            raw = ratio = ""
            if row.raw is not None:
                raw = f"{row.raw:,.5g} {row.unit} ({row.raw_what})"
                ratio = f"{row.reached / row.raw:.0%}"
            reached = f"{row.reached:,.5g} {row.unit}"
            table.add_row(row.what, row.asked, reached, row.spread, raw, ratio)
        Console(width=160).print(table)


REPORT = Report()


def pytest_terminal_summary() -> None:
    if REPORT.rows:
        REPORT.print()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    """A database on a real server."""
    with database() as made:
        yield made


@pytest.fixture
def tiny(request: pytest.FixtureRequest) -> bool:
    """Whether this is the ordinary suite: run once, small."""
    option = request.config.getoption
    return bool(option("benchmark_disable") and not option("benchmark_enable"))


@pytest.fixture
def rate(benchmark: Any, tiny: bool) -> Callable[..., None]:
    """Measure how many times a second: ``rate(what, asked, n, work, raw=…, raw_n=…)``.

    ``work`` and ``raw`` take nothing and give the seconds that *n* (*raw_n*) of the thing took;
    they are run in turn, so that both see the same machine.
    """

    def measure(
        what: str,
        asked: str,
        n: int,
        work: Callable[[], float],
        *,
        raw: Callable[[], float],
        raw_n: int,
        raw_what: str,
    ) -> None:
        reached: list[float] = []
        limits: list[float] = []

        def one_round() -> None:
            limits.append(raw_n / raw())
            reached.append(n / work())

        benchmark.pedantic(one_round, rounds=1 if tiny else ROUNDS, warmup_rounds=0 if tiny else 1)
        counted = reached if tiny else reached[1:]
        benchmark.extra_info.update(reached=counted, raw=limits)
        if not tiny:
            REPORT.rows.append(
                Row(
                    what,
                    "/s",
                    asked,
                    statistics.median(counted),
                    statistics.median(limits[1:]),
                    raw_what,
                    f"{min(counted):,.0f}–{max(counted):,.0f}",
                )
            )

    return measure


@pytest.fixture
def latency(benchmark: Any, tiny: bool) -> Callable[..., None]:
    """Report delays: ``latency(what, asked, delays)`` where ``delays()`` gives seconds."""

    def measure(
        what: str,
        asked: str,
        delays: Callable[[], list[float]],
        *,
        raw: Callable[[], list[float]],
        raw_what: str,
    ) -> None:
        reached: list[float] = []
        limits: list[float] = []

        def one_round() -> None:
            limits.extend(raw())
            reached.extend(delays())

        benchmark.pedantic(one_round, rounds=1 if tiny else ROUNDS)
        if tiny:
            return
        for name, share in (("median", 0.50), ("p99", 0.99)):
            REPORT.rows.append(
                Row(
                    f"{what}, {name}",
                    "ms",
                    asked.split(" / ")[0 if name == "median" else 1],
                    percentile(reached, share) * 1000,
                    percentile(limits, share) * 1000,
                    raw_what,
                    f"{min(reached) * 1000:.3g}–{max(reached) * 1000:.3g}",
                )
            )

    return measure


@pytest.fixture
def figure(tiny: bool) -> Callable[[Row], None]:
    """Report a figure that is neither a rate nor a latency."""
    return lambda row: None if tiny else REPORT.rows.append(row)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
