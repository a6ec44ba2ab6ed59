"""A version that cannot be read is told in one line on stderr and passed by, by every command."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing

import anyio
import pytest

from flowstate import (
    Commit,
    Delay,
    End,
    Engine,
    Pause,
    RetryPolicy,
    State,
    Transit,
    connect,
)
from flowstate.recovery import LEADER_ID

from .shell import Shell, finish, interrupt, read_until, wait_for

LINE = "store.db: the version at revision 2 (state 'b') cannot be read: "


@pytest.fixture
def store(shell: Shell) -> Shell:
    """Three states that are due at the flow ``finish``; the second cannot be read."""
    commit(shell, Commit(*(Delay(State(id), "finish", after=0) for id in "abc")))
    damage(shell, "b")
    return shell


def commit(shell: Shell, *commits: Commit) -> None:
    async def do() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            for each in commits:
                await engine.do(each)

    anyio.run(do)


def damage(shell: Shell, id: str) -> None:
    with closing(sqlite3.connect(shell.store)) as connection, connection:
        connection.execute("UPDATE versions SET state = '?' WHERE id = ?", (id,))


def told(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether it ended with 1 and said what it could not read, once, and nothing else."""
    return done.returncode == 1 and done.stderr.startswith(LINE) and done.stderr.count("\n") == 1


def ids(stdout: str) -> list[str]:
    return [json.loads(line)["id"] for line in stdout.splitlines()]


def test_ls_lists_the_others(store: Shell) -> None:
    done = store.run("ls", "--json")
    assert (True, ["a", "c"]) == (told(done), ids(done.stdout))
    assert told(store.run("ls", "--status", "delayed"))
    assert "a" in store.run("ls").stdout


def test_ls_does_not_say_that_nothing_matches(shell: Shell) -> None:
    commit(shell, Commit(End(State("a")), End(State("b"))))
    damage(shell, "b")
    done = shell.run("ls", "--status", "ended")
    assert told(done)
    damage(shell, "a")
    assert "no state matches" not in shell.run("ls").stderr


def test_watch_goes_on(store: Shell) -> None:
    process = store.start("watch", "--after", "0", "--json")
    assert ["a", "c"] == ids("".join(read_until(process.stdout, "\n") for _ in range(2)))
    interrupt(process)
    code, _, stderr = finish(process)
    assert (1, 1) == (code, stderr.count(LINE))
    assert stderr.endswith("go on with --after 3\n")


def test_show_has_the_other_versions(store: Shell) -> None:
    """The version that is current, or any other."""
    assert told(store.run("show", "b"))
    assert told(store.run("show", "b", "--json"))
    commit(store, Commit(Pause(State("b", rev=2), "stamp")))
    done = store.run("show", "b", "--history", "--json")
    assert told(done)
    assert [4] == [json.loads(line)["rev"] for line in done.stdout.splitlines()]
    assert 0 == store.run("show", "b").returncode
    assert told(store.run("show", "b", "--history"))


def test_status_counts_the_others(store: Shell) -> None:
    done = store.run("status", "--json")
    assert told(done)
    assert 2 == json.loads(done.stdout)["due"][0]["due"]


def test_retry_retries_the_others(shell: Shell) -> None:
    commit(shell, Commit(*(Pause(State(id), "finish") for id in "abc")))
    damage(shell, "b")
    done = shell.run("retry", "--status", "paused", "--json", "--dry-run")
    assert (1, 1) == (done.returncode, done.stderr.count(LINE))
    assert ["a", "c"] == ids(done.stdout)
    done = shell.run("retry", "b")
    assert (1, 1) == (done.returncode, done.stderr.count(LINE))


def test_compact_is_not_stopped(store: Shell) -> None:
    commit(store, Commit(*(End(State(id, rev=rev)) for rev, id in enumerate("abc", 1))))
    done = store.run("compact", "--before", "0s")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("removed 3 versions")


def test_run_runs_the_others(store: Shell) -> None:
    """The line of the state that cannot be read, and what is due, are counted and told."""
    file = store.write("in.jsonl", *({"id": id} for id in "bde"))
    options = ("--input", file, "--start", "finish", "--on-error", "skip")
    done = store.run("run", "work.py:flows", *options)
    assert 1 == done.returncode
    assert LINE in done.stderr
    assert "Traceback" not in done.stderr
    assert "3 lines: 2 ended well" in done.stdout
    assert "unreadable" in done.stdout


def test_work_works_on_the_others(store: Shell) -> None:
    """Also if the state of the election cannot be read: it is replaced."""
    election = State(LEADER_ID, retry=RetryPolicy(lease=1))

    async def lead() -> None:
        async with connect(f"sqlite:///{store.store}") as driver, Engine(driver) as engine:
            await engine.timers.commit(Commit(Transit(election, LEADER_ID)))

    anyio.run(lead)
    damage(store, LEADER_ID)
    process = store.start("work", "work.py:flows")
    wait_for(lambda: {store.status("a"), store.status("c")} == {"ended"})
    interrupt(process)
    code, _, stderr = finish(process)
    assert (0, 1) == (code, stderr.count(LINE))
    assert f"(state '{LEADER_ID}') cannot be read" in stderr
    assert "Traceback" not in stderr
