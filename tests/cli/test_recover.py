"""`flowstate recover` and `status`: who acts on what is due, and what is left to do."""

from __future__ import annotations

import json
import signal
from typing import Any

import anyio
import pytest

from flowstate import Commit, Delay, End, Engine, RetryPolicy, State, Transit, connect

from .shell import Shell, finish, read_until, wait_for


@pytest.fixture
def store(shell: Shell) -> Shell:
    """With a store in it, in which nothing is due."""
    commit(shell, Commit(End(State("done"))))
    return shell


def commit(shell: Shell, *commits: Any) -> None:
    async def do() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            for command in commits:
                await engine.do(command)

    anyio.run(do)


def recover(shell: Shell, *options: str) -> Any:
    return shell.start("recover", "--flows", "work.py:flows", "--lease", "1", *options)


def status(shell: Shell, *options: str) -> Any:
    done = shell.run("status", "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_acts_on_what_is_due_and_says_what_it_did_until_it_is_told_to_stop(
    store: Shell, name: str
) -> None:
    policy = RetryPolicy(lease=1)
    commit(
        store,
        Commit(Delay(State("late"), "finish", after=0)),
        Commit(Transit(State("left", retry=policy), "finish")),
    )
    process = recover(store)
    read_until(process.stderr, " leads group 'default', term ")
    wait_for(lambda: {store.status("late"), store.status("left")} == {"ended"})
    process.send_signal(getattr(signal, name))
    code, _, told = finish(process)

    assert code == 0
    assert f"{name}: handing over; running flows may finish" in told
    assert told.endswith(" left group 'default'; in all: fired 1, retried 1\n")
    assert "Traceback" not in told
    (group,) = status(store)["groups"]
    assert (group["leader"], group["term"]) == ("", 0)
    assert group["reason"].endswith(" has left")


def test_a_flow_that_runs_may_finish_after_the_signal(store: Shell) -> None:
    commit(store, Commit(Delay(State("a"), "hold", after=0)))
    process = recover(store)
    wait_for((store.directory / "a.begun").exists)
    process.terminate()
    read_until(process.stderr, "SIGTERM: handing over")
    (store.directory / "go").touch()
    assert finish(process)[0] == 0
    assert store.status("a") == "ended"


def test_the_next_of_the_group_leads_at_once_when_the_leader_leaves(store: Shell) -> None:
    first = recover(store, "--lease", "3600")
    leads = read_until(first.stderr, " leads group 'default'")
    second = recover(store, "--lease", "3600")
    read_until(second.stderr, " leads group 'default'")  # says who leads, which is the first
    first.terminate()
    assert finish(first)[0] == 0
    read_until(second.stderr, "nobody leads group 'default'")
    assert read_until(second.stderr, " leads group 'default'").split()[2] not in leads
    second.terminate()
    assert finish(second)[0] == 0


def test_the_next_of_the_group_leads_after_the_lease_when_the_leader_is_killed(
    store: Shell,
) -> None:
    first = recover(store)
    read_until(first.stderr, " leads group 'default'")
    (before,) = status(store)["groups"]
    first.kill()
    finish(first)
    second = recover(store)
    wait_for(lambda: status(store)["groups"][0]["leader"] not in {"", before["leader"]})
    (after,) = status(store)["groups"]
    assert after["term"] > before["term"]
    commit(store, Commit(Delay(State("a"), "finish", after=0)))
    wait_for(lambda: store.status("a") == "ended")
    second.terminate()
    assert finish(second)[0] == 0


def test_groups_are_led_on_their_own(store: Shell) -> None:
    mail, post = (recover(store, "--group", name) for name in ("mail", "post"))
    for process, name in ((mail, "mail"), (post, "post")):
        read_until(process.stderr, f" leads group '{name}'")
    assert [group["group"] for group in status(store, "--group", "mail")["groups"]] == ["mail"]
    assert {group["group"] for group in status(store)["groups"]} == {"mail", "post"}
    for process in (mail, post):
        process.terminate()
        assert finish(process)[0] == 0


def test_it_makes_no_store(shell: Shell) -> None:
    done = shell.run("recover", "--flows", "work.py:flows")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert not shell.store.exists()


@pytest.mark.parametrize(
    "options",
    [("--lease", "0.5"), ("--concurrency", "0"), ("--grace", "-1"), ("--flows", "absent:flows")],
)
def test_a_wrong_call_is_one_clear_error(store: Shell, options: tuple[str, ...]) -> None:
    done = store.run("recover", "--flows", "work.py:flows", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_status_says_what_is_due_for_each_flow_and_how_late(store: Shell) -> None:
    commit(
        store,
        Commit(Delay(State("a"), "send", after=0)),
        Commit(Delay(State("b"), "send", after=3600)),
        Commit(Delay(State("c"), "print", after=3600)),
    )
    send, print_ = status(store)["flows"]
    assert (send["flow"], send["due"]) == ("send", 1)
    assert send["late_ms"] > 0
    assert (print_["flow"], print_["due"], print_["late_ms"]) == ("print", 0, 0)

    shown = store.run("status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "no recoverer was ever here" in shown.stdout
    late, early = (line.split() for line in shown.stdout.rstrip().splitlines()[-2:])
    assert (late[0], late[1], late[-1]) == ("send", "1", "late")
    assert (early[0], early[1]) == ("print", "0")
    assert " ".join(early[-3:]) in {"in 60.0 min", "in 59.9 min"}


def test_status_of_a_store_in_which_nothing_is_due(store: Shell) -> None:
    assert status(store) == {"groups": [], "flows": [], "failed": []}
    assert "nothing is or will be due" in store.run("status").stdout


def test_status_says_that_a_leader_died(store: Shell) -> None:
    process = recover(store)
    read_until(process.stderr, " leads group 'default'")
    process.kill()
    finish(process)
    wait_for(lambda: status(store)["groups"][0]["is_overdue"])
    assert "nobody has taken over" in store.run("status").stdout


def test_ls_and_watch_leave_out_the_states_of_groups_unless_asked(store: Shell) -> None:
    process = recover(store)
    read_until(process.stderr, " leads group 'default'")
    assert [state["id"] for state in store.states()] == ["done"]
    assert [state["id"] for state in store.states("--all")] == [
        "done",
        "flowstate.recovery/default",
    ]
    watcher = store.start("watch", "--after", "1", "--all")
    read_until(watcher.stdout, "flowstate.recovery/default")
    watcher.terminate()
    finish(watcher)
    process.terminate()
    finish(process)
