"""``flowstate cat``: the content of one payload of a state."""

from __future__ import annotations

import sys

import click

from flowstate import DataForgottenError

from . import output
from .signals import leave
from .store import Access, opened, run_async, store_option


@click.command(short_help="Write what a state carries to the standard output.")
@click.argument("id")
@click.argument("name")
@click.option(
    "--rev",
    type=click.IntRange(min=1),
    metavar="REV",
    help="As it was at this revision, in place of now.",
)
@store_option
def cat(id: str, name: str, rev: int | None, url: str) -> None:
    """Write the data NAME of the state ID to the standard output, byte for byte, as it is stored.

    \b
    Examples:
      flowstate cat order-1 receipt --store sqlite:///orders.db > receipt.pdf
      flowstate cat order-1 items | jq length
    """

    async def write() -> None:
        async with opened(url, Access.READ) as engine:
            state = await engine.get(id, rev)
            try:
                content = await engine.data(state, name, type=bytes)
            except DataForgottenError as error:
                problem = f"data {name!r} of state {id!r} was forgotten"
                raise click.ClickException(output.plain(problem)) from error
        sys.stdout.buffer.write(content)

    run_async(write)
    leave(0)
