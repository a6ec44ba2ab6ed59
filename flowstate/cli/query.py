"""Options that select states."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import click

from flowstate import InvalidValueError, State, Status

from . import output

F = TypeVar("F", bound=Callable[..., object])

OWN_PREFIX = "flowstate."
"""How the ids of flowstate's own states begin; it is refused in all others."""


class Label(click.ParamType["tuple[str, str]"]):
    """``key=value``; the value may hold further equals signs."""

    name = "k=v"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


def label_option(command: F) -> F:
    """``--label k=v``, any number of times."""
    return click.option(
        "--label",
        "labels",
        type=Label(),
        multiple=True,
        callback=_distinct,
        help="Only states with this label. Several: with all of them.",
    )(command)


def status_option(command: F) -> F:
    """``--status NAME``, any number of times."""
    stored = [status.value for status in Status if status is not Status.NEW]
    return click.option(
        "--status",
        "statuses",
        type=click.Choice(stored, case_sensitive=False),
        multiple=True,
        help="Only states in this status. Several: in any of them.",
    )(command)


def failed_option(command: F) -> F:
    """``--failed``"""
    return click.option("--failed", is_flag=True, help="The same as --status failed.")(command)


def flow_option(command: F) -> F:
    """``--flow NAME``, any number of times."""
    return click.option(
        "--flow",
        "flows",
        multiple=True,
        metavar="NAME",
        help="Only states at this flow: they run it, or wait to go on with it. Several: at any of "
        "them.",
    )(command)


def prefix_option(command: F) -> F:
    """``--prefix TEXT``"""
    return click.option(
        "--prefix",
        default="",
        metavar="TEXT",
        help="Only states whose ids begin with this.",
    )(command)


def all_option(command: F) -> F:
    """``--all``"""
    return click.option("--all", "with_own", is_flag=True, help="flowstate's own states too.")(
        command
    )


def is_own(state: State) -> bool:
    """Whether a state is flowstate's own: that of the election, and what is held."""
    return state.id.startswith(OWN_PREFIX)


@contextmanager
def refusing() -> Generator[None]:
    """A query that cannot be is a command that was called wrongly."""
    try:
        yield
    except InvalidValueError as error:
        raise click.UsageError(output.plain(str(error))) from error


def chosen(names: Sequence[str], *, failed: bool = False) -> set[Status]:
    """The statuses that ``--status`` and ``--failed`` ask for; none: all."""
    return {Status(name) for name in [*names, *([Status.FAILED.value] if failed else [])]}


def _distinct(
    ctx: click.Context, param: click.Parameter, given: Sequence[tuple[str, str]]
) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, value in given:
        if labels.setdefault(key, value) != value:
            problem = f"{key!r} is to be {labels[key]!r} and {value!r}; a label has one value"
            raise click.BadParameter(problem, ctx, param)
    return labels
