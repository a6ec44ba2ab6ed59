"""What should have gone on long ago: what is asked for when something hangs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from attrs import frozen
from msgspec.structs import replace

from flowstate import Due, Engine, Query, State, Status
from flowstate.leases import Holding, name_of

from . import output
from .reading import Readable

MAX_DUE = 10_000
"""How many states that are due are looked at, the soonest first."""


@frozen
class Late:
    """A state that should have gone on *ms* ago, and why it has not."""

    state: State
    ms: int
    why: str


async def late(
    engine: Engine, query: Query, than_ms: int, readable: Readable
) -> AsyncGenerator[Late]:
    """The states that match and should have gone on longer ago than that: first what is due, from
    the soonest on, then what is ready."""
    taken = {holding.id: holding for holding in await engine.timers.holdings()}
    now = engine.clock.now()
    page = await engine.timers.due(MAX_DUE)
    readable.pass_by(page.unreadable)
    told: set[str] = set()
    for due in page.due:
        ms = now - due.at
        if ms > than_ms and query.matches(due.state):
            told.add(due.state.id)
            yield Late(due.state, ms, _why(due, taken))
    if page.next is not None and now - page.next > than_ms:
        output.warn(f"more is due: only the first {MAX_DUE:,} were looked at")
    async for each in _ready(engine, query, than_ms, readable, taken):
        if each.state.id not in told:
            yield each


async def _ready(
    engine: Engine,
    query: Query,
    than_ms: int,
    readable: Readable,
    taken: Mapping[str, Holding],
) -> AsyncGenerator[Late]:
    """Those that have been in line for longer."""
    now = engine.clock.now()
    line = await engine.timers.line()
    flows = {flow for flow, since in line.items() if now - since > than_ms}
    if query.flows:
        flows &= query.flows
    if not flows or (query.statuses and Status.RUNNING not in query.statuses):
        return
    held = await engine.held()
    running = replace(query, status=Status.RUNNING, flow=flows)
    async for state in readable.of(engine.states(running)):
        place = None if state.id in taken else await engine.timers.place(state.id)
        if place is None or place.since is None or now - place.since <= than_ms:
            continue  # taken, perhaps meanwhile, or not for long
        reason = held.get(state.transition.to)
        hold = "" if reason is None else f", for its flow is held{reason and f': {reason}'}"
        yield Late(state, now - place.since, f"ready, and nobody takes it{hold}")


def _why(due: Due, taken: Mapping[str, Holding]) -> str:
    alarm = due.state.transition.alarm
    if alarm is not None and alarm.at == due.at:
        return f"its alarm, to {alarm.to}, has not fired"
    holding = taken.get(due.state.id)
    owner = name_of(holding.place.owner) if holding else ""
    return f"its lease ran out, and {owner or 'whoever had it'} has not ended it"
