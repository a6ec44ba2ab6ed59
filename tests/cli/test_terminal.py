"""What is stored, and what is typed, cannot control a terminal, whoever chose it."""

from __future__ import annotations

import json

import pytest

from flowstate import Commit, Delay, Pause, RetryPolicy, State, Transit

from .shell import Shell
from .stored import fail, store

NASTY = "x\x1b[2J\x1b]0;t\x07\r\n\x9b31m\u202e\u2028[red]{s}%s'\"; --"
"""Escapes of terminals, of one byte too; new lines; another direction; markup; the rest of SQL."""
CONTROLS = {char for char in NASTY if not char.isprintable()} - {"\n"}


@pytest.fixture
def nasty(shell: Shell) -> Shell:
    """A store in which every text is like that."""
    state = State(
        NASTY,
        labels={NASTY: NASTY},
        annotations={NASTY: NASTY},
        retry=RetryPolicy(on_give_up=NASTY),
    )
    held = State("held", labels={NASTY: NASTY})
    stacked = State("stacked").stack(NASTY, state).attach(NASTY, 1, content_type=NASTY)
    store(
        shell,
        Commit(Pause(state, NASTY, reason=NASTY, annotations={NASTY: NASTY})),
        Commit(Pause(stacked, NASTY, timeout=0.001, on_timeout=NASTY)),
        Commit(Transit(held, NASTY), Delay(State("late"), NASTY, after=0)),
    )
    fail(shell, State(f"failed {NASTY}", labels={NASTY: NASTY}))
    done = shell.run("hold", NASTY, "--reason", NASTY)
    assert (done.returncode, CONTROLS & {*done.stdout, *done.stderr}) == (0, set())
    return shell


COMMANDS = (
    "ls",
    "ls --all",
    "ls --late",
    "ls --failed",
    "ls --json",
    "status",
    "status --json",
    "count",
    "count --by flow",
    "count --by flow --json",
    "show NASTY",
    "show NASTY --history",
    "show NASTY --json",
    "show stacked",
    "show held",
    "show late",
    "cat NASTY NASTY",
    "cat stacked nothing",
    "pause NASTY",
    "transit NASTY NASTY",
    "end NASTY --reason NASTY",
    "retry NASTY",
    "retry --failed",
    "resume NONE",
    "release NASTY",
    "forget stacked NASTY --yes",
    "forget stacked NASTY2 --yes",
    "ls --label NASTY=NASTY",
    "ls --prefix NASTY",
    "ls --flow NASTY",
    "compact --before 0d --ended --dry-run",
    "ls --store sqlite:///NASTY.db",
    "ls --store nosuch:NASTY",
    "ls --status NASTY",
    "work NASTY.py:flows",
    "run work.py:NASTY --input in.jsonl --start NASTY",
    "run work.py:flows --input in.jsonl --start NASTY",
    "run work.py:flows --input in.jsonl --start finish --on-error skip",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_text_controls_the_terminal(nasty: Shell, command: str) -> None:
    bad = [{"id": NASTY, NASTY: 1}, {"id": "b", "labels": {NASTY: 1}}, {"id": f"flowstate.{NASTY}"}]
    nasty.write("in.jsonl", {"id": NASTY, "labels": {NASTY: NASTY}}, *bad, NASTY.replace("\n", ""))
    arguments = [word.replace("NASTY", NASTY) for word in command.split()]
    done = nasty.run(*arguments)
    assert done.returncode in {0, 1, 2}
    assert CONTROLS & {*done.stdout, *done.stderr} == set()
    assert "Traceback" not in done.stderr


def test_json_says_it_as_it_is(nasty: Shell) -> None:
    """Escaped in a way that every reader of JSON undoes."""
    assert NASTY in {state["id"] for state in nasty.states()}
    assert [NASTY] == [
        held["flow"] for held in json.loads(nasty.run("status", "--json").stdout)["held"]
    ]
