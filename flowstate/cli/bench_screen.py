"""The progress of ``flowstate bench``: what is measured, and how long it still takes."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from attrs import define, field
from rich import progress

from flowstate.bench import Progress
from flowstate.bench.text import span

from . import output


@define
class BenchScreen:
    """A progress bar if stderr is a terminal, otherwise a line for each round.

    It is drawn between measurements only, since a thread that draws would be measured too.
    """

    _bar: progress.Progress = field(init=False)
    _round: int = field(default=-1, init=False)

    def __attrs_post_init__(self) -> None:
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=20),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[left]}", style="progress.remaining"),
            progress.TextColumn("{task.description}", markup=False),
            console=output.console(stderr=True),
            auto_refresh=False,
            transient=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        self._bar.start()
        self._bar.add_task("", total=None, left="")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def tell(self, now: Progress) -> None:
        """Show that a step begins."""
        step = now.step
        when = f"round {step.round} of {now.rounds}" if step.round else "warming up"
        left = f"about {span(now.left_s)} left"
        if not self._bar.disable:
            workload, value, store = step.key
            what = f"{when}: {workload} {value:,} {step.case.workload.parameter}, {store}"
            (task,) = self._bar.task_ids
            self._bar.update(
                task,
                description=what,
                completed=now.done_s,
                total=now.done_s + now.left_s,
                left=left,
                refresh=True,
            )
        elif step.round != self._round:
            output.warn(f"{when}, {left}")
        self._round = step.round
