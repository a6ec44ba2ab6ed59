"""``flowstate ls``: the current version of every state that matches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import click
from rich.table import Table

from flowstate import Query, State, Status

from . import output
from .query import all_option, is_own, label_option, prefix_option, status_option
from .reading import Readable
from .signals import leave
from .store import Access, opened, run_async, store_option

MAX_ROWS = 1_000
"""How many states are in a table. A longer list is several tables, so as not to fill the memory."""


@click.command(short_help="List the states.")
@label_option
@status_option
@prefix_option
@all_option
@store_option
@output.json_option
def ls(
    labels: Mapping[str, str],
    statuses: Sequence[str],
    prefix: str,
    with_own: bool,
    url: str,
    as_json: bool,
) -> None:
    """List the states as they are now; the one that moved last is at the end.

    flowstate's own state, by which the leader is elected, is left out unless --all is given.

    A version that cannot be read is told on stderr and passed by; the exit code is then 1.

    \b
    Examples:
      flowstate ls --store sqlite:///orders.db
      flowstate ls --label customer=ann --label country=nl
      flowstate ls --prefix order-2026-
      flowstate ls --status paused --status delayed --json | jq -r .id
    """
    query = Query(
        labels=labels,
        status=[Status(name) for name in statuses],
        id_prefix=prefix,
        latest=True,
    )

    async def list_states() -> int:
        readable = Readable()
        async with opened(url, Access.READ) as engine:
            found = readable.of(engine.states(query))
            states = (state async for state in found if with_own or not is_own(state))
            is_empty = await (_print_json if as_json else _print_tables)(states)
        if is_empty and not as_json and not readable.exit_code:
            output.warn("no state matches")
        return readable.exit_code

    leave(run_async(list_states))


async def _print_json(states: AsyncIterator[State]) -> bool:
    """Gives whether there are none."""
    is_empty = True
    async for state in states:
        is_empty = False
        output.print_json(state)
    return is_empty


async def _print_tables(states: AsyncIterator[State]) -> bool:
    """Gives whether there are none."""
    console = output.console()
    table = _table()
    is_empty = True
    async for state in states:
        is_empty = False
        _add(table, state)
        if table.row_count == MAX_ROWS:
            console.print(table)
            table = _table()
    if table.row_count:
        console.print(table)
    return is_empty


def _table() -> Table:
    return output.table("id", "rev", "status", "flow", "labels", "committed (UTC)", "reason")


def _add(table: Table, state: State) -> None:
    transition = state.transition
    table.add_row(
        output.plain(state.id),
        str(state.rev),
        output.status_text(output.status_name(state)),
        output.plain(transition.to),
        output.pairs(state.labels),
        output.moment(state.committed_at),
        output.plain(transition.reason),
    )
