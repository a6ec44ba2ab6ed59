"""``flowstate check``: whether a driver keeps the laws."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

import click

from .loading import LoadError, load_module, split
from .signals import INTERRUPTED, ignore_interrupts
from .verdicts import Verdicts

if TYPE_CHECKING:
    from flowstate.testing import MakeStore, UrlStores

_URL = re.compile(r"[a-z][a-z0-9+.-]*:(//.*)?", re.IGNORECASE)


@click.command(short_help="Prove that a driver keeps the laws.")
@click.argument("target", metavar="URL|MODULE:FACTORY")
@click.option(
    "--law",
    "-k",
    "select",
    multiple=True,
    metavar="LAW",
    help="Only laws with this number (5), or with these words in their heading, name or text; "
    "may be given again.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="LAW",
    help="Leave out the laws that --law would select; may be given again.",
)
@click.option(
    "--machine",
    "examples",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=100,
    metavar="N",
    help="Also try N (100) series of random operations, and compare with a model of a store.",
)
@click.option(
    "--backend",
    "backends",
    type=click.Choice(["asyncio", "trio"]),
    multiple=True,
    help="Only on this event loop.  [default: both]",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a law waits for what must happen.",
)
@click.option(
    "--lacks",
    type=click.Choice(["shared", "processes", "persistent"]),
    multiple=True,
    help="What the store cannot do: several drivers at once, several processes, being reopened.",
)
@click.option("--traceback", is_flag=True, help="Show where each error came from.")
@click.option("--json", "as_json", is_flag=True, help="Print each verdict as a line of JSON.")
def check(
    target: str,
    select: Sequence[str],
    without: Sequence[str],
    examples: int | None,
    backends: Sequence[str],
    patience: float,
    lacks: Sequence[str],
    traceback: bool,
    as_json: bool,
) -> None:
    """Prove that the driver of a store keeps the laws, and give a verdict for each.

    Each law gets a new store. A URL says where they are made: {tmp} stands for a new directory,
    which is removed afterwards, {n} for a new name. A store that is in use is refused, and nothing
    is written to it.

    MODULE:FACTORY (a dotted name, or the path of a .py file) is a subclass of
    flowstate.testing.Store, or a function that gives one, or a driver. If it takes an argument, it
    is given a new directory. Only a Store can be looked into behind the driver's back; without
    one, some laws are not proved, and what is durable is taken to be for several drivers and
    processes at once unless --lacks says otherwise.

    The exit code is 0 if no law is broken, 1 if one is, and 2 if nothing was proved. Needs the
    extra "testing": pip install 'flowstate-kernel[testing]'.

    \b
    Examples:
      flowstate check 'sqlite:///{tmp}/store.db'
      flowstate check my_driver.py:MyStore --machine
      flowstate check my_package.driver:MyDriver --law conflicts --backend trio
      flowstate check memory: --law 5
      flowstate check 'mydb://localhost/check_{n}' --without cost --json
    """
    try:
        from flowstate.testing import (  # noqa: PLC0415  (the extra may be missing)
            Ability,
            NoStoreError,
            NoSuchLawError,
            NotNewError,
            UrlStores,
            prove,
        )
    except ImportError as error:
        raise click.ClickException(str(error)) from error

    try:
        stores = UrlStores(target) if _URL.fullmatch(target) else None
    except ValueError as error:  # StoreUrlError is one
        raise click.BadParameter(str(error), param_hint="URL") from error
    began = time.monotonic()
    with (
        TemporaryDirectory(prefix="flowstate-check-", ignore_cleanup_errors=True) as directory,
        Verdicts(as_json=as_json, with_traceback=traceback) as verdicts,
        _interruptible(verdicts, directory, began),
    ):
        try:
            prove(
                (lambda: stores) if stores is not None else _loader(target),
                select=select,
                leave_out=without,
                backends=backends or ("asyncio", "trio"),
                patience_s=patience,
                examples=examples or 0,
                lacks=[Ability(name) for name in lacks],
                listener=verdicts,
                directory=Path(directory),
            )
        except (LoadError, NoStoreError, NotNewError, NoSuchLawError) as error:
            verdicts.close()
            raise click.UsageError(str(error)) from error
        verdicts.sum_up(time.monotonic() - began, _left_behind(stores))
    raise SystemExit(1 if verdicts.broken else 0)


@contextmanager
def _interruptible(verdicts: Verdicts, directory: str, began: float) -> Generator[None]:
    """SIGINT and SIGTERM end the process at once, with a summary of the laws that were judged.

    An exception would end the law that is being proved, and a verdict would be given for it, or
    end an event loop that is still needed. Nothing is lost: that law has a store of its own.
    """

    def end() -> None:
        verdicts.sum_up(time.monotonic() - began, is_whole=False)
        verdicts.close()
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(INTERRUPTED)

    def handle(number: int, frame: FrameType | None) -> None:
        ignore_interrupts()
        verdicts.end_with(end)

    before = [(number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, previous)


def _loader(reference: str) -> Callable[[], MakeStore]:
    """A function that loads the factory of the stores."""

    def load() -> MakeStore:
        from flowstate.testing import stores_of  # noqa: PLC0415  (the extra may be missing)

        form, examples = "URL or MODULE:FACTORY", "memory: or my_driver.py:MyStore"
        module, name = split(reference, form, examples)
        try:
            return stores_of(attrgetter(name)(load_module(module)))
        except AttributeError:
            raise LoadError(f"{module} has no {name!r}") from None

    return load


def _left_behind(stores: UrlStores | None) -> str:
    return stores.left_behind if stores is not None else ""
