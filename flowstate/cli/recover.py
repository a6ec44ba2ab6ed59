"""``flowstate recover``: a recoverer as a process of its own."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import click
from attrs import asdict, define, field

from flowstate import Engine, Flows, Query, SystemClock, connect
from flowstate.recovery import PREFIX, Event, Recoverer, Stats

from . import output
from .loading import FlowsParam
from .options import concurrency_option, grace_option
from .reading import Readable
from .screen import LogLines
from .signals import interruptible, leave
from .store import Access, run_async, store_option, with_access

REPORT_S = 1.0
"""The shortest interval between two reports of what was done (s)."""


@click.command(short_help="Act on what is due, until Ctrl-C.")
@click.option(
    "--flows",
    type=FlowsParam(),
    required=True,
    metavar="MODULE:FLOWS",
    help="The flows that it acts on.",
)
@click.option("--group", default="default", show_default=True, help="One of a group acts.")
@click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a leader that died is waited for.",
)
@concurrency_option
@grace_option
@store_option
def recover(
    flows: Flows, group: str, lease: float, concurrency: int, grace: float, url: str
) -> None:
    """Act on what is due: fire delays and timeouts, retry what failed, and go on with what was
    left running by a process that died.

    One process of a --group leads and acts on its flows, the others stand by. Processes of one
    group have the same flows. Start at least two, on any machine that reaches the store: when the
    leader dies, another takes over once its --lease has run out; when it is stopped, at once.

    Who leads, and what was done, is told on stderr. SIGINT (Ctrl-C) or SIGTERM hands over to
    another process and lets running flows finish; the exit code is then 0. A second one stops at
    once.

    \b
    Examples:
      flowstate recover --flows orders.py:flows --store sqlite:///orders.db
      flowstate recover --flows shop.mail:flows --group mail --lease 5
    """

    async def serve() -> int:
        async with (
            connect(with_access(url, Access.CHANGE)) as driver,
            Engine(driver, flows, grace=grace) as engine,
        ):
            report = _Report(group)
            recoverer = Recoverer(
                engine, group, lease=lease, concurrency=concurrency, tell=report.tell
            )
            with (
                interruptible(report.drain, "Stopped at once; what was running goes on elsewhere."),
                _logged(),
            ):
                _say(f"{recoverer.name} is here for group {group!r}, with {_flows(flows)}")
                async with anyio.create_task_group() as reports:
                    async with recoverer:
                        reports.start_soon(report.leaders, engine)
                        reports.start_soon(report.progress, recoverer)
                        await report.ended.wait()
                    reports.cancel_scope.cancel()
                report.total(recoverer.stats())
        return 0

    leave(run_async(serve))


@define(eq=False)
class _Report:
    """Prints who leads a group, and what this recoverer did."""

    group: str
    ended: anyio.Event = field(factory=anyio.Event, init=False)
    _reported: Stats | None = field(default=None, init=False)
    """The counts as they were last reported."""

    def drain(self, signal_name: str) -> None:
        _say(f"{signal_name}: handing over; running flows may finish (again: stop at once)")
        self.ended.set()

    def tell(self, event: Event, term: int) -> None:
        if event is Event.DEPOSED:
            _say(f"term {term} of group {self.group!r} was lost to another process")
        elif event is Event.TRUST_ENDED:
            _say(f"term {term} of group {self.group!r} could not be renewed in time; standing by")

    async def leaders(self, engine: Engine) -> None:
        watcher = engine.watch(Query(id=f"{PREFIX}{self.group}", latest=True))
        async for state in Readable().of(watcher):
            leader = state.labels.get("leader")
            if leader:
                _say(f"{leader} leads group {self.group!r}, term {state.rev}")
            else:
                _say(f"nobody leads group {self.group!r}: {state.transition.reason}")

    async def progress(self, recoverer: Recoverer) -> None:
        """Report what was done since the last report, if anything was."""
        while True:
            await anyio.sleep(REPORT_S)
            self._report(recoverer.stats())

    def total(self, stats: Stats) -> None:
        _say(f"left group {self.group!r}; in all: {_done(stats) or 'nothing was due'}")

    def _report(self, stats: Stats) -> None:
        done = _done(stats, self._reported)
        self._reported = stats
        if done:
            late = f", the last alarm {stats.late_ms} ms late" if stats.fired else ""
            _say(f"{done}; {stats.running:,} running{late}")


COUNTS = ("fired", "retried", "taken_over", "gave_up", "lost_races", "errors")


def _done(stats: Stats, before: Stats | None = None) -> str:
    """The counts that have grown since *before*, as text; empty if none has."""
    now, then = asdict(stats), asdict(before) if before else {}
    grown = {name: now[name] - then.get(name, 0) for name in COUNTS}
    return ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in grown.items() if count
    )


def _flows(flows: Flows) -> str:
    names = sorted(flow.name for flow in flows)
    return f"flow{'' if len(names) == 1 else 's'} {', '.join(names) or 'none'}"


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
