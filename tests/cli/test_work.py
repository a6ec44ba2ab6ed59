"""`flowstate work` and `status`: who runs what is ready, who acts on what is due, and what is left
to do."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from flowstate import Commit, Delay, End, Engine, RetryPolicy, State, Transit, connect
from flowstate.recovery import LEADER_ID

from .shell import Shell, finish, read_until, wait_for


@pytest.fixture
def store(shell: Shell) -> Shell:
    """With a store in it, in which nothing is ready or due."""
    commit(shell, Commit(End(State("done"))))
    return shell


def commit(shell: Shell, *commits: Any) -> None:
    async def do() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            for command in commits:
                await engine.do(command)

    anyio.run(do)


def die_holding(shell: Shell, *states: State) -> str:
    """Have these taken, at the flow ``hold``, by an engine that is gone without giving them back.
    Gives what it is called."""
    owner = "gone/1/abc"

    async def do() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            await engine.do(Commit(*(Transit(state, "hold") for state in states)))
            now = engine.clock.now()
            await driver.claim({"hold": len(states)}, len(states), owner, "the claim", now)

    anyio.run(do)
    return owner


def work(shell: Shell, *options: str) -> Any:
    return shell.start("work", "work.py:flows", "--lease", "1", *options)


def status(shell: Shell, *options: str) -> Any:
    done = shell.run("status", "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", ["work", "recover"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_runs_what_is_ready_and_due_and_says_what_it_did_until_it_is_told_to_stop(
    store: Shell, name: str, command: str
) -> None:
    commit(
        store,
        Commit(Delay(State("late"), "finish", after=0)),
        Commit(Transit(State("ready"), "finish")),
    )
    die_holding(store, State("left", retry=RetryPolicy(lease=1)))
    (store.directory / "go").touch()
    process = store.start(command, "work.py:flows", "--lease", "1")
    read_until(process.stderr, " leads, term ")
    wait_for(lambda: {store.status(id) for id in ("late", "ready", "left")} == {"ended"})
    process.send_signal(getattr(signal, name))
    code, _, told = finish(process)

    assert code == 0
    assert f"{name}: handing over; running flows may finish" in told
    assert told.endswith(" left; in all: claimed 3, fired 1, retried 1\n")
    assert "Traceback" not in told
    leader = status(store)["leader"]
    assert (leader["leader"], leader["term"]) == ("", 0)
    assert leader["reason"].endswith(" has left")
    assert [v["transition"].get("cause", "command") for v in store.history("ready")] == [
        *("command", "command"),
    ]


def test_what_an_operator_moves_runs_at_once_and_without_an_attempt(store: Shell) -> None:
    process = work(store)
    read_until(process.stderr, " leads, term ")
    commit(store, Commit(Transit(State("a"), "wait_for_someone")))
    wait_for(lambda: store.status("a") == "paused")
    assert store.run("transit", "a", "finish").returncode == 0
    wait_for(lambda: store.status("a") == "ended")
    process.terminate()
    finish(process)

    moved, ended = store.history("a")[-2:]
    assert moved["transition"] == {"to": "finish", "status": "running"}
    assert ended["committed_at"] - moved["committed_at"] < 5_000  # no lease of 30 s is waited for


def test_processes_share_what_is_ready(store: Shell) -> None:
    """Each state is run by one of them, also by one that does not lead."""
    first, second = (work(store, "--concurrency", "2") for _ in range(2))
    for process in (first, second):
        read_until(process.stderr, " leads, term ")
    commit(store, *(Commit(Transit(State(f"s{n}"), "hold")) for n in range(4)))
    wait_for(lambda: all((store.directory / f"s{n}.begun").exists() for n in range(4)))
    report = status(store)
    assert [2, 2] == [owner["states"] for owner in report["owners"]]
    (hold,) = report["flows"]
    assert (hold["flow"], hold["ready"], hold["taken"]) == ("hold", 0, 4)
    (store.directory / "go").touch()
    wait_for(lambda: len(store.states("--status", "ended")) == 5)
    for process in (first, second):
        process.terminate()
        told = finish(process)[2]
        assert "in all: claimed 2\n" in told


def test_with_a_concurrency_of_0_it_only_leads_and_needs_no_flows(store: Shell) -> None:
    commit(
        store,
        Commit(Delay(State("a"), "finish", after=0)),
        Commit(Transit(State("b"), "finish")),
    )
    process = store.start("work", "--concurrency", "0", "--lease", "1")
    assert ", only to lead\n" in read_until(process.stderr, " leads, term ")
    wait_for(lambda: store.status("a") == "running")
    process.terminate()
    code, _, told = finish(process)
    assert (code, "in all: fired 1\n" in told) == (0, True)
    (finish_,) = status(store)["flows"]
    assert (finish_["flow"], finish_["ready"], finish_["taken"]) == ("finish", 2, 0)


def test_what_it_cannot_run_is_left_ready(store: Shell) -> None:
    process = work(store)
    read_until(process.stderr, " leads, term ")
    commit(store, Commit(Transit(State("a"), "of nobody")))
    commit(store, Commit(Transit(State("b"), "go_nowhere")))
    wait_for(lambda: len(store.history("b")) == 2 if store.status("b") else False)
    process.terminate()
    finish(process)
    assert {flow["flow"]: flow["ready"] for flow in status(store)["flows"]} == {
        "of nobody": 1,
        "of another engine": 1,
    }


def test_a_flow_that_runs_may_finish_after_the_signal(store: Shell) -> None:
    commit(store, Commit(Delay(State("a"), "hold", after=0)))
    process = work(store)
    wait_for((store.directory / "a.begun").exists)
    process.terminate()
    read_until(process.stderr, "SIGTERM: handing over")
    (store.directory / "go").touch()
    assert finish(process)[0] == 0
    assert store.status("a") == "ended"


def test_what_does_not_finish_is_given_back_without_an_attempt(store: Shell) -> None:
    commit(store, Commit(Transit(State("a"), "hold")))
    process = work(store, "--grace", "0.1")
    wait_for((store.directory / "a.begun").exists)
    process.terminate()
    assert finish(process)[0] == 0
    assert len(store.history("a")) == 1
    assert "ready since" in store.run("show", "a").stdout


def test_the_next_leads_at_once_when_the_leader_leaves(store: Shell) -> None:
    first = work(store, "--lease", "3600")
    leads = read_until(first.stderr, " leads, term ")
    second = work(store, "--lease", "3600")
    read_until(second.stderr, " leads, term ")  # says who leads, which is the first
    first.terminate()
    assert finish(first)[0] == 0
    read_until(second.stderr, "nobody leads: ")
    assert read_until(second.stderr, " leads, term ").split()[2] not in leads
    second.terminate()
    assert finish(second)[0] == 0


def test_the_next_leads_after_the_lease_when_the_leader_is_killed(store: Shell) -> None:
    first = work(store)
    read_until(first.stderr, " leads, term ")
    before = status(store)["leader"]
    first.kill()
    finish(first)
    wait_for(lambda: status(store)["leader"]["is_overdue"])
    assert f"the lease of {before['leader']}, term {before['term']}, ran out" in (
        store.run("status").stdout
    )
    second = work(store)
    wait_for(lambda: status(store)["leader"]["leader"] not in {"", before["leader"]})
    assert status(store)["leader"]["term"] > before["term"]
    commit(store, Commit(Delay(State("a"), "finish", after=0)))
    wait_for(lambda: store.status("a") == "ended")
    second.terminate()
    assert finish(second)[0] == 0


def test_it_makes_no_store(shell: Shell) -> None:
    done = shell.run("work", "work.py:flows")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert not shell.store.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "flowstate work orders.py:flows"),
        (("--concurrency", "3"), "--concurrency 0"),
        (("absent:flows",), "there is no module 'absent'"),
        (("work.py:flows", "--lease", "0.5"), "--lease"),
        (("work.py:flows", "--concurrency", "-1"), "--concurrency"),
        (("work.py:flows", "--grace", "-1"), "--grace"),
        (("work.py:flows", "--flows", "work.py:flows"), "--flows"),
    ],
)
def test_a_wrong_call_is_one_clear_error(
    store: Shell, arguments: tuple[str, ...], told: str
) -> None:
    done = store.run("work", *arguments)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- status


def test_status_says_what_is_due_for_each_flow_and_how_late(store: Shell) -> None:
    commit(
        store,
        Commit(Delay(State("a"), "send", after=0)),
        Commit(Delay(State("b"), "send", after=3600)),
        Commit(Delay(State("c"), "print", after=3600)),
    )
    send, print_ = status(store)["due"]
    assert (send["flow"], send["due"]) == ("send", 1)
    assert send["late_ms"] > 0
    assert (print_["flow"], print_["due"], print_["late_ms"]) == ("print", 0, 0)

    shown = store.run("status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "nobody ever led\n" in shown.stdout
    late, early = (line.split() for line in shown.stdout.rstrip().splitlines()[-2:])
    assert (late[0], late[1], late[-1]) == ("send", "1", "late")
    assert (early[0], early[1]) == ("print", "0")
    assert " ".join(early[-3:]) in {"in 60.0 min", "in 59.9 min"}


def test_status_says_that_nothing_acts_only_if_something_waits_for_it(store: Shell) -> None:
    """An engine without recovery runs what it has taken, and a run leads once something is due."""
    owner = die_holding(store, State("a"))
    shown = store.run("status").stdout
    assert "nobody ever led\n" in shown
    assert "nothing" not in shown.replace("nothing is or will be due", "")
    assert owner in shown

    commit(store, Commit(Delay(State("b"), "send", at=datetime(2001, 9, 9, tzinfo=UTC))))
    assert "nobody ever led; nothing has acted on what is due for " in store.run("status").stdout


def test_status_of_a_store_in_which_nothing_is_to_be_done(store: Shell) -> None:
    report = status(store)
    assert report.pop("leader") is None
    assert report == {key: [] for key in ("flows", "held", "owners", "due", "failed")}
    shown = store.run("status").stdout
    assert "nothing is ready, and nothing runs" in shown
    assert "nothing is or will be due" in shown


def test_status_says_what_waits_for_a_worker(store: Shell) -> None:
    """Since when the first in line does, and that nobody has the flow."""
    commit(store, Commit(*(Transit(State(f"s{n}"), "send") for n in range(3))))
    (send,) = status(store)["flows"]
    assert (send["flow"], send["ready"], send["taken"]) == ("send", 3, 0)
    assert 0 <= store.history("s0")[0]["committed_at"] - send["since"] < 60_000  # as it was planned
    assert not send["has_no_worker"]
    assert "no worker" not in store.run("status").stdout

    async def be_ready_for_long() -> None:
        async with connect(f"sqlite:///{store.store}") as driver:
            now = 1_000_000_000_000
            await driver.claim({"send": 1}, 1, "me", "mine", now)
            await driver.release([each.held for each in await driver.holdings()], "me", now)

    anyio.run(be_ready_for_long)
    (send,) = status(store)["flows"]
    assert (send["ready"], send["since"], send["has_no_worker"]) == (3, 1_000_000_000_000, True)
    assert "no worker has it?" in store.run("status").stdout


def test_status_and_show_say_who_has_taken_what_and_for_how_long(store: Shell) -> None:
    owner = die_holding(store, State("a"), State("b"))
    (found,) = status(store)["owners"]
    assert (found["owner"], found["states"], found["is_overdue"]) == (owner, 2, False)
    (row,) = (line for line in store.run("status").stdout.splitlines() if owner in line)
    assert " ".join(row.split()).startswith(f"{owner} 2 lease ends in ")
    shown = " ".join(store.run("show", "a").stdout.split())
    assert f"place taken by {owner}, lease ends in 2" in shown  # of 30 s


def test_status_and_show_say_who_is_there(store: Shell) -> None:
    """Who has died is known before its leases run out; names stand without their sessions."""
    process = work(store, "--lease", "60")
    read_until(process.stderr, " leads, term ")
    commit(store, Commit(Transit(State("a"), "hold")))
    wait_for((store.directory / "a.begun").exists)
    for is_there, text in ((True, "there"), (False, "dead")):
        report = status(store)
        (owner,) = report["owners"]
        assert (owner["is_there"], report["leader"]["is_there"]) == (is_there, is_there)
        assert f"/{process.pid}/" in owner["owner"]
        shown = store.run("status").stdout
        (row,) = (line for line in shown.splitlines() if owner["owner"] in line)
        assert row.split()[-1] == text
        assert f"term {report['leader']['term']}, has died" in shown or is_there
        assert f"taken by {owner['owner']} ({text}), lease" in store.run("show", "a").stdout
        assert "#" not in shown + owner["owner"]
        process.kill()
        process.wait()
    finish(process)


def test_status_and_show_say_that_a_lease_has_run_out(store: Shell) -> None:
    owner = die_holding(store, State("a", retry=RetryPolicy(lease=1)))
    wait_for(lambda: status(store)["owners"][0]["is_overdue"])
    assert f"taken by {owner}, its lease ran out " in store.run("show", "a").stdout
    assert "its lease ran out" in store.run("status").stdout


def test_show_says_since_when_a_state_is_ready_and_nothing_of_what_rests(store: Shell) -> None:
    commit(store, Commit(Transit(State("a"), "send")))
    (line,) = (line for line in store.run("show", "a").stdout.splitlines() if "place" in line)
    assert line.split()[:3] == ["place", "ready", "since"]
    assert "place" not in store.run("show", "done").stdout


def test_ls_and_watch_leave_out_the_state_of_the_election_unless_asked(store: Shell) -> None:
    process = work(store)
    read_until(process.stderr, " leads, term ")
    assert [state["id"] for state in store.states()] == ["done"]
    assert [state["id"] for state in store.states("--all")] == ["done", LEADER_ID]
    watcher = store.start("watch", "--after", "1", "--all")
    read_until(watcher.stdout, LEADER_ID)
    watcher.terminate()
    finish(watcher)
    report = status(store)
    assert (report["owners"], report["due"], report["flows"]) == ([], [], [])
    process.terminate()
    finish(process)
