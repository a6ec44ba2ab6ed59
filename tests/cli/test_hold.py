"""`flowstate hold` and `release`, and what is seen of them."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from flowstate import Commit, Engine, State, Transit, connect
from flowstate.holds import HELD_ID

from .shell import Shell, finish, read_until, wait_for


@pytest.fixture
def store(shell: Shell) -> Shell:
    """With a state in it that is ready at ``finish``."""
    begin(shell, "a", "finish")
    return shell


def begin(shell: Shell, id: str, flow: str) -> None:
    async def do() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            await engine.do(Commit(Transit(State(id), flow)))

    anyio.run(do)


def be_ready_for_long(shell: Shell) -> None:
    async def do() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver:
            now = 1_000_000_000_000
            await driver.claim({"finish": 1}, 1, "me", "mine", now)
            await driver.release([each.held for each in await driver.holdings()], "me", now)

    anyio.run(do)


def held(shell: Shell) -> Any:
    done = shell.run("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["held"]


def told(shell: Shell, *arguments: str) -> str:
    done = shell.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def place(shell: Shell, id: str) -> str:
    (line,) = (line for line in told(shell, "show", id).splitlines() if "place" in line)
    return " ".join(line.split())


def test_a_process_that_works_begins_with_a_held_flow_once_it_is_released(store: Shell) -> None:
    assert "finish: held (the bank is down)\n" == told(
        store, "hold", "finish", "--reason", "the bank is down"
    )
    process = store.start("work", "work.py:flows", "--lease", "1")
    read_until(process.stderr, " leads, term ")
    begin(store, "b", "two_steps")
    wait_for(lambda: len(store.history("b")) == 2)
    assert ["running", "running"] == [store.status(id) for id in "ab"]
    assert "finish: released\n" == told(store, "release", "finish")
    wait_for(lambda: {store.status(id) for id in "ab"} == {"ended"})
    process.terminate()
    assert finish(process)[0] == 0


def test_status_has_the_held_flows_with_their_reasons(store: Shell) -> None:
    assert [] == held(store)
    told(store, "hold", "send")
    told(store, "hold", "finish", "--reason", "not now")
    told(store, "hold", "finish", "--reason", "the bank is down")
    assert [
        {"flow": "finish", "reason": "the bank is down"},
        {"flow": "send", "reason": ""},
    ] == held(store)
    rows = [" ".join(line.split()) for line in told(store, "status").splitlines()]
    at = rows.index("held reason")
    assert ["finish the bank is down", "send"] == rows[at + 2 : at + 4]
    told(store, "release", "finish")
    told(store, "release", "send")
    assert [] == held(store)
    assert "held" not in told(store, "status")


def test_what_is_held_is_not_said_to_have_no_worker(store: Shell) -> None:
    be_ready_for_long(store)
    assert "no worker has it?" in told(store, "status")
    told(store, "hold", "finish")
    assert "no worker has it?" not in told(store, "status")


@pytest.mark.parametrize(
    ("options", "ending"),
    [((), ", held"), (("--reason", "the bank is down"), ", held: the bank is down")],
)
def test_show_says_that_what_is_ready_is_held(
    store: Shell, options: tuple[str, ...], ending: str
) -> None:
    assert place(store, "a").endswith(")")
    told(store, "hold", "finish", *options)
    begin(store, "b", "send")
    assert place(store, "a").startswith("place ready since ")
    assert place(store, "a").endswith(f"){ending}")
    assert place(store, "b").endswith(")")


def test_to_release_what_is_not_held_is_said_and_no_error(store: Shell) -> None:
    assert "finish: was not held\n" == told(store, "release", "finish")
    assert ["a"] == [state["id"] for state in store.states("--all")]


@pytest.mark.parametrize("command", ["hold", "release"])
@pytest.mark.parametrize(
    ("flow", "problem"),
    [("", "the flow id may not be empty"), (b"\xff".decode(errors="surrogateescape"), "Unicode")],
)
def test_what_names_no_flow_is_one_line(
    store: Shell, command: str, flow: str, problem: str
) -> None:
    done = store.run(command, flow)
    assert (1, "") == (done.returncode, done.stdout)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: flow: ")
    assert problem in line
    assert [] == held(store)


@pytest.mark.parametrize("command", ["hold", "release"])
def test_they_make_no_store(shell: Shell, command: str) -> None:
    done = shell.run(command, "finish")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert not shell.store.exists()


def test_the_state_of_the_holds_is_left_out_unless_asked_for(store: Shell) -> None:
    told(store, "hold", "finish", "--reason", "the bank is down")
    assert ["a"] == [state["id"] for state in store.states()]
    assert ["a", HELD_ID] == [state["id"] for state in store.states("--all")]
    assert "would retry 0 states\n" == told(store, "retry", "--status", "paused", "--dry-run")
    watcher = store.start("watch", "--after", "0", "--json")
    begin(store, "b", "finish")
    seen = read_until(watcher.stdout, '"b"')
    watcher.terminate()
    finish(watcher)
    assert HELD_ID not in seen
