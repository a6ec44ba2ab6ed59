"""What the tests of the command line have in their stores."""

from __future__ import annotations

import anyio

from flowstate import AnyCommand, Commit, Delay, End, Engine, Fail, Pause, State, Transit, connect

from .shell import Shell


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


def fail(shell: Shell, *states: State) -> None:
    """Have these fail at the flow ``send``."""

    async def commit() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            for state in states:
                (sent,) = await engine.do(Commit(Transit(state, "send")))
                await engine.do(Commit(Fail(sent, reason=f"no luck with {state.id}")))

    anyio.run(commit)
