"""The kernel's own states are its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowstate import (
    Command,
    Commit,
    Delay,
    End,
    Engine,
    Fail,
    FlowReturnError,
    Flows,
    InvalidValueError,
    Noop,
    Pause,
    Resume,
    Retry,
    RetryPolicy,
    Save,
    State,
    Status,
    Transit,
)
from flowstate.recovery import LEADER_ID, Recoverer

from . import add, begin, ends, history

pytestmark = pytest.mark.anyio

GROUP = LEADER_ID
ONCE = RetryPolicy(max_attempts=1)


MOVES: dict[str, tuple[type[Command[Any]], Callable[[State], Command[State]]]] = {
    "Transit a new one": (Noop, lambda state: Transit(state, "send")),
    "Pause a new one": (Noop, Pause),
    "Delay a new one": (Noop, lambda state: Delay(state, "send", after=1)),
    "End a new one": (Noop, End),
    "Transit": (Pause, lambda state: Transit(state, "send")),
    "Resume": (Pause, Resume),
    "Save": (Pause, Save),
    "End": (Pause, End),
    "Delay": (Transit, lambda state: Delay(state, "send", after=1)),
    "Retry": (Transit, lambda state: Retry(state, after=1)),
    "Fail": (Transit, Fail),
    "Pause": (Transit, Pause),
}
"""what -> how the kernel left the state, and how somebody else tries to move it"""


async def of_the_kernel(engine: Engine, kind: type[Command[Any]]) -> State:
    """A state of the kernel's, as a command of this kind leaves it; new for ``Noop``."""
    if kind is Noop:
        return State(GROUP)
    command = Transit(State(GROUP), "send") if kind is Transit else Pause(State(GROUP), "send")
    await engine.timers.commit(Commit(command))
    return await engine.get(GROUP)


@pytest.mark.parametrize("move", MOVES)
async def test_nobody_moves_a_state_of_the_kernel_s(engine: Engine, move: str) -> None:
    """Whatever the command, beside another one that is not written either."""
    kind, make = MOVES[move]
    group = await of_the_kernel(engine, kind)
    with pytest.raises(InvalidValueError, match="as the kernel's own states do; choose another"):
        await engine.do(Commit(Pause(State("mine")), make(group)), commit_id=f"{GROUP} {move}")
    assert await engine.peek("mine") is None
    assert await history(engine, GROUP) == ([group] if group.rev else [])


@pytest.mark.parametrize("move", MOVES)
async def test_no_flow_moves_a_state_of_the_kernel_s(
    engine: Engine, flows: Flows, move: str
) -> None:
    """Neither beside its own state, nor in its place."""
    kind, make = MOVES[move]
    group = await of_the_kernel(engine, kind)
    add(flows, "beside", lambda state: Commit(End(state), make(group)))
    add(flows, "in its place", lambda _: Commit(make(group)))
    add(flows, "in memory", lambda _: make(group))
    for flow in ("beside", "in its place", "in memory"):
        with pytest.raises((InvalidValueError, FlowReturnError)):
            await engine.execute(Commit(Transit(State(flow, retry=ONCE), flow)))
        assert (await engine.get(flow)).transition.status is Status.FAILED
        assert await history(engine, GROUP) == ([group] if group.rev else [])


async def test_nobody_runs_a_state_of_the_kernel_s(engine: Engine) -> None:
    """At a flow that is missing it would be committed."""
    state = await engine.do(Transit(State(GROUP), "elsewhere"))
    with pytest.raises(InvalidValueError, match="is one of the kernel's own"):
        await engine.execute(state)
    with pytest.raises(InvalidValueError, match="is one of the kernel's own"):
        await engine.start(state)


async def test_an_id_that_is_refused_leaves_recovery_as_it_is(engine: Engine, flows: Flows) -> None:
    add(flows, "send", ends)
    with pytest.raises(InvalidValueError):
        await begin(engine, GROUP, "send")
    async with Recoverer(engine, lease=1):
        await engine.do(Commit(Delay(State("mail"), "send", after=1)))
        await engine.wait("mail", Status.ENDED)
