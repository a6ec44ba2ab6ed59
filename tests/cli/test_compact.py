"""`flowstate compact`: what is asked for, what it tells, and that it can be stopped at any time."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from flowstate import Commit, End, Engine, Pause, State, connect
from flowstate.cli.ages import Before

from .shell import Shell, finish, interrupt, read_terminal, wait_for

YEAR_2000_MS = 946_684_800_000


def fill(shell: Shell, versions: int = 4) -> None:
    """One state with a payload for each of its versions, one that has ended, and a third."""

    async def commit() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            state = State("busy")
            for n in range(versions):
                attached = state.attach("blob", f"payload {n}")
                (state,) = await engine.do(Commit(Pause(attached, reason=f"version {n}")))
            await engine.do(Commit(End(State("over"))))
            await engine.do(Commit(Pause(State("newest"))))

    anyio.run(commit)


def rows(shell: Shell, sql: str) -> list[Any]:
    with closing(sqlite3.connect(shell.store)) as connection:
        return connection.execute(sql).fetchall()


def ids(shell: Shell) -> list[str]:
    return [id for (id,) in rows(shell, "SELECT id FROM versions ORDER BY rev")]


def test_it_removes_what_is_old_and_says_how_much(shell: Shell) -> None:
    fill(shell)
    done = shell.run("compact", "--before", "0s")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("removed 3 versions, 3 payloads: ")
    assert ids(shell) == ["busy", "over", "newest"]
    again = shell.run("compact", "--before", "0s")
    assert (again.returncode, again.stdout) == (0, "removed nothing\n")


def test_what_is_young_stays(shell: Shell) -> None:
    fill(shell)
    for before in ("1h", "2026-01-31"):
        done = shell.run("compact", "--before", before)
        assert (done.returncode, done.stdout) == (0, "removed nothing\n")
    with closing(sqlite3.connect(shell.store)) as raw, raw:
        raw.execute("UPDATE versions SET committed_at = ? WHERE rev <= 2", (YEAR_2000_MS,))
    assert shell.run("compact", "--before", "2000-01-01T00:00Z").stdout == "removed nothing\n"
    done = shell.run("compact", "--before", "2000-01-02")
    assert done.stdout.startswith("removed 2 versions")


def test_keep_and_ended(shell: Shell) -> None:
    fill(shell)
    done = shell.run("compact", "--before", "0s", "--keep", "2", "--ended")
    assert done.stdout.startswith("removed 3 versions, all of 1 state, 2 payloads: ")
    assert ids(shell) == ["busy", "busy", "newest"]
    unknown = shell.run("show", "over")
    assert (unknown.returncode, unknown.stderr) == (1, "Error: no state 'over'\n")


def test_a_dry_run_tells_the_same_and_removes_nothing(shell: Shell) -> None:
    fill(shell)
    dry = shell.run("compact", "--before", "0s", "--ended", "--dry-run")
    assert (dry.returncode, len(ids(shell))) == (0, 6)
    done = shell.run("compact", "--before", "0s", "--ended")
    assert dry.stdout == done.stdout.replace("removed", "would remove")
    assert len(ids(shell)) == 2


def test_json_is_one_line_for_programs(shell: Shell) -> None:
    fill(shell)
    done = shell.run("compact", "--before", "0s", "--ended", "--json")
    told = json.loads(done.stdout)
    size = told.pop("size")
    expected = {"upto": 6, "versions": 4, "states": 1, "payloads": 3, "done": True}
    assert told == expected
    assert size > 3 * len("payload 0")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Missing option '--before'"),
        (("--before", "30"), "'30' is neither an age (90m, 12h, 30d, 4w) nor a date"),
        (("--before", "yesterday"), "neither an age"),
        (("--before", "-1d"), "neither an age"),
        (("--before", "1d later"), "neither an age"),
        (("--before", "2999-01-01"), "'2999-01-01' is still to come; it is 20"),
        (("--before", "99999999w"), "'99999999w' is before time began"),
        (("--before", "1d", "--keep", "0"), "0 is not in the range x>=1"),
        (("--before", "1d", "--keep", "all"), "'all' is not a valid integer"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    shell: Shell, arguments: tuple[str, ...], told: str
) -> None:
    fill(shell)
    done = shell.run("compact", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(ids(shell)) == 6


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("1.5d", timedelta(hours=36)),
        ("4w", timedelta(weeks=4)),
        ("1d12h", timedelta(hours=36)),
    ],
)
def test_an_age_is_before_now(age: str, expected: timedelta) -> None:
    began = datetime.now(UTC) - timedelta(milliseconds=1)  # an instant is a whole millisecond
    before = Before().convert(age, None, None)
    assert began - expected <= before <= datetime.now(UTC) - expected


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T12:30", "2026-01-31T12:30:00+00:00"),
        ("2026-01-31T12:30:15Z", "2026-01-31T12:30:15+00:00"),
        ("2026-01-31T12:30+01:00", "2026-01-31T11:30:00+00:00"),
    ],
)
def test_a_date_is_utc_unless_it_says_otherwise(date: str, expected: str) -> None:
    assert Before().convert(date, None, None) == datetime.fromisoformat(expected)


def test_an_age_before_1970_is_1970() -> None:
    assert Before().convert("4000w", None, None) == datetime.fromtimestamp(0, UTC)


# ---------------------------------------------------------------- stopping


def test_a_killed_run_can_be_run_again(shell: Shell) -> None:
    """What it had removed is gone; the next run removes the rest, and nothing else."""
    fill(shell, versions=3_000)
    process = shell.start("compact", "--before", "0s", "--ended")
    wait_for(lambda: rows(shell, "SELECT rev FROM compacted WHERE rev > 0"))
    process.kill()
    assert finish(process)[0] == -9
    (left,) = rows(shell, "SELECT count(*) FROM versions")[0]
    (floor,) = rows(shell, "SELECT rev FROM compacted")[0]
    assert left == 3_002 - floor
    done = shell.run("compact", "--before", "0s", "--ended", "--json")
    assert (done.returncode, json.loads(done.stdout)["versions"]) == (0, left - 2)
    assert ids(shell) == ["busy", "newest"]
    assert rows(shell, "SELECT count(*) FROM payloads") == [(1,)]
    assert rows(shell, "PRAGMA integrity_check") == [("ok",)]


def test_ctrl_c_stops_after_a_batch(shell: Shell) -> None:
    """And says what was removed, and what is left."""
    fill(shell, versions=3_000)
    process = shell.start("compact", "--before", "0s")
    wait_for(lambda: rows(shell, "SELECT rev FROM compacted WHERE rev > 0"))
    interrupt(process)
    code, stdout, stderr = finish(process)
    (left,) = rows(shell, "SELECT count(*) FROM versions")[0]
    assert (code, left > 3) == (130, True)
    assert stderr == "SIGINT: stopping after this batch (again: at once)\n"
    assert stdout.startswith(f"removed {3_002 - left:,} versions, ")
    assert f"; interrupted with {left:,} revisions left. Run it again to go on." in stdout
    assert shell.run("compact", "--before", "0s").returncode == 0
    assert ids(shell) == ["busy", "over", "newest"]


def test_a_terminal_is_shown_how_far_it_has_come(shell: Shell) -> None:
    """On stderr, so that it is in no pipe."""
    fill(shell, versions=300)
    ours, theirs = pty.openpty()
    process = shell.start(
        "compact", "--before", "0s", stderr=theirs, environment={"TERM": "xterm", "COLUMNS": "120"}
    )
    os.close(theirs)
    shown = read_terminal(ours).decode()
    code, stdout, _ = finish(process)
    assert (code, stdout.startswith("removed 299 versions, 299 payloads: ")) == (0, True)
    assert "compacting" in shown
    assert "0 revisions left" in shown
    assert "299 versions" in shown


# ---------------------------------------------------------------- what others see


def test_watch_says_where_history_begins_now(shell: Shell) -> None:
    fill(shell)
    shell.run("compact", "--before", "0s")
    done = shell.run("watch", "--after", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "Error: history after revision 1 was compacted: --after 3 leaves out what is gone, and "
        "`flowstate ls` shows what is current"
    )


def test_show_says_that_history_may_be_missing(shell: Shell) -> None:
    """Beside the output; of what is current nothing is missing."""
    fill(shell)
    assert shell.run("show", "busy", "--history").stderr == ""
    shell.run("compact", "--before", "0s")
    told = "history was compacted: of what was before revision 4, versions may be missing\n"
    for options in ((), ("--json",)):
        done = shell.run("show", "busy", "--history", *options)
        assert (done.returncode, done.stderr) == (0, told)
    assert shell.run("show", "busy").stderr == ""
    assert [state["id"] for state in shell.states()] == ["busy", "over", "newest"]


def test_ids_of_callers_are_forgotten_by_their_own_age(shell: Shell) -> None:
    async def commit() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            for id in ("a", "b"):
                await engine.do(Commit(Pause(State(id))), commit_id=id)

    anyio.run(commit)
    with closing(sqlite3.connect(shell.store)) as raw, raw:
        raw.execute("UPDATE records SET committed_at = ? WHERE id = 'a'", (YEAR_2000_MS,))
    recorded = "SELECT id FROM records ORDER BY id"
    for options in (["--dry-run"], ["--commit-ids", "2000-01-01T00:00Z"]):
        assert shell.run("compact", "--before", "0s", *options).returncode == 0
        assert rows(shell, recorded) == [("a",), ("b",)]
    assert shell.run("compact", "--before", "0s").returncode == 0
    assert rows(shell, recorded) == [("b",)]
    assert shell.run("compact", "--before", "30d", "--commit-ids", "0s").returncode == 0
    assert rows(shell, recorded) == []
    assert ids(shell) == ["a", "b"]
