"""The form of the output: tables for people, lines of JSON for programs.

Texts from a store cannot control the terminal: they are printed without markup and with control
characters escaped. There are no colours when the output is not a terminal or ``NO_COLOR`` is set,
and nothing is cut or wrapped for a program that reads a pipe.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowstate import Alarm, State, Status

F = TypeVar("F", bound=Callable[..., object])

STATUS_STYLES: Mapping[str, str] = {
    Status.NEW.value: "dim",
    Status.RUNNING.value: "cyan",
    Status.PAUSED.value: "magenta",
    Status.DELAYED.value: "yellow",
    Status.FAILED.value: "red",
    Status.ENDED.value: "green",
    "rejected": "red",
    "unreadable": "red",
}
UNBOUNDED = 100_000
"""How many columns an output has that is no terminal."""
NUMBERS = frozenset({"rev", "states", "term", "due now", "ready", "taken"})
"""The columns of tables that are aligned on the right."""
WHOLE = NUMBERS | {"status", "committed (UTC)", "the soonest (UTC)", "the first waits", "late"}
"""Those whose cells are never wrapped."""


def json_option(command: F) -> F:
    """``--json``"""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print each state as a line of JSON."
    )(command)


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else UNBOUNDED
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def table(*columns: str, title: str | None = None) -> Table:
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in NUMBERS else "left",
            no_wrap=column in WHOLE,
            overflow="fold",
        )
    return made


def print_json(value: object) -> None:
    """A state or a report as a line of JSON; instants are milliseconds since 1970 (UTC)."""
    click.echo(json_text(value))


def json_text(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    if text.isprintable():
        return text
    # JSON takes any character as it is, and some of them control terminals
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def warn(message: str) -> None:
    """Print a line on stderr, so that it does not go to a pipe."""
    click.echo(message, err=True)


# ---------------------------------------------------------------- parts of a state


def status_name(state: State) -> str:
    return state.transition.status.value


def status_text(name: str) -> Text:
    return Text(name, style=STATUS_STYLES[name])


def plain(text: str) -> str:
    """*text* on one line, unable to control a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def pairs(mapping: Mapping[str, str], separator: str = "  ") -> Text:
    """``key=value`` for each item of a mapping, the keys dimmed."""
    parts = (
        Text.assemble((f"{plain(key)}=", "dim"), plain(value)) for key, value in mapping.items()
    )
    return Text(separator).join(parts)


def moment(instant_ms: int) -> str:
    """An instant for people, UTC."""
    return f"{datetime.fromtimestamp(instant_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def exact_moment(instant_ms: int) -> str:
    """An instant for people, UTC, to the millisecond."""
    return f"{moment(instant_ms)}.{instant_ms % 1000:03}"


def alarm(alarm: Alarm) -> str:
    """When an alarm fires, and the flow that it leads to."""
    return f"{exact_moment(alarm.at)} UTC, to {plain(alarm.to)}"


def span(ms: int) -> str:
    """A duration for people."""
    for unit, size in _SPANS:
        if ms >= size:
            return f"{ms / size:,.1f} {unit}"
    return f"{ms} ms"


def presence(is_there: bool | None) -> str:
    """Whether somebody is there, for people."""
    return "not known" if is_there is None else "there" if is_there else "dead"


def lease(until: int | None, now: int) -> str:
    """When a lease ends, for people."""
    if until is None:
        return "without a lease: nobody else may take it"
    if until <= now:
        return f"its lease ran out {span(now - until)} ago"
    return f"lease ends in {span(until - now)}"


def size(octets: int) -> str:
    """A number of bytes for people."""
    if octets < _KB:
        return f"{octets} B"
    return f"{octets / _KB:.1f} kB" if octets < _MB else f"{octets / _MB:.1f} MB"


_SPANS = (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_KB, _MB = 1_000, 1_000_000
