"""The command line on PostgreSQL: the same commands, another URL."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ..postgres import Database
from ..test_permits import ALL, SHIPPED, command, read_cases, take, tasks_of
from .shell import Shell, finish

CASES = 200
"""Of the real ones: enough to be killed among them."""


@pytest.fixture
def url(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that does not exist yet, which every command works on."""
    url = postgres.new_store()
    monkeypatch.setattr(Shell, "_environment", lambda _, more: _environment(url, more))
    return url


def _environment(url: str, more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "FLOWSTATE_STORE": url, **more}


def test_cases_survive_a_kill(shell: Shell, url: str) -> None:
    """Real cases, killed part-way and run again: each did exactly its tasks, in order, once."""
    source = ALL if ALL.exists() else SHIPPED
    lines = source.read_text().splitlines()[:CASES]
    file = shell.directory / shell.write("cases.jsonl", *lines)
    cases = read_cases(file)
    shell.write("nothing.jsonl")
    assert shell.run(*command("nothing.jsonl")).returncode == 0

    trigger = shell.start("watch", "--json", "--after", "0")
    first = shell.start(*command(str(file)), "--concurrency", "5")
    take(trigger, sum(map(len, cases.values())) // 4)
    assert first.poll() is None, "it ended before it could be killed"
    first.kill()
    assert finish(first)[0] == -9
    trigger.kill()
    finish(trigger)

    again = shell.run(*command(str(file)))
    assert (again.returncode, again.stderr) == (0, "")
    assert f"{len(cases)} lines: {len(cases)} ended well" in again.stdout
    watcher = shell.start("watch", "--json", "--after", "0")
    histories: dict[str, list[dict[str, Any]]] = defaultdict(list)
    last, ended = 0, 0
    while ended < len(cases):
        (version,) = take(watcher, 1)
        assert version["rev"] > last
        last = version["rev"]
        if version["transition"].get("cause") != "lost":  # the same again: its process was killed
            histories[version["id"]].append(version)
        ended += version["transition"]["status"] == "ended"
    watcher.kill()
    finish(watcher)
    assert {id: tasks_of(versions) for id, versions in histories.items()} == cases


def test_states_are_listed_shown_and_moved(shell: Shell, url: str) -> None:
    """``run``, ``ls``, ``show`` and ``end``, as on any store."""
    shell.write("in.jsonl", {"id": "a", "labels": {"queue": "mail"}})
    assert (
        shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "go_nowhere").stderr
        == ""
    )
    (state,) = shell.states("--label", "queue=mail")
    assert ("a", {"queue": "mail"}) == (state["id"], state["labels"])
    assert shell.run("end", "a").returncode == 0
    assert "ended" == json.loads(shell.run("show", "a", "--json").stdout)["transition"]["status"]


@pytest.mark.parametrize("arguments", [("ls",), ("show", "a"), ("watch",), ("end", "a")])
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(
    shell: Shell, url: str, postgres: Database, arguments: tuple[str, ...]
) -> None:
    """Only ``run`` makes one."""
    done = shell.run(*arguments)
    assert (1, "") == (done.returncode, done.stdout)
    assert "there is no store in the schema" in done.stderr
    with psycopg.connect(postgres.url) as connection:
        name = url.rpartition("schema=")[2]
        found = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (name,))
        assert found.fetchone() is None


def test_a_server_that_does_not_answer_is_one_line(shell: Shell, tmp_path: Path) -> None:
    """At once, with what to look at; the password is not in it."""
    done = shell.run("ls", "--store", f"postgresql://me:secret@/db?host={tmp_path}")
    assert (1, "") == (done.returncode, done.stdout)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: postgresql://me:***@")
    assert "does not answer" in line
    assert "secret" not in line
