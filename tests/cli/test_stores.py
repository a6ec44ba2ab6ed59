"""Which store a command works on, and one clear line where it cannot."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from flowstate.cli import MODULES, main
from flowstate.cli.store import Access, with_access

from .shell import Shell

READING = [("ls",), ("show", "a"), ("show", "a", "--history"), ("watch",)]
COMPACTING = [("compact", "--before", "1d"), ("compact", "--before", "1d", "--dry-run")]
MOVING = [("pause", "a"), ("resume", "a"), ("end", "a"), ("transit", "a", "flow")]


@pytest.mark.parametrize("command", READING + MOVING + COMPACTING)
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///absent.db", "absent.db: does not exist"),
        ("sqlite:///absent/absent.db", "absent.db"),
        ("nosuch://host/db", "no driver for nosuch:"),
        ("no url", "is no store URL"),
        ("sqlite:///store.db?colour=red", "has no option 'colour'"),
    ],
)
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(
    shell: Shell, command: tuple[str, ...], url: str, told: str
) -> None:
    before = set(shell.directory.iterdir())
    done = shell.run(*command, "--store", url)

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert told in line
    assert set(shell.directory.iterdir()) == before


@pytest.mark.parametrize("command", [("show", "b"), ("show", "b", "--history"), *(
    (name, "b", *rest) for name, _, *rest in MOVING
)])  # fmt: skip
def test_an_unknown_id_is_one_clear_error(shell: Shell, command: tuple[str, ...]) -> None:
    shell.write("in.jsonl", {"id": "a"})
    shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "go_nowhere")
    done = shell.run(*command)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Error: no state 'b'\n")


@pytest.mark.parametrize(
    "command",
    [*READING, *MOVING, *COMPACTING, ("run", "work.py:flows", "--input", "-", "--start", "finish")],
)
def test_a_command_without_a_store_says_how_to_name_one(
    shell: Shell, command: tuple[str, ...]
) -> None:
    done = shell.run(*command, FLOWSTATE_STORE="")
    assert done.returncode == 2
    assert "--store" in done.stderr
    assert "FLOWSTATE_STORE" in done.stderr


def test_an_option_is_stronger_than_the_environment(shell: Shell) -> None:
    shell.write("in.jsonl", {"id": "a"})
    shell.run(
        *("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish"),
        *("--store", "sqlite:///other.db"),
    )
    assert not shell.store.exists()
    assert [state["id"] for state in shell.states("--store", "sqlite:///other.db")] == ["a"]


def test_reading_a_store_does_not_change_it(shell: Shell) -> None:
    shell.write("in.jsonl", {"id": "a"})
    shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish")
    before = shell.store.read_bytes()
    assert shell.status("a") == "ended"
    assert shell.store.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("sqlite:///a.db", "sqlite:///a.db?mode=ro"),
        ("sqlite:///a.db?busy_timeout=9", "sqlite:///a.db?busy_timeout=9&mode=ro"),
        ("sqlite:///a.db?mode=rwc", "sqlite:///a.db?mode=rwc"),
        ("memory:", "memory:"),
        ("postgresql://host/db", "postgresql://host/db?mode=ro"),
        ("postgresql://host/db?schema=a&mode=rw", "postgresql://host/db?schema=a&mode=rw"),
        ("other://host/db", "other://host/db"),
    ],
)
def test_what_a_url_says_of_its_mode_is_kept(url: str, opened: str) -> None:
    assert with_access(url, Access.READ) == opened


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(main, ["--version"]).output.startswith("flowstate 0.")


@pytest.mark.parametrize("command", [[], *([name] for name in MODULES)])
def test_help_has_examples_and_fits_a_terminal(command: list[str]) -> None:
    shown = CliRunner().invoke(main, [*command, "--help"], terminal_width=100)
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert all(len(line) <= 100 for line in shown.output.splitlines())
