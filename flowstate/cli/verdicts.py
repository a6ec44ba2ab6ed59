"""The output of a proof, for people and for programs: a line for each law, and a summary."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from . import output

if TYPE_CHECKING:
    from flowstate.testing import Failure, Law, Verdict

STYLES = {"kept": "green", "broken": "bold red", "not proved": "yellow"}
MAX_LINES, MAX_LINE = 30, 400
"""How many lines of a failure are shown without --traceback, and characters of each line."""
MAX_ALIKE = 10
"""How many laws are named that are broken by the same error."""
MAX_TEXTS = 3
"""How many laws may be broken by the same error for the text of each to be shown."""
MIN_WIDTH = 30
"""The columns that a text has at least, however narrow the terminal is."""


@define(eq=False)
class Verdicts:
    """Prints verdicts as they come. The proof captures what is printed meanwhile, so verdicts are
    written to what stdout and stderr were before it began."""

    as_json: bool
    with_traceback: bool
    counts: Counter[str] = field(factory=Counter[str], init=False)
    _verdicts: list[Verdict] = field(factory=list["Verdict"], init=False)
    _laws: int = field(default=0, init=False)
    _about: str = field(default="", init=False)
    _files: list[TextIO] = field(factory=list[TextIO], init=False)
    _out: Console = field(init=False)
    _progress: Progress = field(init=False)
    _task: TaskID | None = field(default=None, init=False)
    _is_writing: bool = field(default=False, init=False)
    _last: Callable[[], None] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self._out = self._beside(sys.stdout)
        screen = self._out if sys.stdout.isatty() else self._beside(sys.stderr)
        self._progress = Progress(
            TextColumn("proving"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
            console=screen,
            disable=not screen.is_terminal,
            transient=True,
            expand=True,
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the progress from the screen, and write no more."""
        self._progress.stop()
        while self._files:
            self._files.pop().close()

    @property
    def broken(self) -> int:
        return self.counts["broken"]

    def end_with(self, last: Callable[[], None]) -> None:
        """Call *last*, from a signal handler: at once, or as soon as a line that is being written
        is complete."""
        if self._is_writing:
            self._last = last
        else:
            last()

    @contextmanager
    def _writing(self) -> Generator[None]:
        self._is_writing = True
        try:
            yield
        finally:
            self._is_writing = False
            last, self._last = self._last, None
            if last is not None:
                last()

    # ------------------------------------------------------------ as it goes on

    def starts(self, laws: int) -> None:
        with self._writing():
            self._laws = laws
            self._progress.start()
            self._task = self._progress.add_task("", total=laws)

    def begins(self, law: Law) -> None:
        with self._writing():
            if self._task is not None:
                self._progress.update(self._task, description=law.sentence)

    def judged(self, verdict: Verdict) -> None:
        with self._writing():
            self._print(verdict)

    def _print(self, verdict: Verdict) -> None:
        self._verdicts.append(verdict)
        self.counts[verdict.judgement.value] += 1
        if self._task is not None:
            self._progress.advance(self._task)
        if self.as_json:
            self._out.file.write(output.json_text(_record(verdict)) + "\n")
            self._out.file.flush()
            return
        if verdict.law.about != self._about:
            self._about = verdict.law.about
            self._line(self._about, style="bold")
        name = verdict.judgement.value
        seconds = f"{verdict.seconds:.2f} s" if name != "not proved" else ""
        self._line(verdict.law.sentence, first=f"  {name:<10}{seconds:>9}  ", style=STYLES[name])

    # ------------------------------------------------------------ in the end

    def sum_up(self, took_s: float, left_behind: str = "", *, is_whole: bool = True) -> None:
        """Print which laws are broken and which were not proved, and the counts."""
        with self._writing():
            self._progress.stop()
            if not self.as_json:
                self._sum_up(took_s, left_behind, is_whole=is_whole)

    def _sum_up(self, took_s: float, left_behind: str, *, is_whole: bool) -> None:
        for like in _alike(self._verdicts):
            self._print_broken(like)
        self._print_reasons()
        self._line()
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in STYLES if self.counts[name])
        done = len(self._verdicts)
        of = "" if is_whole else f" of {self._laws:,}, then it was interrupted"
        self._line(f"{_laws(done)}{of}: {counts or 'none judged'}; {took_s:,.1f} s")
        if left_behind:
            self._line(f"The stores are left for you to look at, and to remove: {left_behind}")

    def _print_broken(self, like: Sequence[Verdict]) -> None:
        """Print a law that is broken, or several that are broken by the same error."""
        self._line()
        for verdict in like[:MAX_ALIKE]:
            self._line(verdict.law.name, first="broken  ", style=STYLES["broken"])
            if len(like) <= MAX_TEXTS:
                self._line(verdict.law.text, first="  ")
        if len(like) > MAX_ALIKE:
            self._line(f"and {len(like) - MAX_ALIKE:,} more", first="        ")
        cases: defaultdict[tuple[str, str], list[Failure]] = defaultdict(list)
        for failure in like[0].failures:
            cases[failure.message, failure.where].append(failure)
        for (message, where), failures in cases.items():
            names = ", ".join(failure.case for failure in failures if failure.case)
            self._line(f"{names + ': ' if names else ''}{where}", first="  ")
            text = failures[0].traceback if self.with_traceback else _cut(message)
            for line in (*text.splitlines(), *failures[0].steps.splitlines()):
                self._line(line, first="    ")

    def _print_reasons(self) -> None:
        """Print the reasons why laws were not proved, and how many laws each reason has."""
        wholly: Counter[str] = Counter()
        partly: Counter[str] = Counter()
        for verdict in self._verdicts:
            is_wholly = verdict.judgement.value == "not proved"
            (wholly if is_wholly else partly).update(verdict.not_proved)
        if wholly or partly:
            self._line()
        for reason in {**wholly, **partly}:
            of = [_laws(wholly[reason])] if wholly[reason] else []
            of += [f"{_laws(partly[reason])} in part"] if partly[reason] else []
            line = f"{reason}: {', '.join(of)}"
            self._line(line, first="not proved  ", style=STYLES["not proved"])

    # ------------------------------------------------------------ lines

    def _line(self, text: str = "", *, first: str = "", style: str = "") -> None:
        """Print a line that begins with *first*, in that style. On a terminal, a long text goes on
        below itself."""
        shown = output.plain(text)
        if self._out.is_terminal:
            width = max(self._out.width - len(first), MIN_WIDTH)
            lines = textwrap.wrap(shown, width, drop_whitespace=False) or [""]
            lines = [lines[0].rstrip(), *(line.strip() for line in lines[1:])]
            shown = f"\n{' ' * len(first)}".join(lines)
        line = Text(first + shown)
        line.stylize(style, 0, len(first) or None)
        self._out.print(line, soft_wrap=True)

    def _beside(self, stream: TextIO) -> Console:
        file = os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors="replace")
        self._files.append(file)
        width = shutil.get_terminal_size().columns if stream.isatty() else output.UNBOUNDED
        return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def _alike(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """The broken laws, grouped by the error and the place that broke them."""
    found: defaultdict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.failures:
            first = verdict.failures[0]
            found[first.message, first.where].append(verdict)
    return list(found.values())


def _laws(number: int) -> str:
    return f"{number:,} law{'' if number == 1 else 's'}"


def _cut(text: str) -> str:
    lines = text.splitlines()
    shown = [
        textwrap.shorten(line, MAX_LINE) if len(line) > MAX_LINE else line
        for line in lines[:MAX_LINES]
    ]
    if len(lines) > MAX_LINES:
        shown.append(f"… {len(lines) - MAX_LINES} more lines (--traceback shows all)")
    return "\n".join(shown)


def _record(verdict: Verdict) -> Any:
    """A verdict as it is printed in JSON."""
    law = verdict.law
    return {
        "law": law.name,
        "about": law.about,
        "text": law.text,
        "verdict": verdict.judgement.value,
        "seconds": round(verdict.seconds, 3),
        "not_proved": verdict.not_proved,
        "failures": [
            {
                "case": failure.case,
                "message": failure.message,
                "steps": failure.steps,
                "where": failure.where,
            }
            for failure in verdict.failures
        ],
    }
