"""Flows for the tests of the command line; each run of the command imports them from a file."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import anyio
from msgspec.structs import replace

from flowstate import (
    AnyCommand,
    Commit,
    Delay,
    End,
    Engine,
    Flows,
    Noop,
    Pause,
    RetryPolicy,
    State,
    Transit,
)

flows = Flows()
other = SimpleNamespace(flows=Flows())
not_flows = 1


@flows.flow
async def finish(state: State, engine: Engine) -> AnyCommand:
    return Commit(End(state))


@flows.flow
async def decline(state: State, engine: Engine) -> AnyCommand:
    return Commit(End(state, reason="declined"))


@flows.flow
async def two_steps(state: State, engine: Engine) -> AnyCommand:
    return Commit(Transit(state, "finish"))


@flows.flow
async def fail(state: State, engine: Engine) -> AnyCommand:
    """Fails twice, the second time for good."""
    if state.retry is None:
        return Commit(Transit(replace(state, retry=RetryPolicy(max_attempts=2, backoff=0)), "fail"))
    raise ValueError(f"no luck with {state.id}")


@flows.flow
async def fail_for_good(state: State, engine: Engine) -> AnyCommand:
    return Commit(Transit(replace(state, retry=RetryPolicy(max_attempts=1)), "fail"))


@flows.flow
async def wait_for_someone(state: State, engine: Engine) -> AnyCommand:
    return Commit(Pause(state, reason="needs a person"))


@flows.flow
async def delay(state: State, engine: Engine) -> AnyCommand:
    return Commit(Delay(state, "finish", after=3600))


@flows.flow
async def fail_once(state: State, engine: Engine) -> AnyCommand:
    if not state.transition.attempt:
        raise ValueError(f"no luck yet with {state.id}")
    return Commit(End(state))


@flows.flow
async def delay_a_little(state: State, engine: Engine) -> AnyCommand:
    return Commit(Delay(state, "finish", after=0.1))


@flows.flow
async def fork_that_fails_once(state: State, engine: Engine) -> AnyCommand:
    return Commit(End(state), Transit(State(f"{state.id}/child"), "fail_once"))


@flows.flow
async def end_in_memory(state: State, engine: Engine) -> AnyCommand:
    return End(state)


@flows.flow
async def leave(state: State, engine: Engine) -> AnyCommand:
    return Noop()


@flows.flow
async def go_nowhere(state: State, engine: Engine) -> AnyCommand:
    return Commit(Transit(state, "of another engine"))


@flows.flow
async def circle(state: State, engine: Engine) -> AnyCommand:
    return Commit(Transit(state, "circle"))


@flows.flow
async def fork(state: State, engine: Engine) -> AnyCommand:
    child = State(f"{state.id}/child").with_labels(parent=state.id)
    return Commit(Pause(state, "finish"), Transit(child, "join"))


@flows.flow
async def join(state: State, engine: Engine) -> AnyCommand:
    parent = await engine.get(state.labels["parent"])
    return Commit(End(state), Transit(parent, "finish"))


@flows.flow
async def hold(state: State, engine: Engine) -> AnyCommand:
    """Says that it has begun, and finishes when told; by files, as it is another process."""
    await anyio.Path(f"{state.id}.begun").touch()
    while not await anyio.Path("go").exists():  # noqa: ASYNC110  (another process makes the file)
        await anyio.sleep(0.005)
    return Commit(Transit(state, "finish") if state.labels.get("then") else End(state))


inside = 0


@flows.flow
async def hold_a_few(state: State, engine: Engine) -> AnyCommand:
    """Holds, and fails if more than ``limit`` states are inside at the same time."""
    global inside  # noqa: PLW0603  (it is counted across flows)
    inside += 1
    try:
        if inside > int(state.labels["limit"]):
            raise RuntimeError(f"{inside} at the same time")
        return await hold(state, engine)
    finally:
        inside -= 1


@flows.flow
def hold_a_thread(state: State, engine: Engine) -> AnyCommand:
    Path(f"{state.id}.begun").touch()
    time.sleep(3600)
    return Noop()


@flows.flow(inline=True)
def hold_the_loop(state: State, engine: Engine) -> AnyCommand:
    return hold_a_thread(state, engine)
