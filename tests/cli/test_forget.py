"""`flowstate forget`: the content of data goes, also from other states, and their history stays."""

from __future__ import annotations

import os
import pty

import anyio
import pytest

from flowstate import Commit, Data, DataRef, End, Engine, Pause, Save, State, connect

from .shell import Shell, finish, read_terminal
from .stored import store


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """``order`` carried two addresses, and has ended; ``parcel`` was given the second one."""
    store(shell, Commit(Pause(State("order").attach("address", "here").attach("items", [1]))))

    async def share() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            order = (await engine.get("order")).attach("address", "there")
            (order,) = await engine.do(Commit(Save(order)))
            shared: Data | DataRef = order.data["address"]
            await engine.do(Commit(Pause(State("parcel").attach("to", shared)), End(order)))

    anyio.run(share)
    return shell


def test_it_forgets_every_version_and_says_how_much_that_was(filled: Shell) -> None:
    before = filled.history("order")
    done = filled.run("forget", "order", "address", "--yes")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout == "order: 2 payloads forgotten; 1 other state has lost the same\n"
    for rev in ("1", "2"):
        gone = filled.run("cat", "order", "address", "--rev", rev)
        assert (1, "") == (gone.returncode, gone.stdout)
        assert "data 'address' of state 'order' was forgotten" in gone.stderr
    assert "data 'to' of state 'parcel' was forgotten" in filled.run("cat", "parcel", "to").stderr
    assert "[1]" == filled.run("cat", "order", "items").stdout
    assert before == filled.history("order")


def test_it_forgets_several_data_together(filled: Shell) -> None:
    done = filled.run("forget", "order", "items", "address", "--yes")
    assert done.stdout.startswith("order: 3 payloads forgotten")
    assert "was forgotten" in filled.run("cat", "order", "items").stderr


def test_it_tells_nothing_of_other_states_where_there_are_none(filled: Shell) -> None:
    done = filled.run("forget", "order", "items", "--yes")
    assert "order: 1 payload forgotten\n" == done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nobody", "address", "--yes"), 1, "no state 'nobody'"),
        (("order", "address", "page", "--yes"), 1, "no data 'page' in any version"),
        (("order", "address", "--yes", "--store", "sqlite:///store.db?mode=ro"), 1, "mode=ro"),
        (("order", "address", "--yes", "--store", "sqlite:///no.db"), 1, "no.db: does not exist"),
        (("order", "address"), 2, "--yes says that it is meant"),
        (("order", "--yes"), 2, "Missing argument 'NAME...'"),
    ],
)
def test_what_it_refuses_forgets_nothing(
    filled: Shell, arguments: tuple[str, ...], code: int, told: str
) -> None:
    done = filled.run("forget", *arguments)
    assert (code, "") == (done.returncode, done.stdout)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert '"there"' == filled.run("cat", "order", "address").stdout


@pytest.mark.parametrize(
    ("answer", "code", "address"), [("y", 0, ""), ("n", 1, '"there"'), ("", 1, '"there"')]
)
def test_on_a_terminal_it_asks(filled: Shell, answer: str, code: int, address: str) -> None:
    ours, theirs = pty.openpty()
    process = filled.start("forget", "order", "address", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = read_terminal(ours).decode()
    assert code == finish(process)[0]
    assert "Forget address in every version of order? This is final. [y/N]" in shown
    assert address == filled.run("cat", "order", "address").stdout
