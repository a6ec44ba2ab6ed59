"""``flowstate run``: every line of the input becomes a state, and is run until it rests."""

from __future__ import annotations

import time
from functools import partial
from typing import BinaryIO

import click

from flowstate import Engine, Flows

from . import output
from .job import Job
from .lines import total_size
from .loading import FlowsParam
from .options import grace_option
from .screen import Screen
from .signals import INTERRUPTED, interruptible, leave
from .store import Access, driver_of, run_async, store_option


@click.command(short_help="Run flows over lines of JSON.")
@click.argument("flows", type=FlowsParam(), metavar="MODULE:FLOWS")
@click.option(
    "--input",
    "file",
    type=click.File("rb"),
    required=True,
    is_eager=True,  # opened before a module of flows may go to another directory
    metavar="FILE.jsonl|-",
    help="Lines of JSON; - is standard input.",
)
@click.option("--start", required=True, metavar="FLOW", help="The flow where each state begins.")
@store_option
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Lines that are run at the same time, and as many other states beside them.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="After a bad line or a flow that raises: take no further line, or go on.",
)
@grace_option
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait for delays and timeouts that are over so long after the last line.",
)
def run(
    flows: Flows,
    file: BinaryIO,
    start: str,
    url: str,
    concurrency: int,
    on_error: str,
    grace: float,
    wait: float,
) -> None:
    """Run the flows FLOWS of MODULE (a dotted name, or the path of a .py file) over lines of JSON.

    A line is an object with an "id" and, if wanted, "labels" and "annotations" (names to strings)
    and "data" (names to any JSON). Each line becomes a state at the flow --start, which is
    committed and run until it rests.

    The id is what makes a line known: running it again begins nothing twice. A state that was left
    running goes on from its newest version; one that ended is counted; one that is paused is left
    as it is.

    It also works: what is ready for its flows is run, whoever submitted or resumed it. And it acts
    on what becomes due: a flow that raised is retried after its backoff, a delay or a timeout that
    is over goes on, and so does what a killed run left running, once its lease has run out. Several
    runs, and `flowstate work`, share all of it.

    The run ends when every state rests. It waits for retries, and for delays and timeouts that are
    over within --wait; what comes later is left for the next run, or for `flowstate work`. It does
    not wait for a state that comes to a flow which is not among FLOWS.

    Ctrl-C takes no new lines and lets running flows finish; a second Ctrl-C stops at once. Nothing
    is lost either way: run it again to go on.

    The exit code is 0 only if every line became a state that ended, and none was given up; 1 if a
    line was rejected, the run stopped at an error, or a state rests without having ended; 130 after
    Ctrl-C.

    \b
    Examples:
      flowstate run orders.py:flows --input orders.jsonl --start charge --store sqlite:///orders.db
      zcat orders.gz | flowstate run shop.orders:flows --input - --start charge --on-error skip
    """
    if start not in flows:
        names = ", ".join(sorted(flow.name for flow in flows)) or "none"
        problem = f"there is no flow {start!r} (flows: {names})"
        raise click.BadParameter(problem, param_hint="--start")

    async def run_job() -> int:
        with Screen(total_size(file.fileno())) as screen:
            async with driver_of(url, Access.CREATE) as driver:
                engine = Engine(driver, flows, grace=grace, max_background=concurrency)
                stop = on_error == "stop"
                job = Job(engine, start, screen, concurrency, int(wait * 1000), stop_on_error=stop)
                began, head = time.monotonic(), await driver.head()
                with interruptible(
                    partial(_drain, job), "Stopped at once. Run the same command again to go on."
                ):
                    await job.run(file.fileno())
                took, commits = time.monotonic() - began, await driver.head() - head
        _print_summary(job, took, commits)
        return _exit_code(job)

    leave(run_async(run_job))


def _drain(job: Job, signal_name: str) -> None:
    job.interrupt()
    states = "state" if job.executing == 1 else "states"
    job.screen.say(
        f"{signal_name}: taking no new lines; the flows of {job.executing} running {states} have "
        f"{job.engine.grace:g} s to finish (again: stop at once)"
    )


def _print_summary(job: Job, took_s: float, commits: int) -> None:
    tally = job.tally
    console = output.console()
    if tally.total:
        console.print(tally.table())
    lines = "line" if tally.total == 1 else "lines"
    transitions = f"{commits:,} transition{'' if commits == 1 else 's'} committed"
    before = f", {tally.ended_before:,} of them before" if tally.ended_before else ""
    rate = f" ({commits / took_s:,.0f}/s)" if took_s else ""
    console.print(
        f"{tally.total:,} {lines}: {tally.ended_well:,} ended well{before}; "
        f"{transitions} in {took_s:,.1f} s{rate}."
    )
    if job.is_interrupted:
        console.print("Interrupted. Run the same command again to go on.")
    elif job.is_stopped:
        console.print("Stopped after an error: no later line was taken (--on-error skip goes on).")


def _exit_code(job: Job) -> int:
    if job.is_interrupted:
        return INTERRUPTED
    return 0 if job.tally.is_well and not job.is_stopped else 1
