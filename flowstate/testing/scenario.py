"""What a simulated cluster works on: flows, how states begin, and what must be true in the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from random import Random

import anyio
from attrs import field, frozen

from ..clock import pause
from ..commands import (
    Command,
    Commit,
    Delay,
    End,
    Execute,
    Fail,
    Noop,
    Pause,
    Resume,
    Retry,
    Save,
    Transit,
)
from ..engine import Engine
from ..errors import StateNotFoundError
from ..flows import Flows
from ..query import Query
from ..state import RetryPolicy, State
from .history import History, Invariant

LEASE_S = 6.0
POLICY = RetryPolicy(lease=LEASE_S, max_attempts=6, backoff=0.5, max_backoff=20)
UNDONE = RetryPolicy(lease=LEASE_S, max_attempts=3, backoff=0.5, max_backoff=20, on_give_up="undo")
COUNTER = "counter"
"""The id of the state in which flows count together."""


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
        labels = {"client": client, "hops": str(chance.randrange(8))}
        retry = UNDONE if chance.random() < 0.3 else None
        new = State(f"{client}/{n}", labels=labels, retry=retry)
        return Transit(new.attach("n", n), "step")

    def intervene(state: State) -> Command[State]:
        return chance.choice(
            (
                lambda: Resume(state),
                lambda: Pause(state, reason="by hand"),
                lambda: Pause(state, "step", timeout=chance.randrange(30)),
                lambda: End(state, reason="by hand"),
                lambda: Fail(state, reason="by hand"),
                lambda: Save(state.with_labels(seen="yes")),
                lambda: Transit(state, "step"),
            )
        )()

    return Scenario(
        _everything(chance),
        begin,
        intervene=intervene,
        queries=(Query(), Query(labels={"client": "s0"}), Query(id_prefix="s1/")),
        invariants=(counted,),
    )


def counted(history: History) -> Iterator[str]:
    """The counter has what all states have counted: no race was lost, and none was won twice."""
    latest = {state.id: state for state in history.log}
    counter = latest.pop(COUNTER, State(COUNTER))
    total = sum(int(state.labels.get("counted", "0")) for state in latest.values())
    if total != int(counter.labels.get("n", "0")):
        yield f"{total} were counted, and the counter has {counter.labels.get('n', '0')}"


def _steps(state: State, chance: Random) -> Sequence[Callable[[], Command]]:
    """What a flow may do, each as a function that makes the command; the frequent ones twice."""
    left = int(state.labels["hops"])
    onward = state.with_labels(hops=str(left - 1))

    def fork() -> Command:
        labels = onward.without_labels("counted").labels
        child = State(f"{state.id}/{chance.randrange(10**9)}", labels=labels)
        return Commit(Transit(onward, "step"), Transit(child, "step"))

    def fail() -> Command:
        raise ValueError("by chance")

    return (
        lambda: Transit(onward, "step"),
        lambda: Transit(onward, "step"),
        lambda: Commit(Transit(onward.attach("n", left), "step")),
        lambda: Commit(Transit(onward.attach("n", left), "step")),
        lambda: Commit(Transit(onward, "step", timeout=5)),
        lambda: Commit(Transit(onward, "step", timeout=5)),
        lambda: Commit(Delay(onward, after=chance.random() * 20)),
        lambda: Commit(Delay(onward, after=chance.random() * 20)),
        lambda: Commit(Pause(onward, timeout=chance.random() * 20, on_timeout="step")),
        lambda: Commit(Pause(onward, timeout=chance.random() * 20, on_timeout="step")),
        lambda: Commit(Transit(onward, "work")),
        lambda: Commit(Transit(onward, "work")),
        lambda: Commit(Transit(onward, "hang", timeout=10, on_timeout="step")),
        lambda: Commit(Transit(onward, "hang", timeout=10, on_timeout="step")),
        lambda: Commit(Transit(onward, "count")),
        lambda: Commit(Transit(onward, "count")),
        lambda: Commit(Transit(onward, "count")),
        lambda: Commit(Transit(onward, "count")),
        lambda: Commit(Transit(onward, "alone")),
        lambda: Commit(Transit(onward, "alone")),
        lambda: Commit(Retry(state, after=chance.random() * 20, reason="later")),
        lambda: Commit(Retry(state, after=chance.random() * 20, reason="later")),
        lambda: Commit(Transit(onward, "doomed")),
        lambda: Commit(Fail(onward, "of no use")),
        fork,
        fork,
        fail,
        fail,
    )


def _everything(chance: Random) -> Flows:
    flows = Flows()
    _add_steps(flows, chance)
    _add_what_fails(flows, chance)
    _add_count(flows, chance)
    return flows


def _add_steps(flows: Flows, chance: Random) -> None:
    """The flows of states that do well."""

    @flows.flow
    async def step(state: State, engine: Engine) -> Command:
        if state.labels.get("hops", "0") == "0":
            return Commit(End(state, reason="done"))
        return chance.choice(_steps(state, chance))()

    @flows.flow
    async def alone(state: State, engine: Engine) -> Command:
        """Commits its own state, and goes on with it or leaves it to others."""
        (moved,) = await engine.do(Commit(Transit(state, "step")))
        return Execute(moved) if chance.random() < 0.5 else Noop()

    @flows.flow("work")
    async def work_long(state: State, engine: Engine) -> Command:
        """Works for up to three leases."""
        await pause(engine.clock, chance.randrange(round(3_000 * LEASE_S)))
        return Commit(Transit(state, "step"))

    @flows.flow
    async def hang(state: State, engine: Engine) -> Command:
        if state.transition.alarm is None:  # an operator resumed it, and no timeout would end it
            return Commit(Transit(state, "step"))
        await anyio.sleep_forever()
        raise AssertionError


def _add_what_fails(flows: Flows, chance: Random) -> None:
    @flows.flow
    async def doomed(state: State, engine: Engine) -> Command:
        raise ValueError("always")

    @flows.flow
    async def undo(state: State, engine: Engine) -> Command:
        """What the policy of some states has for those that were given up."""
        if chance.random() < 0.5:
            sys.exit("by chance")
        return Commit(End(state, reason="undone"))


def _add_count(flows: Flows, chance: Random) -> None:
    @flows.flow
    async def count(state: State, engine: Engine) -> Command:
        """Counts in a state that all share, so slowly that it loses races on it."""
        mine = state.with_labels(counted=str(int(state.labels.get("counted", "0")) + 1))
        try:
            counter = await engine.get(COUNTER)
        except StateNotFoundError:
            return Commit(Transit(mine, "step"), Pause(State(COUNTER, labels={"n": "1"})))
        await engine.sleep_until(engine.clock.now() + chance.randrange(1_000))
        n = int(counter.labels["n"]) + 1
        return Commit(Transit(mine, "step"), Save(counter.with_labels(n=str(n))))
