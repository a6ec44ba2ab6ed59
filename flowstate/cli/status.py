"""``flowstate status``: who leads, what is ready, taken, held and due, and what failed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import click
import msgspec
from rich.table import Table

from flowstate import Due as DueState
from flowstate import Engine, Query, StateNotFoundError, Status, UnreadableVersionError
from flowstate.leases import Holding, name_of
from flowstate.recovery import LEADER_ID

from . import output
from .count import count_others
from .query import is_own
from .reading import Readable
from .signals import leave
from .store import Access, opened, run_async, store_option

Present: TypeAlias = Mapping[str, bool | None]
"""Owner -> whether it is there."""

MAX_COUNTED = 10_000
"""How many due times are looked at, of all flows together."""
LONG_MS = 5_000
"""What is ready for longer, at a flow at which nothing is taken, is said to have no worker; what is
due for longer while nobody leads, that nothing acts on it (ms)."""
AHEAD_MS = 100 * 366 * 86_400_000
"""How far ahead due times are looked for (ms)."""


class Leader(msgspec.Struct, frozen=True):
    """Who acts on what is due. If nobody does, ``leader`` is empty and ``term`` is 0."""

    leader: str
    term: int
    is_overdue: bool
    """Whether the leader's lease has run out: it died, and no other one has taken over yet."""
    is_there: bool | None
    """Whether its process is there; null if nobody can tell, or nobody leads."""
    reason: str


class Line(msgspec.Struct, frozen=True):
    """What is RUNNING at a flow: ready for whoever works, or taken."""

    flow: str
    ready: int
    """How many states are ready."""
    since: int | None
    """Since when the first in line is ready, in ms since 1970 (UTC); null if nothing is."""
    waits_ms: int
    """How long that is."""
    taken: int
    """How many states somebody runs."""
    has_no_worker: bool
    """Whether the first in line is ready for some seconds, and nothing is taken at this flow, which
    is not held."""


class Held(msgspec.Struct, frozen=True):
    """A flow that no worker begins with until it is released."""

    flow: str
    reason: str


class Owner(msgspec.Struct, frozen=True):
    """Who has taken something: an engine."""

    owner: str
    states: int
    lease_ends: int | None
    """When the first of its leases ends, in ms since 1970 (UTC); null if it has none."""
    is_overdue: bool
    """Whether that is over: it died or hangs, and nobody has acted on it yet."""
    is_there: bool | None
    """Whether its process is there; null if nobody can tell."""


class Due(msgspec.Struct, frozen=True):
    """The due times of a flow: alarms that lead to it, and leases of states that are at it."""

    flow: str
    due: int
    """How many states are due now, if all flows together have no more than 10,000."""
    next_due: int
    """The soonest due time, in ms since 1970 (UTC); it may be over."""
    late_ms: int
    """How long the soonest due time is over; 0 if it is still to come."""


class Failed(msgspec.Struct, frozen=True):
    """The states that were given up at a flow, and that nobody has moved since."""

    flow: str
    states: int


class Report(msgspec.Struct, frozen=True):
    """All of it, as ``--json`` prints it."""

    leader: Leader | None
    """null: nobody ever led."""
    flows: Sequence[Line]
    held: Sequence[Held]
    owners: Sequence[Owner]
    due: Sequence[Due]
    failed: Sequence[Failed]


@click.command(short_help="Show who leads and works, what is ready, held and due, and what failed.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print it as one line of JSON.")
def status(url: str, as_json: bool) -> None:
    """Show who leads; for each flow, how much is ready and for how long the first in line; who has
    taken how much, and whether they are there; which flows are held; what is due, and how late; and
    how many states failed.

    What is ready is taken within milliseconds by a worker that has the flow and is not busy, and
    what is due is acted on within milliseconds while somebody leads. What has failed rests until
    somebody moves it: `flowstate ls --failed` lists it, `flowstate retry --status failed` lets it
    run again. `flowstate ls --late` lists what hangs.

    A version that is due and cannot be read is told on stderr; the exit code is then 1.

    \b
    Examples:
      flowstate status --store sqlite:///orders.db
      flowstate status --json | jq '[.flows[].waits_ms] | max'
    """

    async def show_status() -> int:
        readable = Readable()
        async with opened(url, Access.READ) as engine:
            holdings = [each for each in await engine.timers.holdings() if each.id != LEADER_ID]
            present = await engine.timers.owners()
            held = await _held(engine, readable)
            report = Report(
                await _leader(engine, readable, present),
                await _flows(engine, holdings, held),
                [Held(flow, reason) for flow, reason in sorted(held.items())],
                _owners(holdings, present, engine.clock.now()),
                await _due(engine, readable),
                await _failed(engine),
            )
            now = engine.clock.now()
        if as_json:
            output.print_json(report)
        else:
            _print(report, now)
        return readable.exit_code

    leave(run_async(show_status))


async def _leader(engine: Engine, readable: Readable, present: Present) -> Leader | None:
    try:
        state = await engine.get(LEADER_ID)
    except StateNotFoundError:
        return None
    except UnreadableVersionError as error:
        readable.tell(error)
        reason = "the state of the election cannot be read"
        return Leader("", 0, is_overdue=False, is_there=None, reason=reason)
    place = await engine.timers.place(LEADER_ID)
    leads = state.transition.status is Status.RUNNING
    until = None if place is None else place.until
    return Leader(
        leader=state.labels.get("leader", "") if leads else "",
        term=state.rev if leads else 0,
        is_overdue=leads and until is not None and until <= engine.clock.now(),
        is_there=None if place is None else present.get(place.owner),
        reason=state.transition.reason,
    )


async def _held(engine: Engine, readable: Readable) -> Mapping[str, str]:
    try:
        return await engine.held()
    except UnreadableVersionError as error:
        readable.tell(error)
        return {}


async def _flows(
    engine: Engine, holdings: Collection[Holding], held: Collection[str]
) -> Sequence[Line]:
    line = await engine.timers.line()
    taken = Counter(holding.flow for holding in holdings)
    query = Query(status=Status.RUNNING, latest=True)
    running = await count_others(engine, query, "flow") if line else Counter[str]()
    now = engine.clock.now()
    found: list[Line] = []
    for flow in sorted({*line, *taken}):
        since = line.get(flow)
        waits = 0 if since is None else max(0, now - since)
        has_no_worker = waits >= LONG_MS and not taken[flow] and flow not in held
        # what the line has, and the count has not, was committed in between
        count = 0 if since is None else max(1, running[flow] - taken[flow])
        found.append(Line(flow, count, since, waits, taken[flow], has_no_worker))
    return sorted(found, key=lambda line: -line.waits_ms)


def _owners(holdings: Collection[Holding], present: Present, now: int) -> Sequence[Owner]:
    by_owner: defaultdict[str, list[Holding]] = defaultdict(list)
    for holding in holdings:
        by_owner[holding.place.owner].append(holding)
    found: list[Owner] = []
    for owner, held in sorted(by_owner.items()):
        ends = min((each.place.until for each in held if each.place.until), default=None)
        is_overdue = ends is not None and ends <= now
        found.append(Owner(name_of(owner), len(held), ends, is_overdue, present.get(owner)))
    return found


async def _due(engine: Engine, readable: Readable) -> Sequence[Due]:
    now = engine.clock.now()
    page = await engine.driver.due(now + AHEAD_MS, MAX_COUNTED)
    readable.pass_by(page.unreadable)
    times: defaultdict[str, list[int]] = defaultdict(list)
    for due in page.due:
        if not is_own(due.state):
            times[_flow_of(due)].append(due.at)
    return [
        Due(flow, sum(at <= now for at in ats), ats[0], max(0, now - ats[0]))
        for flow, ats in times.items()  # the soonest comes first
    ]


def _flow_of(due: DueState) -> str:
    """The flow that an alarm leads to, or at which a lease ends."""
    transition = due.state.transition
    alarm = transition.alarm
    return alarm.to if alarm is not None and alarm.at == due.at else transition.to


async def _failed(engine: Engine) -> Sequence[Failed]:
    counts = await count_others(engine, Query(status=Status.FAILED, latest=True), "flow")
    return [Failed(flow, states) for flow, states in counts.most_common()]


# ---------------------------------------------------------------- for people


def _print(report: Report, now: int) -> None:
    console = output.console()
    console.print(_about_leader(report))
    if report.flows:
        console.print(_flow_table(report.flows))
    else:
        console.print("nothing is ready, and nothing runs")
    if report.held:
        console.print(_held_table(report.held))
    if report.owners:
        console.print(_owner_table(report.owners, now))
    if report.due:
        console.print(_due_table(report.due, now))
    else:
        console.print("nothing is or will be due")
    if report.failed:
        console.print(_failed_table(report.failed))


def _about_leader(report: Report) -> str:
    """Who leads. If nobody does, others may act even so: an engine on what it has taken, a run of
    the command line as soon as something is due. So what waits is told, and no more."""
    leader = report.leader
    if leader is None:
        text = "nobody ever led"
    elif not leader.leader:
        text = f"nobody leads: {leader.reason}"
    elif leader.is_overdue:
        text = f"nobody leads: the lease of {leader.leader}, term {leader.term}, ran out"
    elif leader.is_there is False:
        text = f"nobody leads: {leader.leader}, term {leader.term}, has died"
    else:
        return output.plain(f"{leader.leader} leads, term {leader.term}")
    late_ms = max((flow.late_ms for flow in report.due), default=0)
    if late_ms >= LONG_MS:
        text += f"; nothing has acted on what is due for {output.span(late_ms)}"
    return output.plain(text)


def _flow_table(flows: Sequence[Line]) -> Table:
    table = output.table("flow", "ready", "the first waits", "taken", "")
    for flow in flows:
        table.add_row(
            output.plain(flow.flow),
            f"{flow.ready:,}",
            "" if flow.since is None else output.span(flow.waits_ms),
            f"{flow.taken:,}",
            "no worker has it?" if flow.has_no_worker else "",
        )
    return table


def _held_table(flows: Sequence[Held]) -> Table:
    table = output.table("held", "reason")
    for flow in flows:
        table.add_row(output.plain(flow.flow), output.plain(flow.reason))
    return table


def _owner_table(owners: Sequence[Owner], now: int) -> Table:
    table = output.table("taken by", "states", "the soonest", "is")
    for owner in owners:
        table.add_row(
            output.plain(owner.owner) or "somebody unknown",
            f"{owner.states:,}",
            output.lease(owner.lease_ends, now),
            output.presence(owner.is_there),
        )
    return table


def _due_table(flows: Sequence[Due], now: int) -> Table:
    is_cut = sum(flow.due for flow in flows) >= MAX_COUNTED
    title = f"only the first {MAX_COUNTED:,} that are due are counted" if is_cut else None
    table = output.table("flow", "due now", "the soonest (UTC)", "", title=title)
    for flow in flows:
        wait = flow.next_due - now
        table.add_row(
            output.plain(flow.flow),
            f"{flow.due:,}",
            output.exact_moment(flow.next_due),
            f"{output.span(flow.late_ms)} late"
            if flow.late_ms
            else f"in {output.span(max(0, wait))}",
        )
    return table


def _failed_table(flows: Sequence[Failed]) -> Table:
    table = output.table("failed at", "states")
    for flow in flows:
        table.add_row(output.plain(flow.flow), f"{flow.states:,}")
    return table
