"""A real process, run through the command line, killed part-way, and run again.

1,434 applications for environmental permits, with the 8,577 tasks that people did on them. They
are not part of this repository: they are looked for in ``../shared/data`` beside the checkout, or
in the directory that ``FLOWSTATE_TEST_DATA`` names. Ten of them come with the example.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from .cli.shell import Shell, finish, interrupt, read_until

ROOT = Path(__file__).parent.parent
FLOWS = f"{ROOT / 'docs/examples/permits.py'}:flows"
SHIPPED = ROOT / "docs/examples/permits.jsonl"
ALL = Path(os.environ.get("FLOWSTATE_TEST_DATA", ROOT.parent / "shared/data")) / "permits.jsonl"

SEED = 20111011
MARKER = "the end of the log"
"""The state that is run last, so that a watcher knows that it has seen everything."""

Version: TypeAlias = dict[str, Any]
Task: TypeAlias = tuple[str, str, str, str]
"""task, resource, group, at"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.write("nothing.jsonl")
    assert run(shell, "nothing.jsonl").returncode == 0  # so that there is a store to watch
    return shell


@pytest.mark.skipif(not ALL.exists(), reason=f"the real cases are not in {ALL.parent}")
def test_all_cases_survive_a_kill_and_a_watcher_that_is_cut_misses_nothing(shell: Shell) -> None:
    cases = read_cases(ALL)
    assert (len(cases), sum(map(len, cases.values()))) == (1_434, 8_577)

    with ThreadPoolExecutor() as threads:
        log = threads.submit(follow, shell, random.Random(SEED), longest_look=2_000)
        trigger = shell.start("watch", "--json", "--after", "0")
        first = shell.start(*command(str(ALL)), "--concurrency", "20")
        take(trigger, 3_000)
        assert first.poll() is None, "it ended before it could be killed"
        first.kill()
        assert finish(first)[0] == -9
        trigger.kill()
        finish(trigger)

        check_part_way(shell, cases)
        again = run(shell, str(ALL))
        assert (again.returncode, again.stderr) == (0, "")
        assert "1,434 lines: 1,434 ended well" in again.stdout
        run_marker(shell)
        check_whole(shell, cases, log.result())


def test_the_shipped_cases_survive_a_kill_too(shell: Shell) -> None:
    cases = read_cases(SHIPPED)
    lines = SHIPPED.read_text().splitlines(keepends=True)

    with ThreadPoolExecutor() as threads:
        log = threads.submit(follow, shell, random.Random(SEED), longest_look=30)
        trigger = shell.start("watch", "--json", "--after", "0")
        first = shell.start(*command("-"))
        assert first.stdin
        first.stdin.write("".join(lines[:4]) + lines[4][:100])
        first.stdin.flush()
        take(trigger, sum(len(tasks) + 2 for tasks in list(cases.values())[:4]))
        first.kill()
        assert finish(first)[0] == -9
        trigger.kill()
        finish(trigger)

        check_part_way(shell, cases)
        again = run(shell, str(SHIPPED))
        assert (again.returncode, again.stderr) == (0, "")
        assert f"{len(cases)} lines: {len(cases)} ended well, 4 of them before" in again.stdout
        run_marker(shell)
        check_whole(shell, cases, log.result())


# ---------------------------------------------------------------- what is run


def command(source: str) -> Sequence[str]:
    return ("run", FLOWS, "--input", source, "--start", "receive")


def run(shell: Shell, source: str) -> Any:
    return shell.run(*command(source))


def run_marker(shell: Shell) -> None:
    shell.write("marker.jsonl", {"id": MARKER, "data": {"tasks": []}})
    assert run(shell, "marker.jsonl").returncode == 0


def take(watcher: Any, count: int) -> list[Version]:
    """The next versions that a watcher prints."""
    return [json.loads(read_until(watcher.stdout, "\n")) for _ in range(count)]


def follow(shell: Shell, chance: random.Random, longest_look: int) -> list[Version]:
    """What watchers see that are cut at random places, each going on where the last one was cut.

    Half of them are killed: then the last whole line says where to go on. The others end with the
    resume token that they say.
    """
    log: list[Version] = []
    after = 0
    while not (log and is_marker(log[-1])):
        watcher = shell.start("watch", "--json", "--after", str(after))
        for version in look(watcher, chance.randint(1, longest_look)):
            log.append(version)
            after = version["rev"]
        is_killed = chance.random() < 0.5
        watcher.kill() if is_killed else interrupt(watcher)
        _, rest, said = finish(watcher)
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):  # a killed one may be cut within a line
                log.append(json.loads(line))
                after = log[-1]["rev"]
        if not is_killed:
            token = int(said.rpartition("--after ")[2])
            assert token == after, "the resume token is what was printed last"
    return log


def look(watcher: Any, count: int) -> Iterator[Version]:
    for _ in range(count):
        (version,) = take(watcher, 1)
        yield version
        if is_marker(version):
            return


def is_marker(version: Version) -> bool:
    return (version["id"], version["transition"]["status"]) == (MARKER, "ended")


# ---------------------------------------------------------------- what is checked


def check_part_way(shell: Shell, cases: Mapping[str, list[Task]]) -> None:
    """The store and the commands are whole: each case has done its first tasks, none twice."""
    assert is_whole(shell)
    current = shell.states()
    ended = [state["id"] for state in current if state["transition"]["status"] == "ended"]
    assert 0 < len(ended) < len(cases)
    for state in current:
        assert int(state.get("annotations", {}).get("done", 0)) <= len(cases[state["id"]])
    for state in current[:2] + current[-2:]:
        history = shell.history(state["id"])
        assert history[-1] == state
        done = tasks_of(history)
        assert done == cases[state["id"]][: len(done)]
    table = shell.run("ls", "--status", "ended")
    assert (table.returncode, table.stderr) == (0, "")
    assert len([row for row in table.stdout.splitlines() if row.startswith(" case-")]) == len(ended)


def check_whole(shell: Shell, cases: Mapping[str, list[Task]], log: list[Version]) -> None:
    """Every case did exactly its tasks in order, and the log has every revision once, but for those
    of the kernel's own states, which a watcher does not show."""
    assert is_whole(shell)
    # one version to begin with, one a task, one to end with; the marker has no task
    size = sum(len(tasks) + 2 for tasks in cases.values()) + 2
    moved = [version for version in log if not was_lost(version)]
    assert size == len(moved)
    revs = [version["rev"] for version in log]
    assert sorted([*revs, *kernel_revs(shell)]) == list(range(1, revs[-1] + 1))
    assert revs == sorted(revs)

    histories: dict[str, list[Version]] = defaultdict(list)
    for version in log:
        histories[version["id"]].append(version)
    assert histories.keys() == {*cases, MARKER}
    for id, tasks in cases.items():
        begun, *done, ended = [each for each in histories[id] if not was_lost(each)]
        assert begun["transition"] == {"to": "receive", "status": "running"}
        assert tasks_of(done) == tasks
        assert all(
            version["transition"]["to"] in version["labels"]["task"].lower() for version in done
        )
        assert ended["transition"] == {"status": "ended"}

    current = sorted((history[-1] for history in histories.values()), key=lambda v: v["rev"])
    assert shell.states() == current
    for id in random.Random(SEED).sample(sorted(cases), 3):
        assert shell.history(id) == histories[id]


def was_lost(version: Version) -> bool:
    """Whether it is there only because the process that had taken the state was killed."""
    return bool(version["transition"].get("cause") == "lost")


def kernel_revs(shell: Shell) -> list[int]:
    """The revisions of the kernel's own states."""
    connection = sqlite3.connect(shell.store)
    try:
        rows = connection.execute("SELECT rev FROM versions WHERE id LIKE 'flowstate.%'").fetchall()
        return [rev for (rev,) in rows]
    finally:
        connection.close()


def is_whole(shell: Shell) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    connection = sqlite3.connect(shell.store)
    try:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        return str(verdict) == "ok"
    finally:
        connection.close()


def tasks_of(versions: Sequence[Version]) -> list[Task]:
    """The tasks that these versions say were done."""
    return [
        (labels["task"], labels["resource"], here["group"], here["at"])
        for version in versions
        if (labels := version.get("labels", {}))
        and (here := version["transition"].get("annotations"))
    ]


def read_cases(path: Path) -> dict[str, list[Task]]:
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        case["id"]: [
            (task["task"], task["resource"], task["group"], task["at"])
            for task in case["data"]["tasks"]
        ]
        for case in cases
    }
