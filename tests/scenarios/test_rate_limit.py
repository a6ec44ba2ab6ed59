"""A rate limiter: states pause in front of it, and it resumes one for each token that it gets."""

from __future__ import annotations

import anyio
import pytest

from flowstate import (
    Cause,
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    Noop,
    Pause,
    Query,
    Resume,
    State,
    Status,
    Transit,
)

pytestmark = pytest.mark.anyio


async def test_a_rate_limiter_lets_one_of_ten_states_pass_for_each_token(driver: Driver) -> None:
    flows = Flows()
    # what refills the bucket; in real life a task that sleeps between two tokens
    refill, tokens = anyio.create_memory_object_stream[None](10)

    @flows.flow
    async def limiter(state: State, engine: Engine) -> Command:
        queue = Query(labels={"limiter": state.id}, status=Status.PAUSED, latest=True)
        async for limited in engine.watch(queue):
            await tokens.receive()
            passed = limited.without_labels("limiter")
            (passed,) = await engine.do(Commit(Resume(passed)))
            await engine.start(passed)
        return Noop()

    @flows.flow
    async def call(state: State, engine: Engine) -> Command:
        if state.transition.cause is not Cause.RESUME:
            return Commit(Pause(state.with_labels(limiter="limiter")))
        return Commit(End(state))

    async def count(engine: Engine, status: Status) -> int:
        calls = Query(id_prefix="call-", status=status, latest=True)
        return len([state async for state in engine.states(calls)])

    with refill, tokens:
        async with Engine(driver, flows) as engine:
            (limiting,) = await engine.do(Commit(Transit(State("limiter"), "limiter")))
            await engine.start(limiting)
            calls = await engine.do(
                Commit(*(Transit(State(f"call-{n}"), "call") for n in range(10)))
            )
            for state in calls:
                await engine.execute(state)

            for n in range(4):
                refill.send_nowait(None)
                await engine.wait(f"call-{n}", Status.ENDED)
            assert await count(engine, Status.ENDED) == 4
            assert await count(engine, Status.PAUSED) == 6

            for n in range(4, 10):
                refill.send_nowait(None)
                await engine.wait(f"call-{n}", Status.ENDED)
            assert await count(engine, Status.ENDED) == 10
            await engine.do(Commit(End(limiting)))  # ending its state stops the limiter
