"""``flowstate show``: one state, as it is or with all its versions."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator

import click
from msgspec.structs import asdict
from rich.table import Table
from rich.text import Text

from flowstate import Data, DataRef, Engine, Query, State, Status, UnreadableVersionError
from flowstate.leases import name_of

from . import output
from .changes import changes
from .reading import Readable
from .signals import leave
from .store import Access, opened, run_async, store_option


@click.command(short_help="Show one state, or its whole history.")
@click.argument("id")
@click.option(
    "--history", is_flag=True, help="Every version, with what changed from one to the next."
)
@store_option
@output.json_option
def show(id: str, history: bool, url: str, as_json: bool) -> None:
    """Show the state ID as it is now, or how it came to be.

    While it is RUNNING, its place says whether it is ready, for whoever works and has its flow, or
    taken, by whom, and whether that one is there, if the store can tell; and whether its flow is
    held.

    \b
    Examples:
      flowstate show order-1 --store sqlite:///orders.db
      flowstate show order-1 --history
      flowstate show order-1 --json | jq .transition
    """

    async def show_state() -> int:
        readable = Readable()
        async with opened(url, Access.READ) as engine:
            try:
                state = await engine.get(id)
            except UnreadableVersionError as error:
                readable.tell(error)
                state = None
            if history:
                versions = engine.states(Query(id=id))
                await (_print_versions if as_json else _print_history)(readable.of(versions))
                if versions.compacted:
                    output.warn(
                        f"history was compacted: of what was before revision "
                        f"{versions.compacted + 1}, versions may be missing"
                    )
            elif state is not None and as_json:
                output.print_json(state)
            elif state is not None:
                _print_detail(state, await _place(engine, state))
        return readable.exit_code

    leave(run_async(show_state))


async def _place(engine: Engine, state: State) -> str:
    """Where a RUNNING state stands: ready, or taken by somebody. Empty if it rests."""
    if state.transition.status is not Status.RUNNING:
        return ""
    place = await engine.timers.place(state.id)
    now = engine.clock.now()
    if place is None:
        return ""  # it has moved meanwhile
    if place.since is None:
        is_there = (await engine.timers.owners()).get(place.owner)
        known = "" if is_there is None else f" ({output.presence(is_there)})"
        owner = name_of(place.owner) or "nobody known"
        return f"taken by {owner}{known}, {output.lease(place.until, now)}"
    waits = output.span(max(0, now - place.since))
    reason = (await engine.held()).get(state.transition.to)
    hold = "" if reason is None else f", held{reason and f': {reason}'}"
    return f"ready since {output.exact_moment(place.since)} UTC ({waits}){hold}"


async def _print_versions(versions: AsyncIterable[State]) -> None:
    async for version in versions:
        output.print_json(version)


async def _print_history(versions: AsyncIterable[State]) -> None:
    table = output.table("rev", "committed (UTC)", "status", "flow", "what changed")
    before = None
    async for version in versions:
        table.add_row(
            str(version.rev),
            output.exact_moment(version.committed_at),
            output.status_text(output.status_name(version)),
            output.plain(version.transition.to),
            Text("\n").join(changes(before, version)),
        )
        before = version
    output.console().print(table)


def _print_detail(state: State, place: str) -> None:
    console = output.console()
    console.print(_detail(state, place))
    if state.transition.traceback:
        console.print(Text("\ntraceback", style="dim"))
        for line in state.transition.traceback.splitlines():
            console.print(Text(f"  {output.plain(line)}"), soft_wrap=True)


def _detail(state: State, place: str) -> Table:
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(state, place):
        if value:
            grid.add_row(name, value)
    return grid


def _facts(state: State, place: str) -> Iterator[tuple[str, Text | str]]:
    """The names and values of all that a state has, in reading order; a value may be empty."""
    transition = state.transition
    alarm = transition.alarm
    yield "id", Text(output.plain(state.id), style="bold")
    yield "status", output.status_text(output.status_name(state))
    yield "flow", output.plain(transition.to)
    yield "place", output.plain(place)
    yield "reason", output.plain(transition.reason)
    yield "cause", transition.cause.value
    yield "attempt", str(transition.attempt) if transition.attempt else ""
    yield "alarm", output.alarm(alarm) if alarm else ""
    yield "revision", str(state.rev)
    yield "committed", f"{output.exact_moment(state.committed_at)} UTC"
    yield "labels", output.pairs(state.labels, "\n")
    yield "annotations", output.pairs(state.annotations, "\n")
    yield "transition", output.pairs(transition.annotations, "\n")
    yield "data", Text("\n").join(_payload(name, data) for name, data in state.data.items())
    yield "stacked", Text("\n").join(_stacked(name, other) for name, other in state.stacked.items())
    policy = asdict(state.retry) if state.retry else {}
    yield "retry", output.pairs({name: str(value) for name, value in policy.items()})


def _stacked(name: str, other: State) -> Text:
    about = f"{other.id}, {output.status_name(other)}"
    return Text.assemble(output.plain(name), (f"  {output.plain(about)}", "dim"))


def _payload(name: str, data: Data | DataRef) -> Text:
    about = f"{data.content_type}, {output.size(data.size)}, sha256 {data.checksum[:12]}…"
    return Text.assemble(output.plain(name), (f"  {output.plain(about)}", "dim"))
