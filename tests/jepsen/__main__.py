"""``python -m tests.jepsen``: attack stores, and say what it came to. Exit code 1: a promise was
broken; the notes are kept then."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import click
from rich.console import Console
from rich.table import Table

from .attack import Attack, Result
from .stores import STORES, CannotBeMadeError


@click.command()
@click.option(
    "--store",
    "stores",
    multiple=True,
    type=click.Choice(list(STORES)),
    help="Which store; may be given several times. [default: all]",
)
@click.option("--minutes", default=1.0, show_default=True, help="How long each is attacked.")
@click.option("--rounds", default=1, show_default=True, help="How often, each time anew.")
@click.option("--seed", default=None, type=int, help="The first seed. [default: the time]")
def main(stores: tuple[str, ...], minutes: float, rounds: int, seed: int | None) -> None:
    """Attack stores with processes that are killed and stopped, and judge what they were told."""
    console, first = Console(), int(time.time()) if seed is None else seed
    is_broken = False
    for name in stores or tuple(STORES):
        for number in range(rounds):
            folder = Path(tempfile.mkdtemp(prefix=f"jepsen-{name}-"))
            folder.chmod(0o755)
            with console.status(f"{name}: {minutes:g} min, seed {first + number}") as status:

                def tell(blow: str, name: str = name) -> None:
                    status.update(f"{name}: {blow}")

                try:
                    result = _attack(name, folder, minutes * 60, first + number, tell)
                except CannotBeMadeError as error:
                    raise click.ClickException(str(error)) from None
            _print(console, f"{name}, seed {first + number}", result)
            if result.problems:
                is_broken = True
                console.print(f"The notes are in {folder}", style="bold", soft_wrap=True)
            else:
                shutil.rmtree(folder)
    sys.exit(is_broken)


def _attack(
    name: str, folder: Path, seconds: float, seed: int, tell: Callable[[str], None]
) -> Result:
    with STORES[name](folder) as target:
        return anyio.run(Attack(target, folder, seconds, seed=seed, tell=tell).run)


def _print(console: Console, title: str, result: Result) -> None:
    table = Table("what", "how many", title=title)
    table.columns[1].justify = "right"
    for what, figure in result.figures.items():
        table.add_row(what, f"{figure:,}")
    console.print(table)
    for problem in result.problems[:50]:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    broken = len(result.problems)
    console.print(f"{broken} broken promises" if broken else "Every promise was kept.")


if __name__ == "__main__":
    main()
