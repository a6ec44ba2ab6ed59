"""``flowstate hold | release``: no worker of a store begins with a flow, until it is released."""

from __future__ import annotations

import click

from . import output
from .store import Access, opened, run_async, store_option


@click.command(short_help="Have no worker begin with a flow.")
@click.argument("flow")
@click.option("--reason", default="", help="Why, for people; `flowstate status` shows it.")
@store_option
def hold(flow: str, reason: str, url: str) -> None:
    """Hold FLOW in the whole store: no worker begins with a state that is at it, until it is
    released. Held already, it has this reason now.

    What runs goes on to its next commit. What comes to FLOW is ready, and waits without losing an
    attempt; alarms fire as ever. Workers know it within milliseconds.

    \b
    Examples:
      flowstate hold charge --reason "the bank is down" --store sqlite:///orders.db
      flowstate status --json | jq .held
    """

    async def hold_flow() -> None:
        async with opened(url, Access.CHANGE) as engine:
            await engine.hold(flow, reason)

    run_async(hold_flow)
    click.echo(output.plain(f"{flow}: held{f' ({reason})' if reason else ''}"))


@click.command(short_help="Have workers begin with a held flow again.")
@click.argument("flow")
@store_option
def release(flow: str, url: str) -> None:
    """Release FLOW: workers begin with what is ready at it within milliseconds, first in line
    first. That it is not held is said, and no error.

    \b
    Example:
      flowstate release charge
    """

    async def release_flow() -> bool:
        async with opened(url, Access.CHANGE) as engine:
            was_held = flow in await engine.held()
            await engine.release(flow)
            return was_held

    told = "released" if run_async(release_flow) else "was not held"
    click.echo(output.plain(f"{flow}: {told}"))
