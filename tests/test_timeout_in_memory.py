"""A timeout belongs to the committed version, so it holds through steps in memory."""

from __future__ import annotations

import anyio
import pytest

from flowstate import Commit, End, Engine, Flows, RetryPolicy, State, Status, Transit, connect
from flowstate.recovery import Recoverer

pytestmark = pytest.mark.anyio


async def test_a_timeout_fires_while_a_later_step_in_memory_runs() -> None:
    """The lease is renewed up to the timeout, whatever the flows have done since in memory."""
    flows = Flows()

    @flows.flow
    async def first(state: State, engine: Engine) -> Transit:
        return Transit(state, "hang")

    @flows.flow
    async def hang(state: State, engine: Engine) -> Transit:
        await anyio.sleep_forever()
        raise AssertionError

    @flows.flow
    async def late(state: State, engine: Engine) -> Commit:
        return Commit(End(state, reason="too late"))

    async with (
        connect("memory:") as driver,
        Engine(driver, flows, retry=RetryPolicy(lease=1), grace=0) as engine,
        Recoverer(engine),
    ):
        (state,) = await engine.do(
            Commit(Transit(State("a"), "first", timeout=1.2, on_timeout="late"))
        )
        await engine.start(state)
        with anyio.fail_after(5):
            ended = await engine.wait("a", Status.ENDED)
        assert ended.transition.reason == "too late"
