"""``flowstate compact``: remove old history."""

from __future__ import annotations

import sys
from datetime import datetime
from types import TracebackType
from typing import Self

import click
from attrs import define, field
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from flowstate import Compaction, CompactionRun

from . import output
from .ages import Before
from .signals import INTERRUPTED, interruptible, leave
from .store import Access, opened, run_async, store_option


@click.command(short_help="Remove old history.")
@click.option(
    "--before",
    type=Before(),
    required=True,
    metavar="AGE|DATE",
    help="What was committed at least so long ago (90m, 12h, 30d, 4w), or before that day.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="The newest versions of each state stay, whatever their age.",
)
@click.option("--ended", is_flag=True, help="States that have ended go whole.")
@click.option("--failed", is_flag=True, help="States that have failed go whole.")
@click.option(
    "--commit-ids",
    type=Before(),
    default="7d",
    show_default=True,
    metavar="AGE|DATE",
    help="Ids that callers gave commits (commit_id=…) are forgotten if they are as old.",
)
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one line of JSON.")
def compact(
    before: datetime,
    keep: int,
    ended: bool,
    failed: bool,
    commit_ids: datetime,
    dry_run: bool,
    url: str,
    as_json: bool,
) -> None:
    """Remove the versions that newer ones have replaced, if they are old enough, and the payloads
    that nothing refers to any more. What is current always stays, unless it has ended and --ended
    is given, or has failed and --failed is given.

    With --ended, states that had ended by then go with all their versions. Their ids are free
    again: who creates the same id once more is no longer told that it is there. With --failed the
    same becomes of states that had failed by then and that nobody retried or ended.

    An id that a caller gave a commit is remembered on its own, for seven days or as long as
    --commit-ids says: until then the commit can be done again and happens once.

    It works in small batches, and others read and commit in between. Ctrl-C stops after a batch,
    and what was removed is removed; run it again to go on. A watcher that was further behind is
    told so. The file of an SQLite store does not become smaller: its room is used again.

    \b
    Examples:
      flowstate compact --before 30d --store sqlite:///orders.db
      flowstate compact --before 90d --keep 10 --ended --dry-run
      flowstate compact --before 2026-01-31 --ended --json | jq .size
    """

    async def remove() -> int:
        # a dry run too: a store of an older flowstate must be migrated first
        async with opened(url, Access.CHANGE) as engine:
            run = engine.compact(
                before, keep, ended=ended, failed=failed, commit_ids=commit_ids, dry_run=dry_run
            )
            with (
                _Bar(run) as bar,
                interruptible(bar.stop, "Stopped at once. Run it again to go on."),
            ):
                async for _ in run:
                    bar.show()
                    if bar.is_stopped:
                        break
        if as_json:
            output.print_json(run.total)
        else:
            _print_summary(run)
        return 0 if run.total.done else INTERRUPTED

    leave(run_async(remove))


def _print_summary(run: CompactionRun) -> None:
    total = run.total
    removed = f"{'would remove' if run.dry_run else 'removed'} {_counts(total)}"
    if total.done:
        click.echo(removed)
    else:
        left = run.end - total.upto
        click.echo(f"{removed}; interrupted with {left:,} revisions left. Run it again to go on.")


def _counts(total: Compaction) -> str:
    if not total.versions:
        return "nothing"
    counts = [_count(total.versions, "version")]
    if total.states:
        counts.append(f"all of {_count(total.states, 'state')}")
    if total.payloads:
        counts.append(_count(total.payloads, "payload"))
    return f"{', '.join(counts)}: {output.size(total.size)}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------- while it goes on


class _Removed(ProgressColumn):
    """A column that shows how many revisions are left, and what was removed."""

    def render(self, task: Task) -> Text:
        total: Compaction = task.fields["so_far"]
        left = int((task.total or 0) - task.completed)
        return Text(f"{left:,} revisions left  {_counts(total) if total.versions else ''}")


@define
class _Bar:
    """Shows on stderr how far a run has come, if that is a terminal."""

    run: CompactionRun
    is_stopped: bool = field(default=False, init=False)
    _progress: Progress = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            _Removed(),
            TimeRemainingColumn(compact=True),
            console=output.console(stderr=True),
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        verb = "counting" if self.run.dry_run else "compacting"
        self._progress.add_task(verb, total=None, so_far=self.run.total)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self) -> None:
        """Show the progress after a batch."""
        for task in self._progress.task_ids:
            total = self.run.total
            self._progress.update(task, completed=total.upto, total=self.run.end, so_far=total)

    def stop(self, signal_name: str) -> None:
        """Stop after the batch that is being removed, as on the first Ctrl-C."""
        self.is_stopped = True
        self._progress.console.print(f"{signal_name}: stopping after this batch (again: at once)")
