"""`flowstate count`: how many states match, by status or flow."""

from __future__ import annotations

import json

import pytest

from flowstate import Commit, Pause, State

from .shell import Shell
from .stored import fail, fill, store


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Five states, one of flowstate's own, and two that have failed."""
    fill(shell)
    shell.run("hold", "stamp")
    fail(shell, *(State(id, labels={"queue": "mail"}) for id in ("f", "g")))
    return shell


def counts(shell: Shell, *options: str) -> dict[str, int]:
    done = shell.run("count", "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"running": 2, "paused": 1, "ended": 1, "delayed": 1, "failed": 2}),
        (("--by", "status"), {"running": 2, "paused": 1, "ended": 1, "delayed": 1, "failed": 2}),
        (("--by", "flow"), {"send": 5, "stamp": 1, "": 1}),
        (("--failed", "--by", "flow"), {"send": 2}),
        (("--status", "ended", "--failed"), {"ended": 1, "failed": 2}),
        (("--flow", "send"), {"running": 2, "delayed": 1, "failed": 2}),
        (("--flow", "stamp", "--flow", "post"), {"paused": 1}),
        (("--label", "queue=mail", "--label", "to=bob"), {"running": 1}),
        (("--prefix", "f"), {"failed": 1}),
        (("--prefix", "nobody"), {}),
    ],
)
def test_what_matches_is_counted(
    filled: Shell, options: tuple[str, ...], expected: dict[str, int]
) -> None:
    assert expected == counts(filled, *options)


def test_flowstates_own_states_are_counted_only_if_asked_for(filled: Shell) -> None:
    (own,) = [state for state in filled.states("--all") if state["id"].startswith("flowstate.")]
    store(filled, Commit(Pause(State("flow-1"))))
    assert {"paused": 1, "failed": 1} == counts(filled, "--prefix", "f")
    assert 2 == sum(counts(filled, "--prefix", "flow", "--all").values())
    assert {"paused": 1} == counts(filled, "--prefix", "flow")
    assert {} == counts(filled, "--prefix", "flowstate.")
    assert {own["transition"]["status"]: 1} == counts(filled, "--prefix", "flowstate.", "--all")


def test_for_people_it_is_a_table_with_what_is_most_first_and_the_sum(filled: Shell) -> None:
    shown = filled.run("count", "--by", "flow").stdout
    head, _, *rows, total = [line.split() for line in shown.split("\n") if line.strip()]
    assert [["flow", "states"], ["7", "states"]] == [head, total]
    assert ["send", "5"] == rows[0]
    assert [["(none)", "1"], ["stamp", "1"]] == sorted(rows[1:])
    assert filled.run("count", "--prefix", "e").stdout.endswith(" 1 state\n")


def test_it_says_when_nothing_matches(filled: Shell) -> None:
    done = filled.run("count", "--prefix", "nobody")
    assert (0, "", "no state matches\n") == (done.returncode, done.stdout, done.stderr)
