"""``flowstate ls``: the current version of every state that matches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta

import click

from flowstate import Engine, Query, State

from . import output
from .ages import Age
from .late import Late, late
from .listing import Cell, Listing
from .query import (
    all_option,
    chosen,
    failed_option,
    flow_option,
    is_own,
    label_option,
    prefix_option,
    refusing,
    status_option,
)
from .reading import Readable
from .signals import leave
from .store import Access, opened, run_async, store_option

COLUMNS = ("id", "rev", "status", "flow", "labels", "committed (UTC)", "reason")
LATE_COLUMNS = ("id", "rev", "status", "flow", "labels", "late", "why")


@click.command(short_help="List the states.")
@label_option
@status_option
@failed_option
@flow_option
@prefix_option
@click.option(
    "--late",
    "late_by",
    type=Age(),
    is_flag=False,
    flag_value="1m",
    metavar="[AGE]",
    help="Only what should have gone on more than a minute ago, or so long (30s, 5m, 12h).",
)
@click.option("--newest", is_flag=True, help="The state that moved last comes first.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="No more than that.")
@all_option
@store_option
@output.json_option
def ls(
    labels: Mapping[str, str],
    statuses: Sequence[str],
    failed: bool,
    flows: Sequence[str],
    prefix: str,
    late_by: timedelta | None,
    newest: bool,
    limit: int | None,
    with_own: bool,
    url: str,
    as_json: bool,
) -> None:
    """List the states as they are now; the one that moved last is at the end.

    --late lists what hangs: a state that is RUNNING and has been ready for longer than that,
    without anybody who takes it; one that somebody has taken, whose lease ran out before that; and
    one whose alarm (the end of a delay, or a timeout) was to fire before that. It says of each how
    late it is, and why. All is well if there is none: what is ready is taken within milliseconds
    where a worker has its flow and is not busy, and what is due is acted on within milliseconds
    where somebody leads.

    flowstate's own states, by which the leader is elected and flows are held, are left out unless
    --all is given.

    A version that cannot be read is told on stderr and passed by; the exit code is then 1.

    \b
    Examples:
      flowstate ls --store sqlite:///orders.db
      flowstate ls --label customer=ann --label country=nl
      flowstate ls --failed --newest --limit 20
      flowstate ls --flow charge --prefix order-2026-
      flowstate ls --late
      flowstate ls --late 10m --flow charge
      flowstate ls --status paused --status delayed --json | jq -r .id
    """
    if late_by is not None and newest:
        raise click.UsageError("--late lists what is due first: it takes no --newest.")
    with refusing():
        query = Query(
            labels=labels,
            status=chosen(statuses, failed=failed),
            flow=flows,
            id_prefix=prefix,
            latest=True,
        )
    columns = COLUMNS if late_by is None else LATE_COLUMNS

    def found(engine: Engine, readable: Readable) -> AsyncGenerator[State | Late]:
        if late_by is None:
            return readable.of(engine.states(query, newest_first=newest))
        return late(engine, query, late_by // timedelta(milliseconds=1), readable)

    async def list_states() -> int:
        readable = Readable()
        async with opened(url, Access.READ) as engine, aclosing(found(engine, readable)) as every:
            some = (each async for each in every if with_own or not is_own(_state(each)))
            is_empty = await _print(_first(some, limit), columns, as_json)
        if is_empty and not as_json and not readable.exit_code:
            output.warn("no state matches" if late_by is None else "nothing that matches is late")
        return readable.exit_code

    leave(run_async(list_states))


async def _first(
    states: AsyncIterator[State | Late], limit: int | None
) -> AsyncIterator[State | Late]:
    given = 0
    async for each in states:
        yield each
        given += 1
        if given == limit:
            return


async def _print(found: AsyncIterator[State | Late], columns: Sequence[str], as_json: bool) -> bool:
    """Print them as they come; gives whether there are none."""
    is_empty = True
    with Listing(columns) as listing:
        async for each in found:
            is_empty = False
            if as_json:
                output.print_json(_state(each))
            else:
                listing.add(*_cells(each))
    return is_empty


def _state(found: State | Late) -> State:
    return found.state if isinstance(found, Late) else found


def _cells(found: State | Late) -> Sequence[Cell]:
    state = _state(found)
    transition = state.transition
    last = (
        (output.span(found.ms), output.plain(found.why))
        if isinstance(found, Late)
        else (output.moment(state.committed_at), output.plain(transition.reason))
    )
    return (
        output.plain(state.id),
        str(state.rev),
        output.status_text(output.status_name(state)),
        output.plain(transition.to),
        output.pairs(state.labels),
        *last,
    )
