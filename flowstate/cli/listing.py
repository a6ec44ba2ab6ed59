"""A table that is printed as its rows come, however many they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from types import TracebackType
from typing import Self, TypeAlias

from attrs import define, field
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from . import output

FIRST_ROWS = 100
"""How many rows are looked at, before they are printed, to find how wide the columns are."""
MAX_WIDTH = 40
"""No column of a pipe is wider; a cell that is sticks out."""
MIN_WIDTH = 8
"""No column of a terminal is made narrower than that."""
MIN_TEXT = 24
"""Where less room is left for the texts of the last column, they go below their rows."""
GAP = "  "
INDENT = "    "

Cell: TypeAlias = Text | str


@define(eq=False)
class Listing:
    """Prints a row once the first hundred have shown how wide the columns are, and what it holds
    back when the ``with`` block is left.

    The last column is for texts of any length. In a pipe each row is a line, and a cell that is
    wider than its column moves the rest of its line. On a terminal it goes on below itself.
    """

    columns: Sequence[str]
    _console: Console = field(factory=output.console, init=False)
    _first: list[Sequence[Cell]] = field(factory=list[Sequence[Cell]], init=False)
    """The rows that are not printed yet."""
    _widths: list[int] = field(factory=list[int], init=False)
    """Of the columns, once they are known; without the last one if its texts go below their rows.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._first:
            self._begin()

    def add(self, *cells: Cell) -> None:
        """A row: texts that cannot control the terminal."""
        if self._widths:
            self._print_row(cells)
            return
        self._first.append(cells)
        if len(self._first) == FIRST_ROWS:
            self._begin()

    def _begin(self) -> None:
        """Print the head, and the rows so far."""
        head = [Text(column, style="bold") for column in self.columns]
        widest = [max(map(_width, column)) for column in zip(head, *self._first, strict=True)]
        self._widths = self._fitting(widest)
        seen = [min(widths) for widths in zip(self._widths, widest, strict=False)]
        self._print_row(head[: len(seen)])
        self._print(Text(" " + "─" * (sum(seen) + len(GAP) * (len(seen) - 1))))
        for cells in self._first:
            self._print_row(cells)
        self._first.clear()

    def _fitting(self, widest: Sequence[int]) -> list[int]:
        """The widths of the columns; *widest* are those of their widest cells so far."""
        if not self._console.is_terminal:
            return [min(width, MAX_WIDTH) for width in widest]
        *widths, _ = widest
        room = self._console.width - 1 - len(GAP) * len(widths)
        if room - sum(widths) >= MIN_TEXT:
            return [*widths, room - sum(widths)]
        room += len(GAP)
        first, *others = [
            place for place, column in enumerate(self.columns[:-1]) if column not in output.WHOLE
        ]
        for narrowed in others, [first]:  # an id that is whole can be copied
            while sum(widths) > room:
                place = max(narrowed, key=widths.__getitem__)
                if widths[place] <= MIN_WIDTH:
                    break
                widths[place] -= 1
        return widths

    def _print_row(self, cells: Sequence[Cell]) -> None:
        if not self._console.is_terminal:
            self._print(self._line(cells))
            return
        columns = [
            self._wrapped(cell, width) for cell, width in zip(cells, self._widths, strict=False)
        ]
        for line in zip_longest(*columns, fillvalue=""):
            self._print(self._line(line))
        for cell in cells[len(self._widths) :]:
            for text in self._wrapped(cell, self._console.width - len(INDENT)) if cell else ():
                self._print(Text(INDENT).append(text))

    def _wrapped(self, cell: Cell, width: int) -> Iterable[Cell]:
        """The lines of a cell."""
        if _width(cell) <= width:
            return (cell,)
        text = Text(cell) if isinstance(cell, str) else cell
        return text.wrap(self._console, width, overflow="fold")

    def _line(self, cells: Sequence[Cell]) -> Text:
        line = Text(" ")
        for column, cell, width in zip(self.columns, cells, self._widths, strict=False):
            space = " " * (width - _width(cell))
            if column in output.NUMBERS:
                line.append(space).append(cell)
            else:
                line.append(cell).append(space)
            line.append(GAP)
        line.rstrip()
        return line

    def _print(self, line: Text) -> None:
        if self._console.is_terminal:
            self._console.print(line, soft_wrap=True)
        else:
            self._console.file.write(f"{line.plain}\n")  # in a third of the time
            self._console.file.flush()


def _width(cell: Cell) -> int:
    return cell_len(cell) if isinstance(cell, str) else cell.cell_len
