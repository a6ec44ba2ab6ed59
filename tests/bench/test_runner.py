"""Taking the rounds: what fails, what cannot be, and what is cut short."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from attrs import evolve

from flowstate import Durability
from flowstate.bench import (
    WORKLOADS,
    Better,
    Effort,
    Measure,
    Progress,
    Runner,
    Sample,
    Site,
    Workload,
    sites_of,
)
from flowstate.bench.place import Place

EFFORT = Effort(rounds=3, seconds=0.0, states=10, is_quick=True)


async def count(place: Place, value: int) -> Sample:
    """A workload that does nothing, but for one value on one store."""
    if value == 13:
        raise ExceptionGroup("tasks", [RuntimeError("out of luck")])
    return Sample({"things": float(value)}, {"": [0.001]})


COUNT = Workload(
    "count",
    "Counting things",
    parameter="things",
    values=(1, 13),
    quick=(1, 13),
    measures=(Measure("things", "/s", Better.HIGHER, has_raw=True),),
    run=count,
    raw=lambda _site, value, _effort: Sample({"things": value * 2.0, "p50": 1.0}),
    raw_about="counting twice",
)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[dict[str, Site]]:
    found = sites_of(["memory:", f"sqlite:///{tmp_path}/a.db"])
    with found["memory"], found["sqlite"]:
        yield found


def test_every_round_has_its_figures_its_raw_limit_and_its_quantiles(
    sites: dict[str, Site],
) -> None:
    run = Runner(sites, [COUNT], EFFORT).run()
    for store in ("memory", "sqlite"):
        (one,) = (m for m in run.measurements if (m.value, m.store) == (1, store))
        assert [1, 2, 3] == [taken.number for taken in one.rounds]
        assert [{"things": 1.0, "p50": 1.0, "p99": 1.0}] * 3 == [t.figures for t in one.rounds]
        assert [{"things": 2.0}] * 3 == [taken.raw for taken in one.rounds]
        assert len(run.shares) == len(one.rounds[0].quantiles[""])
        assert 0.5 == one.share_of_raw(COUNT.measures[0])


def test_a_case_that_fails_is_left_out_and_the_others_go_on(sites: dict[str, Site]) -> None:
    told: list[Progress] = []
    run = Runner(sites, [COUNT], EFFORT, tell=told.append).run()
    failed = [one for one in run.measurements if one.has_failed]
    assert [13, 13] == [one.value for one in failed]
    assert {"failed in round 1: RuntimeError: out of luck"} == {one.missing for one in failed}
    assert 2 == sum(now.step.case.value == 13 for now in told)  # not again in later rounds


def test_what_a_store_cannot_have_is_no_failure(sites: dict[str, Site]) -> None:
    shared = evolve(COUNT, needs=Durability.PROCESS, values=(1,), quick=(1,))
    run = Runner(sites, [shared], EFFORT).run()
    memory, sqlite = run.measurements
    assert ("needs a store that other processes can open", False) == (
        memory.missing,
        memory.has_failed,
    )
    assert ("", 3) == (sqlite.missing, len(sqlite.rounds))


def test_a_run_that_is_stopped_gives_what_there_is(sites: dict[str, Site]) -> None:
    def stop(now: Progress) -> None:
        if now.step.round == 2 and now.step.store == "memory":
            runner.stop()

    runner = Runner(sites, [COUNT], EFFORT, tell=stop)
    run = runner.run()
    assert run.is_interrupted
    assert {"memory": 1, "sqlite": 2} == {
        one.store: len(one.rounds) for one in run.measurements if one.value == 1
    }


def test_a_measurement_that_waits_is_ended_by_a_stop(sites: dict[str, Site]) -> None:
    async def wait(_place: Place, _value: int) -> Sample:
        runner.stop()
        await anyio.sleep_forever()
        raise AssertionError

    runner = Runner(sites, [evolve(COUNT, run=wait)], EFFORT)
    run = runner.run()
    assert run.is_interrupted
    assert () == run.measurements


def test_what_remains_is_known_and_shrinks(sites: dict[str, Site]) -> None:
    told: list[Progress] = []
    Runner(sites, [WORKLOADS["get"]], EFFORT, tell=told.append).run()
    assert [now.left_s > 0 for now in told] == [True] * len(told)
    assert told[-1].left_s < told[0].left_s
    assert told[-1].done_s > 0


def test_the_stores_and_the_machine_are_told(sites: dict[str, Site]) -> None:
    run = Runner(sites, [COUNT], EFFORT).run()
    assert {"memory": "NONE", "sqlite": "POWER"} == {one.name: one.durability for one in run.stores}
    assert "SQLite" in run.store("sqlite").facts
    assert run.machine.cores >= 1
    assert {"flowstate", "anyio", "msgspec"} <= run.machine.versions.keys()
    assert time.strftime("%Y") in run.began
