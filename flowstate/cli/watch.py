"""``flowstate watch``: every change as it comes."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterable, Mapping, Sequence

import anyio
import click
from anyio import CancelScope
from rich.console import Console
from rich.text import Text

from flowstate import CompactedError, Query, State

from . import output
from .query import (
    all_option,
    chosen,
    flow_option,
    is_own,
    label_option,
    prefix_option,
    refusing,
    status_option,
)
from .reading import Readable
from .signals import leave
from .store import Access, opened, run_async, store_option


@click.command(short_help="Print every change as it comes.")
@label_option
@status_option
@flow_option
@prefix_option
@click.option("--id", default="", metavar="ID", help="Only this state.")
@click.option(
    "--leaving",
    is_flag=True,
    help="Also every version with which a state leaves what is asked for.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    metavar="REV",
    help="Begin after this revision (0: with the whole history) instead of now.",
)
@all_option
@store_option
@output.json_option
def watch(
    labels: Mapping[str, str],
    statuses: Sequence[str],
    flows: Sequence[str],
    prefix: str,
    id: str,
    leaving: bool,
    after: int | None,
    with_own: bool,
    url: str,
    as_json: bool,
) -> None:
    """Print every change as it comes, until Ctrl-C.

    It ends by saying the revision up to which it has seen everything: --after that revision goes
    on there, and nothing is lost or repeated. flowstate's own state, by which the leader is
    elected, is left out unless --all is given. A version that cannot be read is told on stderr and
    passed by; the exit code is then 1.

    With --label, --status and --flow it prints the versions that match. That a state is as asked
    for no longer is said with --leaving: each line then says whether the version matches or leaves,
    and with --json it is {"leaves": false, "state": {...}}, or true. That compaction removes
    a state is no leaving.

    \b
    Examples:
      flowstate watch --store sqlite:///orders.db
      flowstate watch --label customer=ann --after 0
      flowstate watch --id order-1
      flowstate watch --prefix order- --status failed
      flowstate watch --flow charge --status paused --leaving
      flowstate watch --json --after 1200 | jq -c '{id, status: .transition.status}'
    """
    with refusing():
        query = Query(
            labels=labels,
            id=id,
            id_prefix=prefix,
            status=chosen(statuses),
            flow=flows,
            from_now=after is None,
            leaving=leaving,
        )
    readable = Readable()

    async def print_changes() -> int:
        # around all else, for a second signal may come while the store is being closed
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await print_until(signals)
        return readable.exit_code

    async def print_until(signals: AsyncIterable[signal.Signals]) -> None:
        async with (
            opened(url, Access.READ) as engine,
            engine.watch(query, after=after) as watcher,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_cancel_on, signals, tasks.cancel_scope)
            output.warn(f"watching after revision {watcher.rev} (Ctrl-C ends)")
            try:
                await _print(readable.of(watcher), query, with_own, as_json)
            except CompactedError as error:
                raise click.ClickException(
                    f"history after revision {error.after} was compacted: --after "
                    f"{error.oldest - 1} leaves out what is gone, and `flowstate ls` shows what is "
                    "current"
                ) from error
            except anyio.get_cancelled_exc_class():
                # all that the watcher gave is printed: it is cancelled only while it waits
                output.warn(f"go on with --after {watcher.rev}")
                raise

    leave(run_async(print_changes))


async def _print(
    versions: AsyncIterable[State], query: Query, with_own: bool, as_json: bool
) -> None:
    console = output.console()
    async for state in versions:
        if is_own(state) and not with_own:
            continue
        leaves = query.leaving and not query.matches(state)
        if not as_json:
            mark = ("leaves   " if leaves else "matches  ") if query.leaving else ""
            _print_line(console, mark, state)
        elif query.leaving:
            output.print_json({"leaves": leaves, "state": state})
        else:
            output.print_json(state)


def _print_line(console: Console, mark: str, state: State) -> None:
    transition = state.transition
    at = f" at {output.plain(transition.to)}" if transition.to else ""
    reason = f": {output.plain(transition.reason)}" if transition.reason else ""
    line = Text.assemble(
        (f"{output.moment(state.committed_at)} {state.rev:>8}  {mark}", "dim"),
        (output.plain(state.id), "bold"),
        "  ",
        output.status_text(output.status_name(state)),
        f"{at}{reason}  ",
        output.pairs(state.labels),
    )
    line.rstrip()
    console.print(line, soft_wrap=True)


async def _cancel_on(signals: AsyncIterable[signal.Signals], scope: CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
