"""``flowstate count``: how many states match, by status or flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import click
from msgspec.structs import replace

from flowstate import Engine, Query

from . import output
from .query import (
    OWN_PREFIX,
    all_option,
    chosen,
    failed_option,
    flow_option,
    label_option,
    prefix_option,
    refusing,
    status_option,
)
from .signals import leave
from .store import Access, opened, run_async, store_option


@click.command(short_help="Count the states.")
@label_option
@status_option
@failed_option
@flow_option
@prefix_option
@click.option(
    "--by",
    type=click.Choice(["status", "flow"]),
    default="status",
    show_default=True,
    help="What they are counted by.",
)
@all_option
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one line of JSON.")
def count(
    labels: Mapping[str, str],
    statuses: Sequence[str],
    failed: bool,
    flows: Sequence[str],
    prefix: str,
    by: Literal["status", "flow"],
    with_own: bool,
    url: str,
    as_json: bool,
) -> None:
    """Count the states as they are now, by status or by the flow that they are at.

    A state that has ended is at no flow. flowstate's own states, by which the leader is elected and
    flows are held, are left out unless --all is given. What cannot be read is counted as far as can
    be told.

    \b
    Examples:
      flowstate count --store sqlite:///orders.db
      flowstate count --failed --by flow
      flowstate count --label customer=ann --status paused
      flowstate count --json | jq .failed
    """
    with refusing():
        query = Query(
            labels=labels,
            status=chosen(statuses, failed=failed),
            flow=flows,
            id_prefix=prefix,
            latest=True,
        )

    async def count_states() -> Counter[str]:
        async with opened(url, Access.READ) as engine:
            if with_own:
                return Counter(await engine.count(query, by))
            return await count_others(engine, query, by)

    counts = run_async(count_states)
    if as_json:
        output.print_json(dict(counts.most_common()))
    else:
        _print(counts, by)
    leave(0)


async def count_others(engine: Engine, query: Query, by: Literal["status", "flow"]) -> Counter[str]:
    """How many states match, without flowstate's own."""
    counts = Counter(await engine.count(query, by))
    if OWN_PREFIX.startswith(query.id_prefix):
        query = replace(query, id_prefix=OWN_PREFIX)
    if query.id_prefix.startswith(OWN_PREFIX):
        counts -= Counter(await engine.count(query, by))
    return counts


def _print(counts: Counter[str], by: Literal["status", "flow"]) -> None:
    if not counts:
        output.warn("no state matches")
        return
    table = output.table(by, "states")
    for name, states in counts.most_common():
        shown = output.status_text(name) if by == "status" else output.plain(name) or "(none)"
        table.add_row(shown, f"{states:,}")
    output.console().print(table)
    total = counts.total()
    click.echo(f" {total:,} state{'' if total == 1 else 's'}")
