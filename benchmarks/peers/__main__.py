"""``python -m benchmarks.peers``: measures the peers and flowstate in turn, and tells.

The runner, the tables and the report are those of ``flowstate bench``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path

import anyio
import anyio.to_thread
import click
import msgspec
from attrs import define
from msgspec.structs import replace

from flowstate import Durability
from flowstate.bench import FULL, QUICK, Effort, Run, Runner, Sample, Site, encode, sites_of
from flowstate.bench.place import Place
from flowstate.bench.report import page
from flowstate.bench.values import Better, Measure, delays
from flowstate.bench.workloads import Workload
from flowstate.cli import bench_table, output
from flowstate.cli.bench_screen import BenchScreen
from tests.postgres import database

from .peer import Measured

TIMEOUT_S = 120.0


@define(eq=False)
class Peer(Site):
    """A peer on a kind of store, whose fresh stores come from flowstate's own site for it."""

    module: str
    package: str
    setting: str
    """How it was made durable, stated as it is."""
    stores: Site
    survives: Durability

    @property
    def shown(self) -> str:
        return self.stores.shown

    def check(self) -> None:
        """What it is given is new."""

    def fresh(self) -> AbstractContextManager[str]:
        return self.stores.fresh()

    def durability(self) -> Durability:
        return self.survives

    def facts(self) -> Mapping[str, str]:
        own = {self.package: version(self.package), "setting": self.setting}
        return own | dict(self.stores.facts())


async def run_steps(place: Place, flows: int) -> Sample:
    assert isinstance(place.site, Peer)
    command = [sys.executable, "-m", "benchmarks.peers.peer", place.site.module]
    url = place.url.partition("?")[0] if place.url.startswith("sqlite:") else place.url
    done = await anyio.run_process(
        [*command, url, str(flows), str(place.seconds)], stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-2_000:])
    measured = msgspec.json.decode(done.stdout, type=Measured)
    return Sample({"steps": measured.rate}, {"": measured.delays})


STEPS = Workload(
    "steps",
    "Durable steps of concurrent workflows; a step does nothing but be stored",
    parameter="workflows",
    values=(1, 10, 100),
    quick=(1, 10),
    measures=(Measure("steps", "/s", Better.HIGHER), *delays()),
    run=run_steps,
    cost_s=lambda _: 3.0,
)
UNCOMMITTED = Workload(
    "uncommitted",
    "Transitions in memory of one machine; nothing is stored",
    parameter="machines",
    values=(1,),
    quick=(1,),
    measures=(Measure("steps", "/s", Better.HIGHER), *delays()),
    run=run_steps,
    cost_s=lambda _: 1.0,
)


def durable(server: str) -> dict[str, Site]:
    """Flowstate and those who store each step."""
    sqlite, postgres = sites_of(["sqlite:///peers.db", server]).values()
    power = Durability.POWER
    full = "WAL, synchronous=FULL; steps that are ready together share a sync"
    on = "synchronous_commit=on; steps that are ready together share a commit"
    return {
        "flowstate, SQLite": Peer(
            sqlite.url, "of_flowstate", "flowstate-kernel", full, sqlite, power
        ),
        "DBOS, SQLite": Peer(
            sqlite.url,
            "of_dbos",
            "dbos",
            "its defaults: rollback journal, synchronous=FULL; a commit a step",
            sqlite,
            power,
        ),
        "LangGraph, SQLite": Peer(
            sqlite.url,
            "of_langgraph",
            "langgraph-checkpoint-sqlite",
            'AsyncSqliteSaver: WAL, synchronous=FULL, durability="sync"; two commits a step, its '
            "writes and its checkpoint",
            sqlite,
            power,
        ),
        "flowstate, PostgreSQL": Peer(
            postgres.url, "of_flowstate", "flowstate-kernel", on, postgres, power
        ),
        "DBOS, PostgreSQL": Peer(
            postgres.url,
            "of_dbos",
            "dbos",
            "its defaults: synchronous_commit=on; a commit a step",
            postgres,
            power,
        ),
    }


def in_memory() -> dict[str, Site]:
    """Flowstate's bare transitions, and state machines."""
    (memory,) = sites_of(["memory:"]).values()
    none, nothing = Durability.NONE, "nothing is stored"
    return {
        "flowstate, bare": Peer(
            memory.url, "of_flowstate", "flowstate-kernel", nothing, memory, none
        ),
        "transitions": Peer(memory.url, "of_transitions", "transitions", nothing, memory, none),
        "python-statemachine": Peer(
            memory.url, "of_statemachine", "python-statemachine", nothing, memory, none
        ),
    }


@click.command()
@click.option("--quick", is_flag=True, help="In a minute.")
@click.option("--postgres", metavar="URL", help="A server to use, instead of one of our own.")
@click.option("--out", type=click.Path(path_type=Path), help="For the JSON and the report.")
def main(quick: bool, postgres: str | None, out: Path | None) -> None:
    """Measure flowstate beside what could be used instead."""
    effort = replace(QUICK, seconds=0.5) if quick else replace(FULL, seconds=2.0)
    with ExitStack() as stack:
        server = postgres or stack.enter_context(database()).url
        run = both(
            _measured(durable(server), STEPS, effort), _measured(in_memory(), UNCOMMITTED, effort)
        )
    bench_table.print_run(output.console(), run)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "peers.json").write_bytes(encode(run))
        (out / "peers.html").write_text(page(run), encoding="utf-8")


def _measured(sites: Mapping[str, Site], workload: Workload, effort: Effort) -> Run:
    with ExitStack() as stack:
        for stores in {
            id(s.stores): s.stores for s in sites.values() if isinstance(s, Peer)
        }.values():
            stack.enter_context(stores)
        screen = stack.enter_context(BenchScreen())
        return Runner(sites, [workload], effort, screen.tell).run()


def both(one: Run, other: Run) -> Run:
    """Two runs, one after the other, as one."""
    return replace(
        one,
        took_s=one.took_s + other.took_s,
        stores=(*one.stores, *other.stores),
        workloads=(*one.workloads, *other.workloads),
        measurements=(*one.measurements, *other.measurements),
    )


if __name__ == "__main__":
    main()
