"""``flowstate pause | resume | end | transit``: an operator moves a state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import click

from flowstate import (
    Command,
    Commit,
    End,
    Engine,
    Pause,
    Resume,
    RevMismatchError,
    State,
    Status,
    Transit,
)

from . import output
from .store import Access, opened, run_async, store_option

MAX_RACES = 1_000
"""How often a move is tried again at a newer revision, while others move the state."""


def _move_command(short_help: str) -> Callable[[Callable[..., None]], click.Command]:
    """A decorator that makes a command which moves the state ID."""

    def decorate(function: Callable[..., None]) -> click.Command:
        with_output = store_option(output.json_option(function))
        return click.command(short_help=short_help)(click.argument("id")(with_output))

    return decorate


_reason_option = click.option("--reason", default="", help="Why; kept with the state, for people.")


@_move_command("Hold a state until it is resumed.")
@_reason_option
@click.option("--to", metavar="FLOW", help="Where it will resume (default: the flow it is at).")
def pause(id: str, reason: str, to: str | None, url: str, as_json: bool) -> None:
    """Pause the state ID: no flow is run for it until someone moves it.

    A flow that is running for it now loses: what it returns is not committed.

    \b
    Examples:
      flowstate pause order-1 --reason "address is being checked"
      flowstate pause order-1 --to charge
    """
    _move(url, id, lambda state: Pause(state, to=to, reason=reason), as_json)


@_move_command("Let a paused, delayed or failed state go on.")
def resume(id: str, url: str, as_json: bool) -> None:
    """Resume the state ID, which is paused, delayed or failed, at the flow where it was to go on.
    One that failed has all its attempts again; for many at once there is `flowstate retry`.

    It is ready then: whoever works and has its flow runs it at once, a worker of an engine,
    `flowstate work` or `flowstate run`.

    \b
    Example:
      flowstate resume order-1
    """
    _move(url, id, Resume, as_json)


@_move_command("End a state for good.")
@_reason_option
def end(id: str, reason: str, url: str, as_json: bool) -> None:
    """End the state ID. This is final.

    \b
    Example:
      flowstate end order-1 --reason "cancelled by the customer"
    """
    _move(url, id, lambda state: End(state, reason=reason), as_json)


@_move_command("Send a state to another flow.")
@click.argument("flow")
def transit(id: str, flow: str, url: str, as_json: bool) -> None:
    """Send the state ID to FLOW, from wherever it is (unless it has ended).

    It is ready there: whoever works and has the flow runs it at once, a worker of an engine,
    `flowstate work` or `flowstate run`.

    \b
    Example:
      flowstate transit order-1 refund
    """
    _move(url, id, lambda state: Transit(state, flow), as_json)


def _move(url: str, id: str, command: Callable[[State], Command[State]], as_json: bool) -> None:
    async def move() -> State:
        async with opened(url, Access.CHANGE) as engine:
            return await _commit(engine, id, command)

    state = run_async(move)
    if as_json:
        output.print_json(state)
    else:
        click.echo(_summary(state))


async def _commit(engine: Engine, id: str, command: Callable[[State], Command[State]]) -> State:
    """Move the version that is the newest at the time of the commit."""
    for _ in range(MAX_RACES):
        with suppress(RevMismatchError):
            return await _commit_once(engine, id, command)
    return await _commit_once(engine, id, command)


async def _commit_once(
    engine: Engine, id: str, command: Callable[[State], Command[State]]
) -> State:
    (moved,) = await engine.do(Commit(command(await engine.get(id))))
    return moved


def _summary(state: State) -> str:
    """Where a state is after its move, as a line."""
    transition = state.transition
    at = {Status.RUNNING: " at ", Status.PAUSED: ", to resume at "}.get(transition.status)
    where = f"{at}{transition.to}" if at and transition.to else ""
    reason = f" ({transition.reason})" if transition.reason else ""
    return output.plain(
        f"{state.id}: {transition.status.value}{where}{reason}, revision {state.rev}"
    )
