"""How flows are run: what they return, raise, lose and leave behind, over two drivers and both
event loops, on a clock that costs no time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flowstate import Command, Commit, End, Engine, Flows, Query, State, Status, Transit
from flowstate.leases import Claimed


async def begin(engine: Engine, id: str, flow: str, **more: object) -> State:
    """A new state, committed RUNNING at *flow*."""
    (state,) = await engine.do(Commit(Transit(State(id), flow, **more)))  # type: ignore[arg-type]
    return state


async def history(engine: Engine, id: str) -> list[State]:
    """Every version of a state."""
    return [state async for state in engine.states(Query(id=id))]


async def dies_with(engine: Engine, state: State) -> State:
    """Have a ready state taken by somebody who dies before its flow begins."""
    now = engine.clock.now()
    (taken,) = await engine.driver.take([(state.id, state.rev)], "dead", f"{state.rev}", now)
    assert isinstance(taken, Claimed)
    return taken.state


async def ready(engine: Engine, *flows: str) -> list[str]:
    """The ids of what whoever has these flows may claim at this moment, by revision."""
    running = engine.states(Query(status=Status.RUNNING, latest=True))
    return [
        state.id
        async for state in running
        if state.transition.to in flows
        and (place := await engine.timers.place(state.id)) is not None
        and place.since is not None
    ]


def add(flows: Flows, name: str, *makes: Callable[[State], Command]) -> list[State]:
    """A flow that returns what one function after the other makes of its state, the last one
    again and again; gives the states that it is given."""
    given: list[State] = []
    left = list(makes)

    @flows.flow(name)
    async def run(state: State, engine: Engine) -> Command:
        given.append(state)
        make = left.pop(0) if len(left) > 1 else left[0]
        return make(state)

    return given


def ends(state: State) -> Command:
    return Commit(End(state))


def causes(states: Iterable[State]) -> Sequence[str]:
    """Why each version came to be."""
    return [state.transition.cause.value for state in states]
