"""``flowstate bench``: the same workloads on any store, and how two runs differ."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import click
from msgspec.structs import replace

from flowstate import FlowstateError
from flowstate.bench import (
    FULL,
    QUICK,
    WORKLOADS,
    BenchError,
    Change,
    Effort,
    Run,
    Runner,
    compare,
    decode,
    encode,
    got_worse,
    sites_of,
)

from . import bench_table, output
from .bench_screen import BenchScreen
from .screen import Screen
from .signals import INTERRUPTED

STORES = ("memory:", "sqlite:///bench.db")
"""The stores that are measured if none is named; nothing is left of them afterwards."""
JSON_FILE = "bench.json"
REPORT_FILE = "report.html"


def _workloads() -> str:
    return "\n".join(
        f"  {name:<13} {workload.facts(FULL).about}" for name, workload in WORKLOADS.items()
    )


@click.command(
    short_help="Measure stores, and compare them.",
    epilog=f"\b\nWorkloads:\n{_workloads()}",
)
@click.option(
    "--store",
    "urls",
    multiple=True,
    metavar="URL",
    help="A store to measure; again for another one. [default: memory: and SQLite here]",
)
@click.option(
    "--workload",
    "names",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    metavar="NAME",
    help="Only this one; again for another one. [default: all]",
)
@click.option("--quick", is_flag=True, help="In a minute: less of everything, and more noise.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1, max=100),
    metavar="N",
    help=f"Rounds of everything. [default: {FULL.rounds}, {QUICK.rounds} with --quick]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Write {JSON_FILE} and, with plots, {REPORT_FILE} to this directory.",
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Say what differs from this earlier run, and fail if something got slower.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="PERCENT",
    help="What got slower by no more than that is no failure, however sure it is.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Show this run instead of measuring.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON, not as tables.")
def bench(
    urls: Sequence[str],
    names: Sequence[str],
    quick: bool,
    rounds: int | None,
    out: Path | None,
    against: Path | None,
    tolerance: float,
    source: Path | None,
    as_json: bool,
) -> None:
    """Measure stores: the same workloads on each, in rounds that take turns, each figure beside
    the raw limit of its store in the same round.

    A store that has states is refused. SQLite is measured in files of its own beside the one that
    is named, so that the same disk is measured, and PostgreSQL in schemas of its own; all of them
    are removed afterwards. FLOWSTATE_STORE is not looked at.

    Ctrl-C ends it with what there is, a second one at once. Use a machine that does nothing else.

    The exit code is 0 if all is well, 1 if a measurement failed or, with --against, something got
    slower beyond the noise or no figure could be compared, and 130 after Ctrl-C.

    \b
    Examples:
      flowstate bench --quick
      flowstate bench --store sqlite:///a.db --store 'sqlite:///b.db?synchronous=normal'
      flowstate bench --store postgresql:///test --workload commit --workload watch --out results
      flowstate bench --out now --against before/bench.json
    """
    if source and (urls or names or quick or rounds):
        raise click.UsageError("--from shows a run that was made: it takes no --store, --workload, "
                               "--quick or --rounds")  # fmt: skip
    earlier = _read(against) if against else None
    write = _writer(out) if out else None
    if source:
        run = _read(source)
    else:
        effort = QUICK if quick else FULL
        run = _measure(
            urls or STORES,
            names or list(WORKLOADS),
            replace(effort, rounds=rounds or effort.rounds),
        )
    changes = compare(run, earlier, tolerance / 100) if earlier else None
    if write:
        write(run, earlier, changes or ())
    if as_json:
        click.echo(encode(run))
    else:
        bench_table.print_run(output.console(), run)
    if changes is not None and earlier is not None:
        bench_table.print_changes(output.console(stderr=as_json), run, earlier, changes)
    if run.is_interrupted and not source:
        raise SystemExit(INTERRUPTED)
    raise SystemExit(0 if _is_well(run, changes) else 1)


def _is_well(run: Run, changes: Sequence[Change] | None) -> bool:
    """Whether no measurement failed and, if runs are compared, some could be and none got worse."""
    is_as_good = changes is None or (bool(changes) and not got_worse(changes))
    return is_as_good and not any(measurement.has_failed for measurement in run.measurements)


def _read(path: Path) -> Run:
    try:
        return decode(path.read_bytes(), str(path))
    except (BenchError, OSError) as error:
        raise click.ClickException(str(error)) from error


Write: TypeAlias = Callable[[Run, Run | None, Sequence[Change]], None]


def _writer(out: Path) -> Write:
    """A function that writes a run to a directory. That it cannot is found before anything is
    measured, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / JSON_FILE).touch()
    except OSError as error:
        raise click.ClickException(f"cannot write to {out}: {error}") from error
    try:
        from flowstate.bench.report import page  # noqa: PLC0415  (it imports matplotlib)
    except ImportError as error:
        output.warn(
            f"no {REPORT_FILE}: it needs matplotlib ({error}): pip install "
            f"'flowstate-kernel[bench]'. The figures go to {out / JSON_FILE}; draw them later with "
            f"flowstate bench --from {out / JSON_FILE} --out {out}"
        )
        draw = None
    else:
        draw = page

    def write(run: Run, earlier: Run | None, changes: Sequence[Change]) -> None:
        (out / JSON_FILE).write_bytes(encode(run))
        if draw is not None:
            (out / REPORT_FILE).write_text(draw(run, earlier, changes), encoding="utf-8")

    return write


# ---------------------------------------------------------------- measuring


def _measure(urls: Sequence[str], names: Sequence[str], effort: Effort) -> Run:
    try:
        sites = sites_of(urls)
        for site in sites.values():
            site.check()
        with ExitStack() as stack:
            for site in sites.values():
                stack.enter_context(site)
            screen = stack.enter_context(BenchScreen())
            workloads = [WORKLOADS[name] for name in dict.fromkeys(names)]
            runner = Runner(sites, workloads, effort, screen.tell)
            stack.enter_context(_interruptible(runner))
            return runner.run()
    except FlowstateError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _interruptible(runner: Runner) -> Generator[None]:
    """The first SIGINT or SIGTERM ends the run with what there is, the second one at once."""
    asked = False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            Screen.abandon("Stopped at once. What was made to be measured may be left behind.")
            os._exit(INTERRUPTED)
        asked = True
        runner.stop()

    before = [(number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, previous)
