"""`flowstate retry`: states that failed or were paused run again. And what is seen of them."""

from __future__ import annotations

import json

import pytest

from .shell import Shell

IDS = ("a", "b", "c")


@pytest.fixture
def failed(shell: Shell) -> Shell:
    """A store with three states that failed, each with a label, and one that is paused."""
    shell.write("fail.jsonl", *({"id": id, "labels": {"k": id}} for id in IDS))
    shell.write("wait.jsonl", {"id": "p", "labels": {"k": "p"}})
    run(shell, "fail.jsonl", "fail")
    run(shell, "wait.jsonl", "wait_for_someone")
    return shell


def run(shell: Shell, file: str, start: str) -> None:
    shell.run("run", "work.py:flows", "--input", file, "--start", start, "--on-error", "skip")


def statuses(shell: Shell) -> dict[str, str]:
    return {state["id"]: state["transition"]["status"] for state in shell.states()}


AS_IT_WAS = {"a": "failed", "b": "failed", "c": "failed", "p": "paused"}


@pytest.mark.parametrize(
    ("chosen", "retried"),
    [
        (("a",), "a"),
        (("a", "p", "a"), "ap"),
        (("--status", "failed"), "abc"),
        (("--status", "failed", "--status", "paused"), "abcp"),
        (("--failed",), "abc"),
        (("--prefix", "b"), "b"),
        (("--failed", "--flow", "fail"), "abc"),
        (("--flow", "finish"), ""),
        (("--label", "k=b"), "b"),
        (("--label", "k=p"), ""),
        (("--label", "k=p", "--status", "paused"), "p"),
    ],
)
def test_what_is_chosen_and_nothing_else_runs_again(
    failed: Shell, chosen: tuple[str, ...], retried: str
) -> None:
    done = failed.run("retry", *chosen)
    assert (0, "") == (done.returncode, done.stderr)
    assert AS_IT_WAS | dict.fromkeys(retried, "running") == statuses(failed)
    assert done.stdout.endswith(f"retried {len(retried)} state{'' if len(retried) == 1 else 's'}\n")


def test_what_runs_again_has_all_its_attempts(failed: Shell) -> None:
    failed.run("retry", "a")
    expected = {"to": "fail", "status": "running", "cause": "resume"}
    assert expected == failed.history("a")[-1]["transition"]


def test_a_dry_run_says_what_would_run_again_and_moves_nothing(failed: Shell) -> None:
    done = failed.run("retry", "--status", "failed", "--dry-run")
    assert (0, "would retry 3 states") == (done.returncode, done.stdout.splitlines()[-1])
    assert AS_IT_WAS == statuses(failed)


def test_json_has_each_state_as_a_line_and_the_summary_beside_it(failed: Shell) -> None:
    done = failed.run("retry", "--status", "failed", "--json")
    assert list(IDS) == [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert "retried 3 states\n" == done.stderr


@pytest.mark.parametrize(
    ("id", "problem"),
    [("nope", "no state 'nope'"), ("d", "it is ended, neither failed nor paused")],
)
def test_what_cannot_run_again_is_refused_and_the_rest_is_not(
    failed: Shell, id: str, problem: str
) -> None:
    failed.write("end.jsonl", {"id": "d"})
    run(failed, "end.jsonl", "finish")
    done = failed.run("retry", id, "a")
    assert (1, f"{id}: not retried: {problem}\n") == (done.returncode, done.stderr)
    assert "retried 1 state, 1 state refused" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize("chosen", [(), ("a", "--failed"), ("--status", "ended")])
def test_what_does_not_say_which_states_is_a_wrong_call(
    failed: Shell, chosen: tuple[str, ...]
) -> None:
    assert 2 == failed.run("retry", *chosen).returncode
    assert AS_IT_WAS == statuses(failed)


def test_show_has_the_traceback_of_what_failed_from_the_flow_on(failed: Shell) -> None:
    lines = failed.run("show", "a").stdout.splitlines()
    trace = lines[lines.index("traceback") :]
    assert "Traceback (most recent call last):" in trace[1]
    assert "work.py" in trace[2]
    assert "ValueError: no luck with a" == trace[-1].strip()


def test_ls_lists_what_failed(failed: Shell) -> None:
    assert list(IDS) == [state["id"] for state in failed.states("--status", "failed")]


def test_status_counts_what_failed_by_flow(failed: Shell) -> None:
    found = json.loads(failed.run("status", "--json").stdout)["failed"]
    assert [{"flow": "fail", "states": 3}] == found
    assert ["fail", "3"] in [line.split() for line in failed.run("status").stdout.splitlines()]


def test_compact_removes_what_failed_only_if_it_is_told_to(failed: Shell) -> None:
    failed.run("compact", "--before", "0s", "--ended")
    assert AS_IT_WAS == statuses(failed)
    failed.run("compact", "--before", "0s", "--failed")
    assert "failed" not in statuses(failed).values()
