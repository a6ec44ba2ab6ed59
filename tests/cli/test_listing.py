"""The table of `flowstate ls`: printed as it comes, narrow in a pipe, as wide as a terminal."""

from __future__ import annotations

import os
import pty
import re
import termios
from collections.abc import Sequence

import pytest
from rich.cells import cell_len

from flowstate import Commit, Pause, State, Transit

from .shell import Shell, finish, read_terminal
from .stored import store

REASON = "the bank did not answer within thirty seconds, so it is tried again by hand tomorrow"


def fill(shell: Shell, *states: State) -> None:
    """Have these states in the store, each at the flow ``charge``."""
    store(
        shell,
        *(
            Commit(*(Transit(state, "charge") for state in states[start : start + 500]))
            for start in range(0, len(states), 500)
        ),
    )


def many(number: int) -> list[State]:
    return [State(f"order-{index:05}", labels={"customer": "ann"}) for index in range(number)]


def on_terminal(shell: Shell, width: int, *options: str) -> list[str]:
    """The lines that `flowstate ls` prints on a terminal of that width, without colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    environment = {"TERM": "xterm", "NO_COLOR": "1"}
    process = shell.start("ls", *options, stdout=theirs, environment=environment)
    os.close(theirs)
    shown = read_terminal(ours).decode()
    assert (0, "", "") == finish(process)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()


def test_a_long_list_has_one_head_and_every_row(shell: Shell) -> None:
    states = many(2_345)
    fill(shell, *states)
    head, ruler, *rows = shell.run("ls").stdout.splitlines()
    assert [state.id for state in states] == [row.split()[0] for row in rows]
    assert head.startswith(" id ")
    assert {"─"} == set(ruler.strip())


def test_the_first_rows_are_printed_before_the_last_is_read(shell: Shell) -> None:
    """What moves meanwhile is listed once, as it is then: far less fits in the pipe."""
    states = [state.with_labels(long="x" * 500) for state in many(3_000)]
    fill(shell, *states)
    process = shell.start("ls")
    assert process.stdout
    assert process.stdout.readline().startswith(" id ")
    shell.run("end", states[-1].id)
    code, rest, stderr = finish(process)
    assert (0, "") == (code, stderr)
    (last,) = [line for line in rest.splitlines() if states[-1].id in line]
    assert "ended" in last.split()


@pytest.mark.parametrize("place", [0, 99, 100, 150])
def test_in_a_pipe_a_long_cell_makes_its_own_line_longer_and_no_other(
    shell: Shell, place: int
) -> None:
    states = many(200)
    states[place] = State("x" * 500)
    fill(shell, *states)
    _, ruler, *rows = shell.run("ls").stdout.splitlines()
    long = rows.pop(place)
    assert "x" * 500 in long
    assert long.split()[2:4] == ["running", "charge"]
    assert max(map(len, [ruler, *rows])) < 140
    assert len({row.index("running") for row in rows}) == 1


def test_in_a_pipe_no_line_ends_in_spaces(shell: Shell) -> None:
    fill(shell, *many(150))
    assert all(line == line.rstrip() for line in shell.run("ls").stdout.splitlines())


@pytest.mark.parametrize("width", [70, 80, 120, 160, 240])
@pytest.mark.parametrize("place", [5, 120])
def test_on_a_terminal_all_is_shown_within_its_width(shell: Shell, width: int, place: int) -> None:
    states = many(130)
    fill(shell, *states[:place])
    wide = State("東京-1", labels={"customer": "x" * 60, "country": "nl"})
    store(shell, Commit(Pause(wide, "charge", reason=REASON)))
    fill(shell, *states[place:])
    lines = on_terminal(shell, width)
    assert max(map(cell_len, lines)) <= width
    (start,) = [number for number, line in enumerate(lines) if "東京-1" in line]
    (end,) = [number for number, line in enumerate(lines) if _begins(line, states[place:])][:1]
    shown = "".join("".join(line.split()) for line in lines[start:end])
    assert 60 == shown.count("x")
    assert not _missing(REASON.split(), shown)


def test_on_a_narrow_terminal_reasons_go_below_and_ids_stay_whole(shell: Shell) -> None:
    labels = {"customer": "robert", "country": "nl", "carrier": "by sea"}
    paused = State("order-2026-0001", labels=labels)
    store(shell, Commit(Pause(paused, "charge", reason=REASON)))
    head, _, *rows = on_terminal(shell, 80)
    assert ["id", "rev", "status", "flow", "labels", "committed", "(UTC)"] == head.split()
    assert rows[0].split()[:4] == ["order-2026-0001", "1", "paused", "charge"]
    below = [row.strip() for row in rows if row.startswith("    ") and row[4] != " "]
    assert REASON == " ".join(below)
    *_, last = on_terminal(shell, 160)
    assert REASON.endswith(last.split()[-1])


def _begins(line: str, states: Sequence[State]) -> bool:
    """Whether the row of the first of these begins with that line."""
    return line.startswith(f" {states[0].id}")


def _missing(words: Sequence[str], shown: str) -> list[str]:
    return [word for word in words if word not in shown]
