"""``flowstate status``: who recovers, and what is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click
import msgspec
from rich.table import Table

from flowstate import Engine, Query, State, Status
from flowstate.recovery import PREFIX

from . import output
from .reading import Readable
from .signals import leave
from .store import Access, opened, run_async, store_option

MAX_COUNTED = 1_000
"""How many due states of a flow are counted; if there are more, only that is said."""
MAX_FAILED = 10_000
"""How many failed states are counted, of all flows together."""


class Group(msgspec.Struct, frozen=True):
    """A group of recoverers. Without a leader, ``leader`` is empty and ``term`` is 0."""

    group: str
    leader: str
    term: int
    is_overdue: bool
    """Whether the leader's lease has run out: it died, and no other one has taken over yet."""
    reason: str


class Due(msgspec.Struct, frozen=True):
    """The due times of a flow: alarms that lead to it, and leases of states that are at it."""

    flow: str
    due: int
    """How many states are due now, counted up to 1,000."""
    next_due: int
    """The soonest due time, in ms since 1970 (UTC); it may be over."""
    late_ms: int
    """How long the soonest due time is over; 0 if it is still to come."""


class Failed(msgspec.Struct, frozen=True):
    """The states that were given up at a flow, and that nobody has moved since."""

    flow: str
    states: int
    """How many there are, if all flows together have no more than 10,000."""


class Report(msgspec.Struct, frozen=True):
    """The groups, the flows and what failed, as ``--json`` prints them."""

    groups: Sequence[Group]
    flows: Sequence[Due]
    failed: Sequence[Failed]


@click.command(short_help="Show who recovers, what is due, and what failed.")
@click.option("--group", default="", metavar="NAME", help="Only this group of recoverers.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print it as one line of JSON.")
def status(group: str, url: str, as_json: bool) -> None:
    """Show who leads each group of recoverers, what is due for each flow, and how late, and how
    many states have failed at each flow.

    What is due is acted on within milliseconds while a recoverer that has the flow leads. So what
    is late for longer has no recoverer, or more work than its recoverers can do. What has failed
    rests until somebody moves it: `flowstate ls --status failed` lists it, `flowstate retry
    --status failed` lets it run again.

    A version that cannot be read is told on stderr and counted nowhere; the exit code is then 1.

    \b
    Examples:
      flowstate status --store sqlite:///orders.db
      flowstate status --json | jq '[.flows[].late_ms] | max'
    """

    async def show_status() -> int:
        readable = Readable()
        async with opened(url, Access.READ) as engine:
            report = Report(
                await _groups(engine, readable, group),
                await _due(engine, readable),
                await _failed(engine, readable),
            )
            now = engine.clock.now()
        if as_json:
            output.print_json(report)
        else:
            _print(report, now)
        return readable.exit_code

    leave(run_async(show_status))


async def _groups(engine: Engine, readable: Readable, name: str) -> Sequence[Group]:
    only = Query(id=f"{PREFIX}{name}", latest=True)
    every = Query(id_prefix=PREFIX, latest=True)
    found = readable.of(engine.states(only if name else every))
    return [await _group(engine, state) async for state in found]


async def _group(engine: Engine, state: State) -> Group:
    leads = state.transition.status is Status.RUNNING
    return Group(
        group=state.id.removeprefix(PREFIX),
        leader=state.labels.get("leader", "") if leads else "",
        term=state.rev if leads else 0,
        is_overdue=leads and bool((await engine.timers.due([state.transition.to], 1)).due),
        reason=state.transition.reason,
    )


async def _due(engine: Engine, readable: Readable) -> Sequence[Due]:
    found: list[Due] = []
    for flow in await engine.timers.due_flows():
        page = await engine.timers.due([flow], MAX_COUNTED)
        readable.pass_by(page.unreadable)
        at = page.due[0].at if page.due else page.next_at
        if at is not None and not flow.startswith(PREFIX):
            late = max(0, engine.clock.now() - at)
            found.append(Due(flow, len(page.due), at, late))
    return sorted(found, key=lambda due: due.next_due)


async def _failed(engine: Engine, readable: Readable) -> Sequence[Failed]:
    counts: Counter[str] = Counter()
    async for state in readable.of(engine.states(Query(status=Status.FAILED, latest=True))):
        counts[state.transition.to] += 1
        if counts.total() == MAX_FAILED:
            break
    return [Failed(flow, states) for flow, states in counts.most_common()]


# ---------------------------------------------------------------- for people


def _print(report: Report, now: int) -> None:
    console = output.console()
    if report.groups:
        console.print(_group_table(report.groups))
    else:
        console.print("no recoverer was ever here: nothing acts on what is due")
    if report.flows:
        console.print(_due_table(report.flows, now))
    else:
        console.print("nothing is or will be due")
    if report.failed:
        console.print(_failed_table(report.failed))


def _group_table(groups: Sequence[Group]) -> Table:
    table = output.table("group", "leader", "term", "about")
    for group in groups:
        about = "its lease ran out; nobody has taken over" if group.is_overdue else group.reason
        table.add_row(
            output.plain(group.group),
            output.plain(group.leader) or "nobody",
            str(group.term) if group.term else "",
            output.plain(about),
        )
    return table


def _due_table(flows: Sequence[Due], now: int) -> Table:
    table = output.table("flow", "due now", "the soonest (UTC)", "")
    for flow in flows:
        wait = flow.next_due - now
        table.add_row(
            output.plain(flow.flow),
            f"{MAX_COUNTED:,} or more" if flow.due == MAX_COUNTED else f"{flow.due:,}",
            output.exact_moment(flow.next_due),
            f"{_span(flow.late_ms)} late" if flow.late_ms else f"in {_span(max(0, wait))}",
        )
    return table


def _failed_table(flows: Sequence[Failed]) -> Table:
    is_cut = sum(flow.states for flow in flows) == MAX_FAILED
    title = f"only the first {MAX_FAILED:,} that failed are counted" if is_cut else None
    table = output.table("failed at", "states", title=title)
    for flow in flows:
        table.add_row(output.plain(flow.flow), f"{flow.states:,}")
    return table


def _span(ms: int) -> str:
    """A duration for people."""
    seconds = ms / 1000
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{ms} ms"


_UNITS = (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
