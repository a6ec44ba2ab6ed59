"""``flowstate check``: a verdict for each law, on any store but one that is in use."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from .shell import Shell, finish, read_terminal, read_until

BROKEN = """
from flowstate.drivers.memory import MemoryDriver
from flowstate import RevMismatchError


class TellsOneConflict(MemoryDriver):
    async def commit(self, plan):
        print("NOISE")
        try:
            return await super().commit(plan)
        except RevMismatchError as error:
            id, pair = next(iter(error.conflicts.items()))
            raise RevMismatchError({id: pair}) from None


class FallsBehind(MemoryDriver):
    async def head(self):
        return max(0, await super().head() - 1)


class CannotOpen(MemoryDriver):
    async def open(self):
        raise OSError("no luck")


class NeverWakes(MemoryDriver):
    async def wait(self, after):
        import anyio
        await anyio.sleep_forever()
"""


@pytest.fixture
def drivers(shell: Shell) -> Shell:
    (shell.directory / "drivers.py").write_text(BROKEN)
    return shell


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Law -> its line of JSON."""
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {record["law"]: record for record in records}


def test_each_law_has_a_line_with_its_sentence_and_verdict(shell: Shell) -> None:
    """In the order of the suite, below what it belongs to; then what was not proved and why, and
    the counts."""
    done = shell.run(
        *("check", "memory:", "--law", "stale", "--law", "another process"),
        *("--law", "every_match_once_whoever"),
    )
    assert (0, "") == (done.returncode, done.stderr)
    lines = re.sub(r" *\d+\.\d+ s", " … s", done.stdout).splitlines()
    assert lines == [
        "Conflicts: a commit holds only if every state is still where its plan expects it.",
        (
            "  kept … s  A commit that expects a superseded revision is refused, and says which "
            "was found."
        ),
        "  kept … s  A required state must be at the revision that was seen.",
        (
            "  kept … s  Every id that is not as expected is named, and no other: writes "
            "and requirements, stale, missing and already there."
        ),
        "The head: the newest revision, and waking up when there is a newer one.",
        (
            "  not proved           A waiter hears of every commit that another process makes, "
            "however it and a look at the store fall together."
        ),
        "Law 7, watch: every matching version exactly once, in order, from any revision.",
        (
            "  kept … s  Whoever writes, tasks, drivers or processes: each match is given "
            "once, in order."
        ),
        "",
        "not proved  the store does not declare that processes may share it: 1 law, 1 law in part",
        "not proved  the store does not declare that drivers may share it: 1 law in part",
        "",
        "5 laws: 4 kept, 1 not proved; … s",
    ]


@pytest.mark.parametrize("part", ["5", "law 5", "Law 5, known outcome:", "LAW-5", "known outcome"])
def test_a_law_is_selected_by_its_number_or_heading(shell: Shell, part: str) -> None:
    """Exactly the laws under that heading, not all whose text has such a digit."""
    done = shell.run("check", "memory:", "--json", "--backend", "trio", "--law", part)
    found = verdicts(done)
    assert (0, "") == (done.returncode, done.stderr)
    assert {"Law 5, known outcome"} == {law["about"].partition(":")[0] for law in found.values()}
    assert {"a_refused_commit_may_hold_later", "the_engine_commits_again_by_itself"} <= set(found)


def test_several_numbers_select_the_laws_of_each(shell: Shell) -> None:
    """``--without`` takes the same, and leaves out what it matches."""
    given = ("--law", "4", "--law", "law 1", "--law", "stale requirement", "--without", "law 4")
    found = verdicts(shell.run("check", "memory:", "--json", "--backend", "trio", *given))
    titles = [law["about"].partition(":")[0] for law in found.values()]
    assert ["Law 1, order", "Conflicts"] == list(dict.fromkeys(titles))


def test_the_help_says_what_a_law_is_selected_by(shell: Shell) -> None:
    """A number, or words of what is printed of a law."""
    told = " ".join(shell.run("check", "--help").stdout.split())
    assert "laws with this number (5), or with these words in their heading, name or text" in told


def test_a_broken_law_is_named_with_its_text_and_what_was_found(drivers: Shell) -> None:
    """On which loops, where, and the values; the exit code is 1. What a driver prints is not
    between it."""
    done = drivers.run(
        "check", "drivers.py:TellsOneConflict", "--law", "conflicts_are", "-k", "own"
    )
    assert (1, "") == (done.returncode, done.stderr)
    assert "NOISE" not in done.stdout
    told = done.stdout[done.stdout.index("\nbroken  ") + 1 :]
    assert told.startswith(
        "broken  all_conflicts_are_reported\n"
        "  Every id that is not as expected is named, and no other: writes and requirements, "
        "stale, missing and already there.\n"
        "  asyncio, trio: conflicts.py:"
    )
    assert "Right contains 4 more items:" in told
    assert "'required': (" in told


def test_verdicts_are_lines_of_json_for_programs(drivers: Shell) -> None:
    """With all that is known of a law; only on the loop that was asked for."""
    done = drivers.run(
        *("check", "drivers.py:TellsOneConflict", "--json", "--backend", "trio"),
        *("--law", "all conflicts", "--law", "stale-requirement", "--law", "through the process"),
    )
    found = verdicts(done)
    assert (1, ["a_stale_requirement_conflicts", "all_conflicts_are_reported"]) == (
        done.returncode,
        list(found),
    )
    broken = found["all_conflicts_are_reported"]
    assert ("broken", ["trio"]) == (
        broken["verdict"],
        [failure["case"] for failure in broken["failures"]],
    )
    assert broken["text"].startswith("Every id that is not as expected is named, and no other")
    assert "kept" == found["a_stale_requirement_conflicts"]["verdict"]


def test_laws_that_one_error_breaks_are_told_together(drivers: Shell) -> None:
    """A driver that cannot be opened is one problem, told once, with its place in their code."""
    done = drivers.run("check", "drivers.py:CannotOpen", "--law", "conflict")
    assert 1 == done.returncode
    assert 1 == done.stdout.count("OSError: no luck")
    assert "asyncio, trio: drivers.py:23, in open" in done.stdout
    assert "0 kept" not in done.stdout


def test_patience_bounds_what_never_happens(drivers: Shell) -> None:
    """A driver that never wakes is told so as soon as patience ends."""
    done = drivers.run(
        *("check", "drivers.py:NeverWakes", "--law", "a_commit_wakes_who_waits"),
        *("--patience", "0.2", "--json"),
    )
    (law, *_) = verdicts(done).values()
    assert ("broken", True) == (law["verdict"], law["seconds"] < 10)
    assert "TimeoutError" in law["failures"][0]["message"]


def test_the_machine_tells_the_shortest_way_to_the_difference(drivers: Shell) -> None:
    """``--machine`` is judged as a law of its own, whatever --law says."""
    done = drivers.run(
        *("check", "drivers.py:FallsBehind", "--machine", "20", "--json"),
        *("--law", "the head of an empty store"),
    )
    found = verdicts(done)
    assert "kept" == found["the_head_of_an_empty_store_is_zero"]["verdict"]
    machine = found["a_driver_does_what_a_plain_model_does"]
    assert "broken" == machine["verdict"]
    steps = machine["failures"][0]["steps"]
    assert (1, 1) == (steps.count("state.commit"), steps.count("state.teardown()"))


def test_a_store_is_proved_between_processes_and_behind_its_back(shell: Shell) -> None:
    """What a ``Store`` declares is proved, and what --lacks takes back is not."""
    (shell.directory / "stores.py").write_text(SQLITE)
    law = ("check", "stores.py:SQLiteStore", "--backend", "asyncio", "--json", "--law")
    done = shell.run(*law, "never_share_a_revision", "--law", "go_on_after_reopening")
    assert 0 == done.returncode
    assert [("kept", [])] * 2 == [
        (law["verdict"], law["not_proved"]) for law in verdicts(done).values()
    ]
    done = shell.run(*law, "go_on_after_reopening", "--lacks", "persistent")
    assert {"not proved"} == {law["verdict"] for law in verdicts(done).values()}


SQLITE = """
import sqlite3
from contextlib import closing
from flowstate import connect
from flowstate.testing import Store, StoredVersion


class SQLiteStore(Store):
    shared = processes = persistent = True

    def __init__(self, directory):
        self.path = directory / "store.db"

    @property
    def url(self):
        return f"sqlite:///{self.path}"

    def driver(self):
        return connect(self.url)

    def raw_versions(self):
        return [StoredVersion(*row) for row in self._rows("rev, id, commit_id FROM versions")]

    def raw_payloads(self):
        return self._rows("rev, checksum FROM payloads")

    def _rows(self, what):
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(f"SELECT {what} ORDER BY rev").fetchall()
"""


def test_a_url_with_a_placeholder_makes_new_stores(shell: Shell) -> None:
    """{tmp} leaves nothing behind; what {n} made stays, and is named."""
    before = sorted(shell.directory.iterdir())
    law = ("--law", "everything is there after reopening")
    done = shell.run("check", "sqlite:///{tmp}/store.db", *law)
    assert (0, before) == (done.returncode, sorted(shell.directory.iterdir()))
    done = shell.run("check", "sqlite:///check-{n}.db", *law)
    assert 0 == done.returncode
    stores = sorted(path.name for path in shell.directory.glob("check-*.db"))
    (template,) = re.findall(r"to remove: sqlite:///(.*)", done.stdout)
    assert stores == [template.replace("*", str(n)) for n in (1, 2)]


# ---------------------------------------------------------------- nothing is proved


def test_a_store_is_not_opened_if_its_url_names_one_only(shell: Shell) -> None:
    """Each law needs a new one. The error says what to write; the file is as it was."""
    shell.write("lines.jsonl", {"id": "a"})
    assert 0 == shell.run(*RUN).returncode
    before = shell.store.read_bytes()
    done = shell.run("check", "sqlite:///store.db")
    assert (2, "") == (done.returncode, done.stdout)
    told = "sqlite:///store.db: is one store, and each law needs a new one; nothing was opened"
    assert told in done.stderr
    assert "sqlite:///{tmp}/store.db" in done.stderr
    assert before == shell.store.read_bytes()
    assert {"store.db", "store.db-sessions", "work.py", "lines.jsonl"} >= {
        path.name for path in shell.directory.iterdir() if path.is_file()
    }


def test_a_store_that_is_in_use_is_refused(shell: Shell) -> None:
    """However it is reached: nothing is written to it, and no law is judged."""
    shell.write("lines.jsonl", {"id": "a"})
    assert 0 == shell.run(*RUN).returncode
    before = shell.states()
    (shell.directory / "mine.py").write_text(
        "from flowstate import connect\n"
        "def driver(directory):\n    return connect('sqlite:///store.db')\n"
    )
    done = shell.run("check", "mine.py:driver", "--law", "conflict")
    assert (2, "") == (done.returncode, done.stdout)
    assert "is not new: its head is 2. Laws are proved on new stores only" in done.stderr
    assert before == shell.states()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nosuch://store"], "no driver for nosuch:"),
        (["drivers.py:Nothing"], "drivers.py has no 'Nothing'"),
        (["nothing.py:Store"], "there is no file nothing.py"),
        (["MemoryDriver"], "is not of the form URL or MODULE:FACTORY"),
        (["collections:OrderedDict"], "OrderedDict: gives a OrderedDict; it takes what makes"),
        (["json:loads"], "the store: cannot be made: TypeError: the JSON object must be"),
        (["memory:", "--law", "no law says this"], "law: none matches 'no law says this'"),
        (
            ["memory:", "--law", "10"],
            (
                "law: none matches '10'; give the number of a law, or words of its heading, name "
                "or text. There are: Law 1, order; Law 2, atomicity; "
            ),
        ),
        (["memory:", "--law", ""], "law: none matches ''; give"),
        (["memory:", "--lacks", "money"], "'money' is not one of"),
    ],
)
def test_what_cannot_be_proved_is_told(drivers: Shell, arguments: list[str], problem: str) -> None:
    """Called wrongly: 2, and a sentence instead of a traceback."""
    done = drivers.run("check", *arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert problem in " ".join(done.stderr.split())


def test_without_the_extra_it_says_what_to_install(shell: Shell) -> None:
    """Every other command works without; this one names the extra."""
    program = (
        "import sys; sys.modules['pytest'] = None; from flowstate.cli import main;"
        "main(['check', 'memory:'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (1, "") == (done.returncode, done.stdout)
    assert "needs pytest: pip install 'flowstate-kernel[testing]'" in done.stderr


# ---------------------------------------------------------------- where it is called


def test_nothing_of_where_it_is_called_has_a_say(shell: Shell) -> None:
    """No configuration, no conftest and no options of pytest; and nothing is left there."""
    (shell.directory / "conftest.py").write_text("raise SystemExit('read')\n")
    (shell.directory / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    before = sorted(shell.directory.rglob("*"))
    done = shell.run(
        *("check", "memory:", "--law", "stale", "--machine", "2"), PYTEST_ADDOPTS="--nonsense"
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert before == sorted(shell.directory.rglob("*"))


def test_an_interrupt_tells_what_was_judged_so_far(shell: Shell) -> None:
    """Ctrl-C ends it at once, with 130 and a summary."""
    process = shell.start("check", "memory:")
    read_until(process.stdout, "kept")
    process.send_signal(signal.SIGINT)
    code, told, _ = finish(process)
    assert 130 == code
    assert re.search(r"\d+ laws? of \d+, then it was interrupted: ", told)


def test_a_terminal_shows_progress_and_wraps_sentences(shell: Shell) -> None:
    """Of 80 columns none is exceeded, and a sentence goes on below itself."""
    ours, theirs = pty.openpty()
    process = shell.start(
        *("check", "memory:", "--law", "conflict"),
        stdout=theirs,
        stderr=theirs,
        environment={"TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    shown = read_terminal(ours).decode()
    finish(process)
    assert "proving" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    plain = plain.replace("\r\n", "\n").replace("\r", "\n")
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert "\n" + " " * 23 + "writes and requirements, stale, missing" in plain


RUN = ("run", "work.py:flows", "--input", "lines.jsonl", "--start", "finish")
