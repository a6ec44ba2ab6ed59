"""`flowstate ls`, `show` and `cat`: what is stored, for people and as JSON lines."""

from __future__ import annotations

import json
import os
import pty

import anyio
import pytest

from flowstate import (
    Commit,
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
from .stored import fail, fill, store


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ((), "abcdef"),
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
        (("--prefix", ""), "abcdef"),
        (("--flow", "send"), "abef"),
        (("--flow", "send", "--flow", "stamp"), "abcef"),
        (("--flow", "send", "--status", "delayed"), "e"),
        (("--flow", "nowhere"), ""),
        (("--failed",), "f"),
        (("--failed", "--status", "ended"), "df"),
        (("--limit", "2"), "ab"),
        (("--limit", "7"), "abcdef"),
        (("--newest",), "fedcba"),
        (("--newest", "--limit", "2"), "fe"),
        (("--newest", "--limit", "2", "--flow", "send"), "fe"),
    ],
)
def test_ls_selects_by_all_labels_and_any_status(
    shell: Shell, options: tuple[str, ...], ids: str
) -> None:
    fill(shell)
    fail(shell, State("f"))
    assert [state["id"] for state in shell.states(*options)] == list(ids)


def test_the_limit_does_not_count_flowstates_own_states(shell: Shell) -> None:
    shell.run("run", "work.py:flows", "--input", shell.write("in.jsonl", {"id": "a"}), "--start",
              "finish")  # fmt: skip
    shell.run("hold", "finish")
    shell.run("hold", "print")
    assert [state["id"] for state in shell.states("--newest", "--limit", "1")] == ["a"]
    (own,) = shell.states("--newest", "--limit", "1", "--all")
    assert own["id"].startswith("flowstate.")


@pytest.mark.parametrize(
    "options",
    [
        ("--label", "queue"),
        ("--label", "=v"),
        ("--label", "a=1", "--label", "a=2"),
        ("--status", "gone"),
        ("--status", "new"),
        ("--limit", "0"),
        ("--flow", ""),
    ],
)
def test_ls_refuses_a_selection_that_makes_no_sense(shell: Shell, options: tuple[str, ...]) -> None:
    fill(shell)
    done = shell.run("ls", *options)
    assert done.returncode == 2
    assert options[0].removeprefix("--") in done.stderr


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
