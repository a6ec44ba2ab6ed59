"""Which functions type checkers take for flows, and what they take in place of a flow's name."""

from __future__ import annotations

import functools
from typing import Any, assert_type

import anyio

from flowstate import (
    Command,
    Commit,
    Delay,
    End,
    Engine,
    Execute,
    Flow,
    Flows,
    Noop,
    Pause,
    RetryPolicy,
    State,
    Transit,
)

flows = Flows()

# ---------------------------------------------------------------- flows


@flows.flow
async def charge(state: State, engine: Engine) -> Command:
    """Flows that come later are known here, too."""
    return Commit(Transit(state, ship, timeout=60, on_timeout=charge))


@flows.flow("ship-it")
def ship(state: State, engine: Engine) -> Commit:
    return Commit(End(state))


@flows.flow(inline=True)
def inline(state: State, engine: Any) -> Command[State]:
    return Transit(state, charge)


@flows.flow
class Refund:
    async def __call__(self, state: State, _: Engine) -> Command[None]:
        return Execute(state)


@flows.flow("refund-again")
class Again(Refund):
    pass


class Mail:
    async def send(self, state: State, _: Engine) -> Commit | Noop:
        return Commit(End(state)) if state.rev else Noop()


def reasoned(reason: str, state: State, engine: Engine) -> Commit:
    return Commit(End(state, reason))


send = flows.add("send", Mail().send)
refund = flows.add("refund", Refund())
class_of_refunds = flows.add("refunds", Refund, inline=True)
lost = flows.add("lost", functools.partial(reasoned, "lost"))
again = flows.add("again", charge)


async def calling(state: State, engine: Engine) -> None:
    """Calling a flow is calling its function."""
    assert_type(await charge(state, engine=engine), Command)
    assert_type(ship(state, engine), Commit)
    assert_type(inline(state, None), Command[State])
    assert_type(await send(state, engine), Commit | Noop)
    assert_type(await refund(state, engine), Command[None])
    assert_type(await class_of_refunds(state, engine), Command[None])
    assert_type(Refund(), Refund)
    assert_type(lost(state, engine), Commit)
    assert_type(charge.name, str)
    assert_type(flows["charge"], Flow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(charge, state, engine)
    ship(engine, state)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- in place of their names


def naming(state: State, some: Flow) -> None:
    assert_type(Transit(state, charge).to, str)
    assert_type(Transit(state, "charge", timeout=1, on_timeout=ship).on_timeout, str)
    assert_type(Pause(state, to=charge, timeout=1, on_timeout=ship).to, str | None)
    assert_type(Pause(state).on_timeout, str)
    assert_type(Delay(state, refund, after=1).to, str | None)
    assert_type(RetryPolicy(on_give_up=lost).on_give_up, str)
    Transit(state, to=some)
    Pause(state, to=None)


def undecorated(state: State, engine: Engine) -> Command:
    return Noop()


def naming_wrongly(state: State) -> None:
    Transit(state, undecorated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Transit(state, Refund)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Transit(state, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Transit(state, "a", timeout=1, on_timeout=undecorated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pause(state, to=undecorated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pause(state, timeout=1, on_timeout=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Delay(state, undecorated, after=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RetryPolicy(on_give_up=undecorated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Transit(state, charge).to = "b"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------- no flows


def without_engine(state: State) -> Command:
    return Noop()


def with_more(state: State, engine: Engine, more: int) -> Command:
    return Noop()


def of_text(state: str, engine: Engine) -> Command:
    return Noop()


def giving_a_state(state: State, engine: Engine) -> State:
    return state


async def giving_nothing(state: State, engine: Engine) -> Command | None:
    return None


class NotCalled:
    pass


def registering_wrongly() -> None:
    flows.flow(without_engine)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.flow(with_more)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.flow(of_text)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.flow(giving_a_state)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.flow(giving_nothing)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.flow(NotCalled)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.flow("name")(without_engine)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.flow("name")(giving_a_state)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    flows.add("name", without_engine)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    flows.add("name", giving_nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    flows.add("name", NotCalled())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
