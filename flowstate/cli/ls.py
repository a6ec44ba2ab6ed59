"""``flowstate ls``: the current version of every state that matches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import click
from rich.table import Table

from flowstate import Query, State, Status

from . import output
from .query import all_option, is_own, label_option, status_option
from .store import Access, opened, run_async, store_option

MAX_ROWS = 1_000
"""How many states are in a table. A longer list is several tables, so as not to fill the memory."""


@click.command(short_help="List the states.")
@label_option
@status_option
@all_option
@store_option
@output.json_option
def ls(
    labels: Mapping[str, str], statuses: Sequence[str], with_own: bool, url: str, as_json: bool
) -> None:
    """List the states as they are now; the one that moved last is at the end.

    flowstate's own states, by which recoverers are elected, are left out unless --all is given.

    \b
    Examples:
      flowstate ls --store sqlite:///orders.db
      flowstate ls --label customer=ann --label country=nl
      flowstate ls --status paused --status delayed --json | jq -r .id
    """
    query = Query(labels=labels, status=[Status(name) for name in statuses], latest=True)

    async def list_states() -> None:
        async with opened(url, Access.READ) as engine:
            await (_print_json if as_json else _print_tables)(
                state async for state in engine.states(query) if with_own or not is_own(state)
            )

    run_async(list_states)


async def _print_json(states: AsyncIterator[State]) -> None:
    async for state in states:
        output.print_json(state)


async def _print_tables(states: AsyncIterator[State]) -> None:
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
    if is_empty:
        output.warn("no state matches")


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
