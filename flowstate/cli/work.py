"""``flowstate work``, also as ``flowstate recover``: a worker as a process of its own, which stands
for election too."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import click
from attrs import asdict, define, field

from flowstate import Engine, Flows, Query, SystemClock
from flowstate.recovery import LEADER_ID, Event, Recoverer, Stats

from . import output
from .loading import FlowsParam
from .options import grace_option
from .reading import Readable
from .screen import LogLines
from .signals import interruptible, leave
from .store import Access, driver_of, run_async, store_option

REPORT_S = 1.0
"""The shortest interval between two reports of what was done (s)."""


@click.command(short_help="Run what is ready, and act on what is due, until Ctrl-C.")
@click.argument("flows", type=FlowsParam(), metavar="[MODULE:FLOWS]", required=False)
@click.option(
    "--concurrency",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="States that are run at the same time; 0: only stand for election, which needs no flows.",
)
@click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a leader that died is waited for.",
)
@grace_option
@store_option
def work(flows: Flows | None, concurrency: int, lease: float, grace: float, url: str) -> None:
    """Run what is ready for the flows FLOWS of MODULE (a dotted name, or the path of a .py file),
    and act on what is due in the whole store.

    What is ready is what was submitted, resumed, moved or retried, and what its process gave back.
    Each state is given to one of all the processes that have its flow. Start any number, on any
    machine that reaches the store; their flows may differ.

    One of all the processes on a store leads: it fires delays and timeouts, and makes ready what a
    process that died was running. It needs no flows for that. When the leader dies, another one
    leads once its --lease has run out; when it is stopped, at once.

    Who leads, and what was done, is told on stderr. SIGINT (Ctrl-C) or SIGTERM hands over to
    another process and lets running flows finish; the exit code is then 0. A second one stops at
    once.

    `flowstate recover` is the same command.

    \b
    Examples:
      flowstate work orders.py:flows --store sqlite:///orders.db
      flowstate work shop.mail:flows --concurrency 20 --lease 5
      flowstate work --concurrency 0
    """
    if flows is None and concurrency:
        raise click.UsageError(
            "Say which flows it is to run, e.g. flowstate work orders.py:flows; without flows it "
            "can only lead: --concurrency 0."
        )
    flows = Flows() if flows is None else flows

    async def serve() -> int:
        async with (
            driver_of(url, Access.CHANGE) as driver,
            Engine(driver, flows, grace=grace, max_background=max(concurrency, 1)) as engine,
        ):
            report = _Report()
            recoverer = Recoverer(engine, concurrency=concurrency, lease=lease, tell=report.tell)
            with (
                interruptible(report.drain, "Stopped at once; what was running goes on elsewhere."),
                _logged(),
            ):
                works = _flows(flows) if concurrency else "only to lead"
                _say(f"{recoverer.name} is here, {works}")
                async with anyio.create_task_group() as reports:
                    async with recoverer:
                        reports.start_soon(report.leaders, engine)
                        reports.start_soon(report.progress, recoverer)
                        await report.ended.wait()
                    reports.cancel_scope.cancel()
                report.total(recoverer.stats())
        return 0

    leave(run_async(serve))


recover = work


@define(eq=False)
class _Report:
    """Prints who leads, and what this process did."""

    ended: anyio.Event = field(factory=anyio.Event, init=False)
    _reported: Stats | None = field(default=None, init=False)
    """The counts as they were last reported."""

    def drain(self, signal_name: str) -> None:
        _say(f"{signal_name}: handing over; running flows may finish (again: stop at once)")
        self.ended.set()

    def tell(self, event: Event, term: int) -> None:
        if event is Event.DEPOSED:
            _say(f"term {term} was lost to another process")
        elif event is Event.TRUST_ENDED:
            _say(f"term {term} could not be renewed in time; standing by")

    async def leaders(self, engine: Engine) -> None:
        watcher = engine.watch(Query(id=LEADER_ID, latest=True))
        async for state in Readable().of(watcher):
            leader = state.labels.get("leader")
            if leader:
                _say(f"{leader} leads, term {state.rev}")
            else:
                _say(f"nobody leads: {state.transition.reason}")

    async def progress(self, recoverer: Recoverer) -> None:
        """Report what was done since the last report, if anything was."""
        while True:
            await anyio.sleep(REPORT_S)
            self._report(recoverer.stats())

    def total(self, stats: Stats) -> None:
        _say(f"left; in all: {_done(stats) or 'nothing was to be done'}")

    def _report(self, stats: Stats) -> None:
        done = _done(stats, self._reported)
        self._reported = stats
        if done:
            late = f", the last alarm {stats.late_ms} ms late" if stats.fired else ""
            _say(f"{done}; {stats.running:,} running{late}")


COUNTS = ("claimed", "fired", "retried", "gave_up", "lost_races", "errors")


def _done(stats: Stats, before: Stats | None = None) -> str:
    """The counts that have grown since *before*, as text; empty if none has."""
    now, then = asdict(stats), asdict(before) if before else {}
    grown = {name: now[name] - then.get(name, 0) for name in COUNTS}
    return ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in grown.items() if count
    )


def _flows(flows: Flows) -> str:
    names = sorted(flow.name for flow in flows)
    return f"with flow{'' if len(names) == 1 else 's'} {', '.join(names) or 'none'}"


def _say(text: str) -> None:
    now = output.moment(SystemClock().now())
    output.warn(output.plain(f"{now} {text}"))


@contextmanager
def _logged() -> Generator[None]:
    """While the body runs, what flowstate logs is printed too."""
    handler, logger = LogLines(_say), logging.getLogger("flowstate")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
