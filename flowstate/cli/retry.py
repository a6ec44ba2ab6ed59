"""``flowstate retry``: states that failed or were paused run again."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

import click
from attrs import define, field
from msgspec import Struct
from rich.progress import Progress, SpinnerColumn, TextColumn

from flowstate import (
    Commit,
    Engine,
    IllegalTransitionError,
    InvalidValueError,
    Query,
    Resume,
    RevMismatchError,
    State,
    StateNotFoundError,
    Status,
    UnreadableVersionError,
)

from . import output
from .query import (
    chosen,
    failed_option,
    flow_option,
    is_own,
    label_option,
    prefix_option,
    refusing,
)
from .reading import Readable
from .signals import INTERRUPTED, interruptible, leave
from .store import Access, opened, run_async, store_option

RETRIED = (Status.FAILED, Status.PAUSED)
"""What may be retried: what rests until somebody moves it."""


class Summary(Struct):
    """What a run of the command came to, as ``--json`` prints it last."""

    retried: int = 0
    moved: int = 0
    """States that somebody else had moved before they could be retried."""
    refused: int = 0
    """States that cannot go on: paused at no flow, or, of those named, neither failed nor paused.
    """


@click.command(short_help="Let states that failed, or that are paused, run again.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@label_option
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in RETRIED], case_sensitive=False),
    multiple=True,
    help="States in this status (default: failed). Several: in any of them.",
)
@failed_option
@flow_option
@prefix_option
@click.option("--dry-run", is_flag=True, help="Only say what would be retried.")
@store_option
@output.json_option
def retry(
    ids: Sequence[str],
    labels: Mapping[str, str],
    statuses: Sequence[str],
    failed: bool,
    flows: Sequence[str],
    prefix: str,
    dry_run: bool,
    url: str,
    as_json: bool,
) -> None:
    """Let the states ID..., or all states with these labels, statuses, flows and beginnings of
    ids, run again at the flow where they failed or were paused. They have all their attempts again.

    They are ready then: whoever works and has their flow runs them at once, a worker of an engine,
    `flowstate work` or `flowstate run`.

    A state that somebody else moves meanwhile is left to them, and is no error. Ctrl-C stops after
    the state that is being retried; run the same command again to go on.

    The exit code is 0 if every state that was found could be retried, also if none was found; 1 if
    one was refused or cannot be read, or there is none with a given ID; 130 after Ctrl-C.

    \b
    Examples:
      flowstate retry order-1 order-2 --store sqlite:///orders.db
      flowstate retry --failed --dry-run
      flowstate retry --failed --flow charge
      flowstate retry --label customer=ann --json | jq -r .id
    """
    selects = labels or statuses or failed or flows or prefix
    if ids and selects:
        raise click.UsageError("Give either IDs, or options that select states.")
    if not (ids or selects):
        raise click.UsageError("Say which: IDs, or an option that selects (all: --failed).")
    with refusing():
        query = Query(
            labels=labels,
            status=chosen(statuses, failed=failed) or Status.FAILED,
            flow=flows,
            id_prefix=prefix,
            latest=True,
        )

    async def retry_states() -> int:
        access = Access.READ if dry_run else Access.CHANGE
        async with opened(url, access) as engine:
            screen = Retrying(engine, dry_run, as_json)
            last_word = "Stopped at once. Run it again to go on."
            with screen, interruptible(screen.stop, last_word):
                await screen.retry_all(_named(screen, ids) if ids else _found(screen, query))
        screen.print_summary()
        return screen.exit_code

    leave(run_async(retry_states))


async def _named(screen: Retrying, ids: Sequence[str]) -> AsyncGenerator[State]:
    for id in dict.fromkeys(ids):
        try:
            state = await screen.engine.get(id)
        except (StateNotFoundError, UnreadableVersionError) as error:
            screen.refuse(id, str(error))
        else:
            yield state


async def _found(screen: Retrying, query: Query) -> AsyncGenerator[State]:
    """What matches now; one that is retried is listed once, as it was."""
    async for state in screen.readable.of(screen.engine.states(query)):
        if not is_own(state):
            yield state


@define
class Retrying:
    """Retries states one after the other, and shows on stderr how far it has come, if that is a
    terminal, and stdout, where each of them has a line, is none."""

    engine: Engine
    dry_run: bool
    as_json: bool
    summary: Summary = field(factory=Summary, init=False)
    readable: Readable = field(factory=Readable, init=False)
    is_stopped: bool = field(default=False, init=False)
    _progress: Progress = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            console=output.console(stderr=True),
            disable=not sys.stderr.isatty() or sys.stdout.isatty(),
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        self._progress.add_task("looking")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @property
    def exit_code(self) -> int:
        if self.is_stopped:
            return INTERRUPTED
        return 1 if self.summary.refused else self.readable.exit_code

    def stop(self, signal_name: str) -> None:
        """Stop after the state that is being retried, as on the first Ctrl-C."""
        self.is_stopped = True
        self._progress.console.print(f"{signal_name}: stopping after this state (again: at once)")

    async def retry_all(self, states: AsyncGenerator[State]) -> None:
        async with aclosing(states) as found:
            async for state in found:
                if self.is_stopped:
                    return
                await self._retry(state)
                for task in self._progress.task_ids:
                    self._progress.update(task, description=_counts(self.summary, self.dry_run))

    async def _retry(self, state: State) -> None:
        if state.transition.status not in RETRIED:
            self.refuse(state.id, f"it is {output.status_name(state)}, neither failed nor paused")
            return
        try:
            command = Resume(state)
            resumed = await self.engine.do(command)  # in memory: whether it may go on
            if not self.dry_run:
                (resumed,) = await self.engine.do(Commit(command))
        except RevMismatchError:
            self.summary.moved += 1
        except (IllegalTransitionError, InvalidValueError) as error:
            self.refuse(state.id, str(error))
        else:
            self.summary.retried += 1
            self._say(resumed)

    def refuse(self, id: str, problem: str) -> None:
        """Say that a state cannot be retried, and why."""
        self.summary.refused += 1
        output.warn(output.plain(f"{id}: not retried: {problem}"))

    def _say(self, state: State) -> None:
        if self.as_json:
            output.print_json(state)
        else:
            verb = "would run" if self.dry_run else "running"
            click.echo(output.plain(f"{state.id}: {verb} at {state.transition.to}"))

    def print_summary(self) -> None:
        """The counts, on stderr if what is retried goes to a program."""
        line = _counts(self.summary, self.dry_run)
        if self.is_stopped:
            line += "; interrupted. Run it again to go on."
        click.echo(line, err=self.as_json)


def _counts(summary: Summary, dry_run: bool) -> str:
    counts = [f"{'would retry' if dry_run else 'retried'} {_states(summary.retried)}"]
    if summary.moved:
        counts.append(f"{_states(summary.moved)} moved by others meanwhile")
    if summary.refused:
        counts.append(f"{_states(summary.refused)} refused")
    return ", ".join(counts)


def _states(number: int) -> str:
    return f"{number:,} state{'' if number == 1 else 's'}"
