"""An actor: a state with an inbox. Reading a message and acting on it is one commit."""

from __future__ import annotations

import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    Pause,
    Query,
    State,
    Status,
    Transit,
)

pytestmark = pytest.mark.anyio


async def test_an_actor_handles_the_messages_of_its_inbox_one_by_one(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def counter(state: State, engine: Engine) -> Command:
        inbox = Query(labels={"inbox": state.id}, status=Status.PAUSED, latest=True)
        async with engine.watch(inbox) as messages:
            message = await anext(messages)
        if message.annotations["say"] == "stop":
            return Commit(End(message), End(state))
        total = int(state.annotations["total"]) + int(message.annotations["say"])
        return Commit(End(message), Transit(state.with_annotations(total=str(total)), "counter"))

    async def tell(engine: Engine, id: str, say: str) -> None:
        message = State(id, labels={"inbox": "actor-1"}, annotations={"say": say})
        await engine.do(Commit(Pause(message)))

    async with Engine(driver, flows) as engine:
        actor = State("actor-1", annotations={"total": "0"})
        (actor,) = await engine.do(Commit(Transit(actor, "counter")))
        await engine.start(actor)
        await tell(engine, "message-1", "3")
        await tell(engine, "message-2", "4")
        answered = await engine.wait("actor-1", lambda state: state.annotations["total"] == "7")
        await tell(engine, "message-3", "stop")
        stopped = await engine.wait("actor-1", Status.ENDED)

        assert answered.transition.status is Status.RUNNING
        assert stopped.annotations["total"] == "7"
        inbox = Query(labels={"inbox": "actor-1"}, latest=True)
        statuses = [message.transition.status async for message in engine.states(inbox)]
        assert statuses == [Status.ENDED] * 3
