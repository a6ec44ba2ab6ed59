"""Runs that nobody made: results with the figures that a test needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowstate.bench import Better, Effort, Measure, Measurement, Run, StoreFacts, WorkloadFacts
from flowstate.bench.results import Machine, Round

RATE = Measure("commits", "/s", Better.HIGHER, has_raw=True)
DELAY = Measure("p50", "ms", Better.LOWER)
COMMIT = WorkloadFacts(
    name="commit",
    about="Committed transitions",
    parameter="flows",
    measures=(RATE, DELAY),
    raw="bare inserts",
)
MACHINE = Machine(
    cpu="A processor",
    cores=2,
    memory_gb=8.0,
    system="Linux 6.1",
    python="CPython 3.12",
    versions={"flowstate": "0.2.0"},
)


def rounds(
    figures: Mapping[str, Sequence[float]], raw: Mapping[str, Sequence[float]] | None = None
) -> tuple[Round, ...]:
    """A round for each of the values."""
    count = max(len(values) for values in figures.values())
    return tuple(
        Round(
            number=index + 1,
            figures={name: values[index] for name, values in figures.items()},
            raw={name: values[index] for name, values in (raw or {}).items()},
        )
        for index in range(count)
    )


def measurement(
    figures: Mapping[str, Sequence[float]],
    raw: Mapping[str, Sequence[float]] | None = None,
    *,
    value: int = 100,
    store: str = "sqlite",
) -> Measurement:
    return Measurement(workload="commit", value=value, store=store, rounds=rounds(figures, raw))


def run(*measurements: Measurement, machine: Machine = MACHINE) -> Run:
    stores = dict.fromkeys(one.store for one in measurements)
    return Run(
        began="2026-01-02T03:04:05+00:00",
        took_s=60.0,
        effort=Effort(),
        machine=machine,
        stores=tuple(
            StoreFacts(name=name, url=f"{name}:///here", durability="POWER", raw="bare inserts")
            for name in stores
        ),
        workloads=(COMMIT,),
        measurements=measurements,
    )
