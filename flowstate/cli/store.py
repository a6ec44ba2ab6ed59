"""The store that a command works on, and how its errors are shown to a person."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, chdir, suppress
from typing import TypeVar, cast

import anyio
import click

from flowstate import Driver, Engine, FlowstateError, connect

from . import output
from .signals import INTERRUPTED

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


WITH_MODE = {"postgres", "postgresql", "sqlite"}
"""The schemes of URLs that have the option ``mode``, since their stores may be missing."""


def _current_directory() -> str | None:
    with suppress(FileNotFoundError):  # it was deleted
        return os.getcwd()  # noqa: PTH109  (the path itself, whatever becomes of it)
    return None


_CALLED_IN = _current_directory()


class Access(enum.Enum):
    """What a command may do to a store, as its ``mode``. Only ``run`` makes a missing one."""

    READ = "ro"
    CHANGE = "rw"
    CREATE = "rwc"


def store_option(command: F) -> F:
    """``--store URL``, or the environment."""
    return click.option(
        "--store",
        "url",
        envvar="FLOWSTATE_STORE",
        show_envvar=True,
        required=True,
        metavar="URL",
        help="The store, e.g. sqlite:///orders.db (four slashes: an absolute path) or "
        "postgresql://user@host/database.",
    )(command)


@asynccontextmanager
async def opened(url: str, access: Access) -> AsyncGenerator[Engine]:
    """An engine on the store, without flows: it reads and records, and runs nothing."""
    async with driver_of(url, access) as driver, Engine(driver) as engine:
        yield engine


def driver_of(url: str, access: Access) -> Driver:
    """The driver of a URL. A relative path in it means the directory in which the command was
    called, wherever a module of flows has gone since."""
    if _CALLED_IN is None:
        return connect(with_access(url, access))
    with chdir(_CALLED_IN):
        return connect(with_access(url, access))


def with_access(url: str, access: Access) -> str:
    """The URL with a ``mode``, so that a mistyped path is an error and not a new empty store.

    A ``mode`` that the URL has already is not changed.
    """
    scheme, _, rest = url.partition(":")
    if scheme not in WITH_MODE or re.search(r"[?&]mode=", rest):
        return url
    return f"{url}{'&' if '?' in url else '?'}mode={access.value}"


def run_async(command: Callable[[], Awaitable[T]]) -> T:
    """Run the body of a command; an error of flowstate is one line, not a traceback. An output that
    nobody reads any more ends it in silence."""
    try:
        return anyio.run(command)
    except BaseException as error:
        cause = _first(error)
        if isinstance(cause, KeyboardInterrupt):
            raise SystemExit(INTERRUPTED) from None
        if isinstance(cause, FlowstateError):
            lines = (output.plain(line) for line in str(cause).splitlines())
            raise click.ClickException("\n".join(lines)) from error
        raise cause from None


def _first(error: BaseException) -> BaseException:
    """The first error of the groups that task groups raise, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error
