"""`flowstate pause`, `resume`, `end` and `transit`: an operator moves a state."""

from __future__ import annotations

import json

import pytest

from .shell import Shell, finish, wait_for


def begin(shell: Shell, start: str = "wait_for_someone") -> None:
    shell.write("in.jsonl", {"id": "a", "labels": {"k": "v"}})
    shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", start)


@pytest.mark.parametrize(
    ("command", "told", "transition"),
    [
        (("resume", "a"), "a: running at wait_for_someone, revision 3",
         {"to": "wait_for_someone", "status": "running", "cause": "resume"}),
        (("pause", "a"), "a: paused, to resume at wait_for_someone, revision 3",
         {"to": "wait_for_someone", "status": "paused"}),
        (("pause", "a", "--to", "finish", "--reason", "why not"),
         "a: paused, to resume at finish (why not), revision 3",
         {"to": "finish", "status": "paused", "reason": "why not"}),
        (("end", "a"), "a: ended, revision 3", {"status": "ended"}),
        (("end", "a", "--reason", "lost"), "a: ended (lost), revision 3",
         {"status": "ended", "reason": "lost"}),
        (("transit", "a", "finish"), "a: running at finish, revision 3",
         {"to": "finish", "status": "running"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_moves_the_newest_version(
    shell: Shell, command: tuple[str, ...], told: str, transition: object, as_json: bool
) -> None:
    begin(shell)
    done = shell.run(*command, *(["--json"] if as_json else []))

    assert (done.returncode, done.stderr) == (0, "")
    stored = shell.history("a")[-1]
    assert (stored["rev"], stored["labels"]) == (3, {"k": "v"})
    assert stored["transition"] == transition
    assert (json.loads(done.stdout) == stored) if as_json else (done.stdout == f"{told}\n")


@pytest.mark.parametrize(
    ("start", "command", "told"),
    [
        ("finish", ("end", "a"), "state 'a': End is not legal while ENDED"),
        ("finish", ("resume", "a"), "state 'a': Resume is not legal while ENDED"),
        ("finish", ("pause", "a"), "state 'a': Pause is not legal while ENDED"),
        ("finish", ("transit", "a", "x"), "state 'a': Transit is not legal while ENDED"),
        ("go_nowhere", ("resume", "a"), "state 'a': Resume is not legal while RUNNING"),
        ("go_nowhere", ("transit", "a", ""), "Transit.to: the flow id may not be empty"),
        ("go_nowhere", ("pause", "a", "--to", ""), "Pause.to: the flow id may not be empty"),
    ],
)
def test_an_illegal_command_changes_nothing(
    shell: Shell, start: str, command: tuple[str, ...], told: str
) -> None:
    begin(shell, start)
    before = shell.history("a")
    done = shell.run(*command)

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {told}")
    assert shell.history("a") == before


def test_pausing_a_state_takes_it_from_the_flow_that_runs_for_it(shell: Shell) -> None:
    shell.write("in.jsonl", {"id": "a"})
    process = shell.start("run", "work.py:flows", "--input", "in.jsonl", "--start", "hold")
    wait_for((shell.directory / "a.begun").exists)
    assert shell.run("pause", "a", "--reason", "stop that").returncode == 0
    (shell.directory / "go").touch()
    code, stdout, stderr = finish(process)

    assert (code, stderr) == (1, "")
    assert "stop that" in stdout
    assert [v["transition"]["status"] for v in shell.history("a")] == ["running", "paused"]


def test_a_state_that_keeps_moving_can_be_ended(shell: Shell) -> None:
    shell.write("in.jsonl", {"id": "a"})
    process = shell.start("run", "work.py:flows", "--input", "in.jsonl", "--start", "circle")
    wait_for(lambda: len(shell.history("a")) > 10 if shell.status("a") else False)
    done = shell.run("end", "a", "--reason", "enough")
    code, stdout, stderr = finish(process)

    assert (done.returncode, code, stderr) == (0, 0, "")
    assert "enough" in stdout
    assert shell.status("a") == "ended"
