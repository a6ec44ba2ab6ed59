"""Forks: a flow sets other states going; a join: it is resumed by the first or the last of them."""

from __future__ import annotations

import anyio
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Execute,
    Flows,
    Noop,
    Pause,
    Query,
    Resume,
    RevMismatchError,
    State,
    Status,
    Transit,
)

pytestmark = pytest.mark.anyio


async def test_a_fork_without_commit_runs_beside_its_parent(driver: Driver) -> None:
    flows = Flows()
    child_ran = anyio.Event()

    @flows.flow
    async def parent(state: State, engine: Engine) -> Command:
        child = await engine.do(Transit(State("child"), "child"))
        await engine.start(child)
        await child_ran.wait()  # only possible if both run at once
        return Commit(End(state))

    @flows.flow
    async def child(state: State, engine: Engine) -> Command:
        child_ran.set()
        return Noop()

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("parent"), "parent")))
        state = await engine.execute(state)

        assert state.transition.status is Status.ENDED


async def test_a_fork_with_commit_is_stored_together_with_its_parent(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def parent(state: State, engine: Engine) -> Command:
        return Commit(
            End(state),
            Transit(State("child-1", labels={"parent": state.id}), "child"),
            Transit(State("child-2", labels={"parent": state.id}), "child"),
        )

    @flows.flow
    async def child(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="done"))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("parent"), "parent")))
        state = await engine.execute(state)

        # the committed children were started in the background
        first = await engine.wait("child-1", Status.ENDED)
        second = await engine.wait("child-2", Status.ENDED)
        assert (first.transition.reason, second.transition.reason) == ("done", "done")
        forked = [child.rev async for child in engine.states({"parent": "parent"})]
        assert forked[:2] == [state.rev + 1, state.rev + 2]


def fork_three(state: State) -> Command:
    """Pause at "joined" and set three children going, in one commit."""
    children = [
        Transit(State(f"{state.id}/{n}", labels={"parent": state.id}), "child") for n in (1, 2, 3)
    ]
    return Commit(Pause(state, to="joined"), *children)


async def test_a_join_where_the_first_wins(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def parent(state: State, engine: Engine) -> Command:
        return fork_three(state)

    @flows.flow
    async def child(state: State, engine: Engine) -> Command:
        waiting = await engine.get(state.labels["parent"])
        if waiting.transition.status is Status.PAUSED:
            winner = waiting.with_annotations(winner=state.id)
            try:
                _, resumed = await engine.do(Commit(End(state, "won"), Resume(winner)))
                return Execute(resumed)
            except RevMismatchError:
                pass  # another one was faster
        return Commit(End(state, "lost"))

    @flows.flow
    async def joined(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("race"), "parent")))
        await engine.execute(state)
        state = await engine.wait("race", Status.ENDED)
        ended = {n: await engine.wait(f"race/{n}", Status.ENDED) for n in (1, 2, 3)}

        results = {child.id: child.transition.reason for child in ended.values()}
        assert sorted(results.values()) == ["lost", "lost", "won"]
        assert results[state.annotations["winner"]] == "won"


async def test_a_join_where_the_last_wins(driver: Driver) -> None:
    flows = Flows()

    @flows.flow
    async def parent(state: State, engine: Engine) -> Command:
        return fork_three(state)

    @flows.flow
    async def child(state: State, engine: Engine) -> Command:
        while True:
            waiting = await engine.get(state.labels["parent"])
            counted = waiting.with_annotations({state.id: "arrived"})
            is_last = len(counted.annotations) == 3
            try:
                _, parent = await engine.do(
                    Commit(End(state), Resume(counted) if is_last else Pause(counted))
                )
            except RevMismatchError:
                continue  # another one was counted meanwhile: look again
            return Execute(parent) if is_last else Noop()

    @flows.flow
    async def joined(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    async with Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("all"), "parent")))
        await engine.execute(state)
        state = await engine.wait("all", Status.ENDED)

        assert state.annotations == {f"all/{n}": "arrived" for n in (1, 2, 3)}
        trail = [version.transition.status async for version in engine.states(Query(id="all"))]
        assert trail == [
            Status.RUNNING,
            Status.PAUSED,  # forked
            Status.PAUSED,  # one has arrived
            Status.PAUSED,  # two have
            Status.RUNNING,  # all have
            Status.ENDED,
        ]
