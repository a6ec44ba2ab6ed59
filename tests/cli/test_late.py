"""`flowstate ls --late`: what should have gone on long ago, and why it has not."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from flowstate import Commit, Delay, Engine, Pause, State, Transit, connect

from .shell import Shell
from .stored import store

LONG_AGO = 1_000_000_000_000
"""Years before any test runs."""
OWNER = "gone/1/abc"


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """States that are late, each with why as its id, and others."""

    async def fill() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:

            async def claim(flow: str, owner: str, now: int) -> None:
                await driver.claim({flow: 1}, 1, owner, f"the claim of {flow}", now)

            for id in ("ready", "lost", "taken"):
                flow = f"a flow of {id}"
                await engine.do(Commit(Transit(State(id, labels={"k": "v"}), flow)))
            await claim("a flow of lost", OWNER, LONG_AGO)
            await claim("a flow of taken", OWNER, engine.clock.now())
            await claim("a flow of ready", "somebody", LONG_AGO)
            held = [each.held for each in await driver.holdings("somebody")]
            await driver.release(held, "somebody", LONG_AGO)
            await engine.do(Commit(Transit(State("new"), "a flow of ready")))
            await engine.do(Commit(Delay(State("due"), "finish", at=LONG_AGO)))
            await engine.do(Commit(Delay(State("later"), "finish", after=3600)))
            await engine.do(Commit(Pause(State("paused"), "finish")))

    anyio.run(fill)
    return shell


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--late",), ["due", "lost", "ready"]),
        (("--late", "5m"), ["due", "lost", "ready"]),
        (("--late", "0s"), ["due", "lost", "ready", "new"]),
        (("--late", "100000d"), []),
        (("--late", "--limit", "2"), ["due", "lost"]),
        (("--late", "--status", "delayed"), ["due"]),
        (("--late", "--status", "running"), ["lost", "ready"]),
        (("--late", "--label", "k=v"), ["lost", "ready"]),
        (("--late", "--flow", "a flow of ready"), ["ready"]),
        (("--late", "--flow", "finish"), ["due"]),
        (("--late", "--prefix", "l"), ["lost"]),
    ],
)
def test_what_is_late_is_what_is_due_and_what_is_ready_for_long(
    filled: Shell, options: tuple[str, ...], ids: list[str]
) -> None:
    done = filled.run("ls", "--json", *options)
    assert (0, "") == (done.returncode, done.stderr)
    assert ids == sorted(ids_of(filled, *options), key=["due", "lost", "ready", "new"].index)


def ids_of(shell: Shell, *options: str) -> list[str]:
    return [state["id"] for state in shell.states(*options)]


def test_what_is_due_comes_first_the_soonest_before_the_others(filled: Shell) -> None:
    """And what is ready comes last, whatever was committed first."""
    assert ids_of(filled, "--late") == ["due", "lost", "ready"]


def test_for_people_it_says_how_late_each_is_and_why(filled: Shell) -> None:
    filled.run("hold", "a flow of ready", "--reason", "the bank is down")
    done = filled.run("ls", "--late")
    assert (0, "") == (done.returncode, done.stderr)
    head, _, *rows = [line.split() for line in done.stdout.splitlines()]
    assert ["id", "rev", "status", "flow", "labels", "late", "why"] == head
    told = {row[0]: " ".join(row).partition(" days ")[2] for row in rows}
    assert told == {
        "due": "its alarm, to finish, has not fired",
        "lost": f"its lease ran out, and {OWNER} has not ended it",
        "ready": "ready, and nobody takes it, for its flow is held: the bank is down",
    }


def test_what_is_ready_and_due_is_told_once(filled: Shell) -> None:
    """As due: its timeout should have come."""
    timeout = datetime.fromtimestamp(LONG_AGO / 1000, UTC)
    store(filled, Commit(Transit(State("both"), "a flow of ready", timeout=timeout)))
    assert ["both"] == ids_of(filled, "--late", "0s", "--prefix", "both")


def test_it_says_when_nothing_is_late(filled: Shell) -> None:
    done = filled.run("ls", "--late", "--prefix", "paused")
    assert (0, "", "nothing that matches is late\n") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("options", [("--late", "5x"), ("--late", "--newest")])
def test_it_refuses_what_makes_no_sense(filled: Shell, options: tuple[str, ...]) -> None:
    done = filled.run("ls", *options)
    assert 2 == done.returncode
    assert options[-1] in done.stderr
