"""What a person sees on stderr while a run goes on: the progress, and what went wrong."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from attrs import define, field
from rich.console import Console
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

from . import output
from .loading import where

_SHOW_CURSOR = b"\x1b[?25h"


class _Rate(ProgressColumn):
    """States a second, over the whole run."""

    def render(self, task: Task) -> Text:
        states: int = task.fields["states"]
        elapsed = task.finished_time or task.elapsed
        rate = f"{states / elapsed:,.0f}/s" if elapsed else ""
        return Text(f"{states:,} states  {rate}", style="progress.data.speed")


@define
class Screen:
    """A progress bar, if stderr is a terminal, and lines above it."""

    total: int | None
    """How many bytes of input there are; None if that is not known."""
    _console: Console = field(factory=lambda: output.console(stderr=True), init=False)
    _progress: Progress = field(init=False)
    _log: LogLines = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            *([TaskProgressColumn()] if self.total is not None else []),
            _Rate(),
            *([TimeRemainingColumn(compact=True)] if self.total is not None else []),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._log = LogLines(self.say)

    def __enter__(self) -> Self:
        self._progress.start()
        self._progress.add_task("running", total=self.total, states=0)
        logging.getLogger("flowstate").addHandler(self._log)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger("flowstate").removeHandler(self._log)
        self._progress.stop()

    def advance(self, size: int, states: int) -> None:
        """Show that *size* more bytes of input are done, and *states* states in all."""
        for task in self._progress.task_ids:
            self._progress.update(task, advance=size, states=states)

    def say(self, text: str) -> None:
        self._console.print(output.plain(text), soft_wrap=True)

    @staticmethod
    def abandon(text: str) -> None:
        """Print a last line and leave a usable terminal. It takes no lock, so that a signal handler
        may call it."""
        start = _SHOW_CURSOR + b"\r\n" if sys.stderr.isatty() else b""
        os.write(sys.stderr.fileno(), start + text.encode() + b"\n")


class LogLines(logging.Handler):
    """Passes on warnings and errors that flowstate logs, as lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        cause = f": {type(error).__name__}: {error}{where(error)}" if error else ""
        self._say(f"{record.getMessage()}{cause}")
