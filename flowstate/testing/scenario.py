"""What a simulated cluster works on: flows, how states begin, and what must be true in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import anyio
from attrs import field, frozen

from ..commands import Command, Commit, Delay, End, Pause, Resume, Transit
from ..engine import Engine
from ..flows import Flows
from ..query import Query
from ..state import RetryPolicy, State
from .history import Invariant

LEASE_S = 6.0
POLICY = RetryPolicy(lease=LEASE_S, max_attempts=6, backoff=0.5, max_backoff=20)


@frozen
class Scenario:
    """The flows of a simulation, and how states begin and move. A function of the source of chance
    makes one for each seed.

    The flows run on virtual time: they wait with ``engine.clock``, take chance from the source that
    the function was given, and use nothing outside the process. A plain function is ``inline``,
    since threads end in an order that no seed decides.
    """

    flows: Flows
    """The flows of every process."""
    begin: Callable[[int], Command[State]]
    """Gives the command that begins the n-th state, from 1 on, e.g.
    ``Transit(State(f"order-{n}"), "charge")``."""
    intervene: Callable[[State], Command[State]] | None = field(default=None, kw_only=True)
    """Gives the command that an operator does to a state, now and then, whatever it is doing."""
    policy: RetryPolicy = field(default=POLICY, kw_only=True)
    """The retry policy of states without one of their own."""
    queries: Sequence[Query] = field(default=(Query(),), kw_only=True)
    """The queries of the watchers."""
    invariants: Sequence[Invariant] = field(default=(), kw_only=True)
    """What must be true of the history besides the laws of the kernel."""
    rest: float = field(default=1_800.0, kw_only=True)
    """The seconds after the last fault within which every state must have come to rest."""


def everything(chance: Random) -> Scenario:
    """Flows that do everything that a flow can do, by chance, and an operator who interferes."""

    def begin(n: int) -> Command[State]:
        client = chance.choice(("s0", "s1"))
        new = State(f"{client}/{n}", labels={"client": client, "hops": str(chance.randrange(8))})
        return Transit(new.attach("n", n), "step")

    def intervene(state: State) -> Command[State]:
        return chance.choice(
            (
                lambda: Resume(state),
                lambda: Pause(state, reason="by hand"),
                lambda: Pause(state, "step", timeout=chance.randrange(30)),
                lambda: End(state, reason="by hand"),
                lambda: Transit(state, "step"),
            )
        )()

    return Scenario(
        _everything(chance),
        begin,
        intervene=intervene,
        queries=(Query(), Query(labels={"client": "s0"}), Query(id_prefix="s1/")),
    )


def _everything(chance: Random) -> Flows:  # noqa: C901  (the flows of one program)
    flows = Flows()

    @flows.flow
    async def step(state: State, engine: Engine) -> Command:  # noqa: C901, PLR0911  (a table)
        left = int(state.labels.get("hops", "0"))
        if not left:
            return Commit(End(state, reason="done"))
        onward = state.with_labels(hops=str(left - 1))
        match chance.randrange(10):
            case 0:
                return Transit(onward, "step")
            case 1:
                return Commit(Delay(onward, after=chance.random() * 20))
            case 2:
                return Commit(Pause(onward, timeout=chance.random() * 20, on_timeout="step"))
            case 3:
                return Commit(Transit(onward, "work"))
            case 4:
                return Commit(Transit(onward, "hang", timeout=10, on_timeout="step"))
            case 5:
                child = State(f"{state.id}/{chance.randrange(10**9)}", labels=onward.labels)
                return Commit(Transit(onward, "step"), Transit(child, "step"))
            case 6:
                raise ValueError("by chance")
            case 7:
                return Commit(Transit(onward, "step", timeout=5))
            case 8 if chance.random() < 0.3:
                return Commit(Transit(onward, "doomed"))
            case _:
                return Commit(Transit(onward.attach("n", left), "step"))

    @flows.flow("work")
    async def work_long(state: State, engine: Engine) -> Command:
        """Works for up to three leases."""
        end = engine.clock.now() + chance.randrange(round(3_000 * LEASE_S))
        while engine.clock.now() < end:
            await engine.clock.wait_until(end)
        return Commit(Transit(state, "step"))

    @flows.flow
    async def hang(state: State, engine: Engine) -> Command:
        if state.transition.alarm is None:  # an operator resumed it, and no timeout would end it
            return Commit(Transit(state, "step"))
        await anyio.sleep_forever()
        raise AssertionError

    @flows.flow
    async def doomed(state: State, engine: Engine) -> Command:
        raise ValueError("always")

    return flows
