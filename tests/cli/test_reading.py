"""`flowstate ls`, `show` and `watch`: what is stored, for people and as JSON lines."""

from __future__ import annotations

import json
import os
import pty
import signal
from typing import Any

import anyio
import pytest

from flowstate import (
    AnyCommand,
    Commit,
    Delay,
    End,
    Engine,
    Pause,
    RetryPolicy,
    Save,
    State,
    Transit,
    connect,
)

from .shell import Shell, finish, interrupt, read_terminal, read_until


def store(shell: Shell, *commits: AnyCommand) -> None:
    """Commit each of these; a state is found by its id, at whatever revision it is."""

    async def commit() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            for command in commits:
                await engine.do(command)

    anyio.run(commit)


def fill(shell: Shell) -> None:
    store(
        shell,
        Commit(Transit(State("a", labels={"queue": "mail", "to": "ann"}), "send")),
        Commit(Transit(State("b", labels={"queue": "mail", "to": "bob"}), "send")),
        Commit(Pause(State("c", labels={"queue": "post"}), "stamp", reason="no stamps")),
        Commit(End(State("d"), reason="done")),
        Commit(Delay(State("e", labels={"queue": "mail"}), "send", after=3600)),
    )


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ((), "abcde"),
        (("--label", "queue=mail"), "abe"),
        (("--label", "queue=mail", "--label", "to=bob"), "b"),
        (("--label", "queue=mail", "--label", "queue=mail"), "abe"),
        (("--label", "queue=none"), ""),
        (("--status", "running"), "ab"),
        (("--status", "PAUSED"), "c"),
        (("--status", "paused", "--status", "ended"), "cd"),
        (("--label", "queue=mail", "--status", "delayed"), "e"),
        (("--prefix", "b"), "b"),
        (("--prefix", "b", "--label", "queue=post"), ""),
        (("--prefix", ""), "abcde"),
    ],
)
def test_ls_selects_by_all_labels_and_any_status(
    shell: Shell, options: tuple[str, ...], ids: str
) -> None:
    fill(shell)
    assert [state["id"] for state in shell.states(*options)] == list(ids)


@pytest.mark.parametrize(
    "options",
    [
        ("--label", "queue"),
        ("--label", "=v"),
        ("--label", "a=1", "--label", "a=2"),
        ("--status", "gone"),
        ("--status", "new"),
    ],
)
def test_ls_refuses_a_selection_that_makes_no_sense(shell: Shell, options: tuple[str, ...]) -> None:
    fill(shell)
    done = shell.run("ls", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr


def test_ls_is_a_table_with_a_state_a_line(shell: Shell) -> None:
    fill(shell)
    done = shell.run("ls")
    header, _, *rows = done.stdout.strip().splitlines()
    assert header.split() == [
        "id",
        "rev",
        "status",
        "flow",
        "labels",
        "committed",
        "(UTC)",
        "reason",
    ]
    assert [row.split()[:4] for row in rows] == [
        ["a", "1", "running", "send"],
        ["b", "2", "running", "send"],
        ["c", "3", "paused", "stamp"],
        ["d", "4", "ended", rows[3].split()[3]],
        ["e", "5", "delayed", "send"],
    ]
    assert "queue=mail  to=ann" in rows[0]
    assert rows[2].rstrip().endswith("no stamps")


def test_ls_shows_current_versions_only(shell: Shell) -> None:
    fill(shell)
    shell.run("end", "a")
    assert [state["id"] for state in shell.states()] == list("bcdea")


def test_ls_says_when_nothing_matches(shell: Shell) -> None:
    fill(shell)
    done = shell.run("ls", "--label", "queue=none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no state matches\n")


def test_a_long_list_is_shown_whole(shell: Shell) -> None:
    shell.write("in.jsonl", *({"id": f"s{index}"} for index in range(2_345)))
    shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish")
    table = shell.run("ls").stdout
    assert len([line for line in table.splitlines() if line.startswith(" s")]) == 2_345
    assert len(shell.states()) == 2_345


HOSTILE = "\x1b[2J[red]bold[/]\r\nnext\x07"


@pytest.mark.parametrize(
    "command",
    [("ls",), ("show", HOSTILE), ("show", HOSTILE, "--history"), ("watch", "--after", "0")],
)
def test_nothing_that_is_stored_controls_the_terminal(
    shell: Shell, command: tuple[str, ...]
) -> None:
    state = State(HOSTILE, labels={HOSTILE: HOSTILE}, annotations={HOSTILE: HOSTILE})
    state = state.attach(HOSTILE, 1).stack(HOSTILE, State(HOSTILE))
    store(shell, Commit(Pause(state, HOSTILE, reason=HOSTILE, annotations={HOSTILE: HOSTILE})))
    if command[0] == "watch":
        process = shell.start(*command)
        shown = read_until(process.stdout, "\n")
        interrupt(process)
        finish(process)
    else:
        shown = shell.run(*command).stdout
    assert r"\x1b[2J[red]bold[/]\r\nnext\x07" in shown
    assert not set("\x1b\r\x07") & set(shown)


# ---------------------------------------------------------------- show


def test_show_tells_all_that_a_state_holds(shell: Shell) -> None:
    policy = RetryPolicy(max_attempts=7)
    state = State("a", labels={"k": "v"}, annotations={"n": "m"}, retry=policy)
    state = state.attach("order", {"x": 1}).stack("caller", State("b"))
    store(shell, Commit(Pause(state, "ship", reason="rain", annotations={"t": "u"}, timeout=60)))

    shown = dict(line.split(maxsplit=1) for line in shell.run("show", "a").stdout.splitlines())

    expected = {
        "id": "a", "status": "paused", "flow": "ship", "reason": "rain", "cause": "command",
        "revision": "1", "labels": "k=v", "annotations": "n=m", "transition": "t=u",
        "stacked": "b, new",
    }  # fmt: skip
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown.pop("stacked").split(maxsplit=1) == ["caller", expected.pop("stacked")]
    assert expected.items() <= shown.items()
    assert shown["alarm"].endswith("UTC, to ship")
    assert shown["data"].startswith("order  application/json, 7 B, sha256 ")
    assert "max_attempts=7" in shown["retry"]


def test_show_json_is_the_state_as_stored(shell: Shell) -> None:
    fill(shell)
    (shown,) = shell.run("show", "c", "--json").stdout.splitlines()
    state = json.loads(shown)
    committed_at = state.pop("committed_at")
    assert committed_at > 1_700_000_000_000
    assert state == {
        "id": "c",
        "rev": 3,
        "labels": {"queue": "post"},
        "transition": {"to": "stamp", "status": "paused", "reason": "no stamps"},
    }


def test_show_history_tells_what_changed_between_versions(shell: Shell) -> None:
    async def move() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            state = State("a", labels={"same": "s", "old": "o", "both": "1"}).attach("d", "x")
            (state,) = await engine.do(Commit(Transit(state, "one")))
            await engine.do(Commit(Transit(State("between"), "one")))
            state = state.with_labels(both="2", new="n").without_labels("old")
            state = state.with_annotations(note="hi").attach("d", "xyz")
            (state,) = await engine.do(Commit(Transit(state, "two", annotations={"by": "me"})))
            await engine.do(Commit(End(state, reason="enough")))

    anyio.run(move)
    done = shell.run("show", "a", "--history")
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.strip().splitlines()][2:]
    changes = [line.rpartition(" running ")[2] for line in lines]
    assert changes[:4] == ["one + both=1", "+ old=o", "+ same=s", changes[3]]
    assert changes[3].startswith("+ data d=application/json, 3 B (")
    assert changes[4:9] == [
        "two ~ both=1 → 2", "+ new=n", "- old=o", "+ annotation note=hi", changes[8],
    ]  # fmt: skip
    assert changes[8].startswith("~ data d=application/json, 3 B (")
    assert " → application/json, 5 B (" in changes[8]
    assert changes[9] == "@ by=me"
    assert lines[10].startswith("4 ")
    assert lines[10].endswith(" ended enough")
    assert len(lines) == 11
    assert [version["rev"] for version in shell.history("a")] == [1, 3, 4]


# ---------------------------------------------------------------- watch


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


# ---------------------------------------------------------------- pipes and terminals


def test_a_broken_pipe_is_quiet(shell: Shell) -> None:
    shell.write("in.jsonl", *({"id": f"{index:0500}"} for index in range(2_000)))
    shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish")
    for options in (("ls",), ("ls", "--json")):
        process = shell.start(*options)
        assert process.stdout
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""
        process.wait(timeout=60)
        assert process.stdin
        process.stdin.close()
        process.stderr.close()


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    fill(shell)
    assert "\x1b[" not in shell.run("ls", TERM="xterm-256color").stdout
    ours, theirs = pty.openpty()
    process = shell.start(
        "ls", stdout=theirs, environment={"TERM": "xterm-256color", **environment}
    )
    os.close(theirs)
    shown = read_terminal(ours)
    finish(process)
    assert b"no stamps" in shown
    assert (b"\x1b[35mpaused" in shown) is coloured


def test_letters_that_the_terminal_does_not_have_are_escaped(shell: Shell) -> None:
    store(shell, Commit(Transit(State("ü→"), "f")))
    done = shell.run("ls", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert r"\xfc\u2192" in done.stdout


# ---------------------------------------------------------------- cat


def test_cat_writes_a_payload_byte_for_byte(shell: Shell) -> None:
    content = bytes(range(256)) + b"\r\n"
    carrying = State("a").attach("scan", content).attach("items", [1, "zwei"])
    store(shell, Commit(Pause(carrying)))
    assert shell.run("cat", "a", "items").stdout == '[1,"zwei"]'
    with (shell.directory / "scan").open("wb") as file:
        finish(shell.start("cat", "a", "scan", stdout=file.fileno()))
    assert (shell.directory / "scan").read_bytes() == content


def test_cat_writes_what_a_state_carried_at_a_revision(shell: Shell) -> None:
    store(
        shell,
        Commit(Pause(State("a").attach("n", 1))),
        Commit(Pause(State("b"))),
    )

    async def change() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            state = await engine.get("a")
            await engine.do(Commit(Save(state.attach("n", 2))))

    anyio.run(change)
    assert shell.run("cat", "a", "n").stdout == "2"
    assert shell.run("cat", "a", "n", "--rev", "1").stdout == "1"
    assert shell.run("cat", "a", "n", "--rev", "2").returncode == 1  # it is of another state


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nobody", "n"), "state 'nobody'"),
        (("a", "m"), "data 'm' of state 'a' (it has: 'n')"),
        (("b", "n"), "data 'n' of state 'b' (it has: none)"),
        (("a", "n", "--rev", "7"), "revision 7 of state 'a'"),
    ],
)
def test_cat_says_what_is_not_there(shell: Shell, arguments: tuple[str, ...], told: str) -> None:
    store(shell, Commit(Pause(State("a").attach("n", 1)), Pause(State("b"))))
    done = shell.run("cat", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
