"""``flowstate forget``: remove the content of data of a state, and keep its history."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from flowstate import Forgotten

from . import output
from .signals import leave
from .store import Access, opened, run_async, store_option


@click.command(short_help="Remove the content of what a state carries.")
@click.argument("id")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@store_option
def forget(id: str, names: Sequence[str], yes: bool, url: str) -> None:
    """Remove the content of the data NAME... of the state ID, in every version of it, also if it
    has ended. This is final.

    Its history stays, with the size and the checksum of what is gone; whoever reads the content is
    told that it was forgotten. Other states may refer to the same content, because they were given
    it: it is gone for them too, and the command says how many they are. If a NAME is in no version
    of the state, nothing is forgotten.

    \b
    Examples:
      flowstate forget order-1 address --store sqlite:///orders.db
      flowstate forget order-1 address receipt --yes
    """
    if not yes:
        _ask(id, names)

    async def forget_data() -> Forgotten:
        async with opened(url, Access.CHANGE) as engine:
            return await engine.forget(id, *names)

    forgotten = run_async(forget_data)
    line = f"{id}: {_count(forgotten.payloads, 'payload')} forgotten"
    if forgotten.states:
        has = "has" if forgotten.states == 1 else "have"
        line += f"; {_count(forgotten.states, 'other state')} {has} lost the same"
    click.echo(output.plain(line))
    leave(0)


def _ask(id: str, names: Sequence[str]) -> None:
    """Have the user confirm it; the command ends otherwise."""
    if not sys.stdin.isatty():
        raise click.UsageError("This is final: --yes says that it is meant.")
    data = output.plain(", ".join(names))
    question = f"Forget {data} in every version of {output.plain(id)}? This is final."
    click.confirm(question, abort=True, err=True)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
