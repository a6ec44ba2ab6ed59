"""A mutex: a state that one holder at a time has, because only one commit can take it."""

from __future__ import annotations

import anyio.lowlevel
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Execute,
    Flows,
    Pause,
    Query,
    RevMismatchError,
    State,
    Status,
    Transit,
)

pytestmark = pytest.mark.anyio


async def test_a_mutex_lets_one_state_in_at_a_time(driver: Driver) -> None:
    flows = Flows()
    inside: list[str] = []
    most_inside = 0
    served: list[str] = []

    @flows.flow
    async def lock(state: State, engine: Engine) -> Command:
        async for mutex in engine.watch(Query(id="mutex", latest=True)):
            if "holder" not in mutex.labels:
                taken = mutex.with_labels(holder=state.id)
                try:
                    _, entered = await engine.do(Commit(Pause(taken), Transit(state, "work")))
                except RevMismatchError:
                    continue  # another one was faster; the watcher tells when it is free again
                return Execute(entered)
        raise AssertionError("a watcher never ends by itself")

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        nonlocal most_inside
        inside.append(state.id)
        for _ in range(10):  # let the others try
            most_inside = max(most_inside, len(inside))
            await anyio.lowlevel.checkpoint()
        served.append(state.id)
        inside.remove(state.id)
        mutex = await engine.get("mutex")
        return Commit(Pause(mutex.without_labels("holder")), End(state))

    async with Engine(driver, flows) as engine:
        await engine.do(Commit(Pause(State("mutex"))))
        contenders = await engine.do(
            Commit(*(Transit(State(f"job-{n}"), "lock") for n in (1, 2, 3)))
        )
        for contender in contenders:
            await engine.start(contender)
        for contender in contenders:
            await engine.wait(contender.id, Status.ENDED)

        assert most_inside == 1
        assert sorted(served) == ["job-1", "job-2", "job-3"]
        # the log proves it too: the mutex was taken and freed in turn
        holders = ["holder" in mutex.labels async for mutex in engine.states(Query(id="mutex"))]
        assert holders == [False, True, False, True, False, True, False]
