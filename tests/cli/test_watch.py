"""`flowstate watch`: what changes, as it comes, for people and as JSON lines."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from .shell import Shell, finish, interrupt, read_until
from .stored import fill


def watch(shell: Shell, *options: str) -> Any:
    """A watcher that is watching."""
    process = shell.start("watch", *options)
    read_until(process.stderr, "watching after revision")
    return process


def next_record(process: Any) -> Any:
    return json.loads(read_until(process.stdout, "\n"))


def test_watch_prints_what_comes_from_now_on(shell: Shell) -> None:
    fill(shell)
    process = watch(shell, "--json")
    shell.run("end", "c")
    assert (next_record(process)["id"], shell.run("end", "a").returncode) == ("c", 0)
    assert next_record(process)["rev"] == 7
    interrupt(process)
    code, stdout, stderr = finish(process)
    assert (code, stdout, stderr) == (0, "", "go on with --after 7\n")


@pytest.mark.parametrize("after", range(6))
def test_watch_goes_on_after_any_revision(shell: Shell, after: int) -> None:
    fill(shell)
    process = watch(shell, "--json", "--after", str(after))
    seen = [next_record(process)["rev"] for _ in range(after, 5)]
    shell.run("end", "a")
    seen.append(next_record(process)["rev"])
    interrupt(process)
    assert finish(process)[2] == "go on with --after 6\n"
    assert seen == list(range(after + 1, 7))


def test_watch_selects_by_all_labels(shell: Shell) -> None:
    fill(shell)
    labels = ("--label", "queue=mail", "--label", "to=bob")
    process = watch(shell, "--json", "--after", "0", *labels)
    assert next_record(process)["id"] == "b"
    shell.run("end", "a")
    shell.run("end", "b")
    assert next_record(process)["rev"] == 7
    interrupt(process)
    finish(process)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--id", "b"), "bb"),
        (("--prefix", "b"), "bb"),
        (("--status", "ended"), "dab"),
        (("--status", "ended", "--prefix", "a"), "a"),
        (("--status", "ended", "--status", "delayed"), "deab"),
    ],
)
def test_watch_selects_by_id_prefix_and_status(
    shell: Shell, options: tuple[str, ...], ids: str
) -> None:
    fill(shell)
    process = watch(shell, "--json", "--after", "0", *options)
    shell.run("end", "a")
    shell.run("end", "b")
    assert [next_record(process)["id"] for _ in ids] == list(ids)
    interrupt(process)
    assert finish(process)[:2] == (0, "")


def test_watch_for_people_is_a_line_a_change(shell: Shell) -> None:
    fill(shell)
    process = watch(shell, "--after", "2")
    line = read_until(process.stdout, "\n").split(maxsplit=2)
    interrupt(process)
    finish(process)
    assert line[2] == "3  c  paused at stamp: no stamps  queue=post\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_watch_ends_with_its_resume_token(shell: Shell, name: str) -> None:
    fill(shell)
    process = watch(shell, "--after", "3", "--label", "queue=mail", "--json")
    assert next_record(process)["rev"] == 5
    process.send_signal(getattr(signal, name))
    assert finish(process) == (0, "", "go on with --after 5\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_watch_ends_once_if_it_is_told_twice(shell: Shell, name: str) -> None:
    """As ``timeout`` does: it tells the process, and then its group."""
    fill(shell)
    process = watch(shell, "--after", "3", "--label", "queue=mail", "--json")
    assert next_record(process)["rev"] == 5
    process.send_signal(getattr(signal, name))
    process.send_signal(getattr(signal, name))
    assert finish(process) == (0, "", "go on with --after 5\n")


# ---------------------------------------------------------------- what leaves


def leaving(shell: Shell, number: int, *options: str) -> list[Any]:
    """So many of the first records of a watcher that also tells what leaves."""
    process = watch(shell, "--json", "--after", "0", "--leaving", *options)
    records = [next_record(process) for _ in range(number)]
    interrupt(process)
    assert finish(process)[:2] == (0, "")
    return records


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--status", "running"), [("a", 1, False), ("b", 2, False), ("a", 6, True)]),
        (("--flow", "send"), [("a", 1, False), ("b", 2, False), ("e", 5, False), ("a", 6, True)]),
        (("--flow", "send", "--prefix", "a"), [("a", 1, False), ("a", 6, True)]),
        (("--status", "running", "--id", "a"), [("a", 1, False), ("a", 6, True)]),
        (("--flow", "send", "--label", "to=ann"), [("a", 1, False), ("a", 6, True)]),
        (("--flow", "stamp", "--flow", "send", "--prefix", "c"), [("c", 3, False), ("c", 7, True)]),
    ],
)
def test_watch_tells_a_program_what_leaves_apart_from_what_matches(
    shell: Shell, options: tuple[str, ...], told: list[tuple[str, int, bool]]
) -> None:
    fill(shell)
    shell.run("end", "a")
    shell.run("end", "c")
    assert told == [
        (record["state"]["id"], record["state"]["rev"], record["leaves"])
        for record in leaving(shell, len(told), *options)
    ]


def test_what_leaves_is_the_state_as_stored(shell: Shell) -> None:
    fill(shell)
    shell.run("end", "a")
    *_, left = leaving(shell, 3, "--status", "running")
    assert {"leaves": True, "state": json.loads(shell.run("show", "a", "--json").stdout)} == left


def test_watch_tells_people_what_leaves_apart_from_what_matches(shell: Shell) -> None:
    fill(shell)
    process = watch(shell, "--after", "0", "--leaving", "--status", "paused")
    lines = [read_until(process.stdout, "\n").split(maxsplit=3)[2:]]
    shell.run("end", "c", "--reason", "stamped")
    lines.append(read_until(process.stdout, "\n").split(maxsplit=3)[2:])
    interrupt(process)
    finish(process)
    assert lines == [
        ["3", "matches  c  paused at stamp: no stamps  queue=post\n"],
        ["6", "leaves   c  ended: stamped  queue=post\n"],
    ]


def test_without_being_asked_watch_does_not_tell_what_leaves(shell: Shell) -> None:
    fill(shell)
    shell.run("end", "c")
    process = watch(shell, "--json", "--after", "0", "--status", "paused")
    assert next_record(process)["id"] == "c"
    shell.run("pause", "a")
    assert next_record(process)["rev"] == 7  # and not 6, with which c was ended
    interrupt(process)
    finish(process)
