"""The simulation over flows of somebody's own: it finds what they did not think of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import anyio

from flowstate import Command, Commit, End, Engine, Flows, State, Transit
from flowstate.testing import History, Outcome, Scenario, simulate


def payments(chance: Random, *, with_key: bool) -> Scenario:
    """Orders are charged at a bank, which may be told twice. The bank knows keys, if it is given
    one."""
    charges: Counter[str] = Counter()
    flows = Flows()

    @flows.flow
    async def charge(state: State, engine: Engine) -> Command:
        await engine.clock.wait_until(engine.clock.now() + chance.randrange(2_000))
        if not (with_key and charges[state.id]):
            charges[state.id] += 1
        return Commit(Transit(state, "ship"))

    @flows.flow
    async def ship(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="shipped"))

    def charged_once(history: History) -> Iterator[str]:
        """What was shipped was paid for, once."""
        for state in history.log:
            if state.transition.reason == "shipped" and charges[state.id] != 1:
                yield f"{state.id} was charged {charges[state.id]} times"

    return Scenario(
        flows, lambda n: Transit(State(f"order-{n}"), "charge"), invariants=[charged_once]
    )


def first_problem(seeds: int, *, with_key: bool) -> Outcome | None:
    for seed in range(seeds):
        outcome = simulate(seed, lambda chance: payments(chance, with_key=with_key))
        if outcome.problems:
            return outcome
    return None


def test_an_invariant_that_holds_whatever_happens() -> None:
    """Killed, frozen, cut off: with a key that stays the same nobody pays twice."""
    assert first_problem(10, with_key=True) is None


def test_a_flow_that_only_works_without_faults_is_found() -> None:
    """Without a key, some seed has somebody killed between the effect and the commit."""
    found = first_problem(30, with_key=False)
    assert found is not None
    assert {"charged_once"} == {problem.partition(":")[0] for problem in found.problems}
    again = simulate(found.seed, lambda chance: payments(chance, with_key=False))
    assert (found.problems, found.story) == (again.problems, again.story)


def test_a_flow_that_never_rests_is_found() -> None:
    """A law of the kernel: in the end nothing is left that should still happen."""

    def endless(chance: Random) -> Scenario:
        flows = Flows()

        @flows.flow
        async def again(state: State, engine: Engine) -> Command:
            await anyio.lowlevel.checkpoint()
            await engine.clock.wait_until(engine.clock.now() + 60_000)
            return Commit(Transit(state, "again"))

        return Scenario(flows, lambda n: Transit(State(f"s{n}"), "again"), rest=120)

    outcome = simulate(1, endless)
    assert any(problem.startswith("rest: state") for problem in outcome.problems)


def test_plain_functions_take_no_virtual_time() -> None:
    """A flow in a thread is not overtaken by the time of the others: no lease runs out."""

    def threads(chance: Random) -> Scenario:
        flows = Flows()

        @flows.flow
        def work(state: State, engine: Engine) -> Command:
            return Commit(End(state, reason="done"))

        return Scenario(flows, lambda n: Transit(State(f"s{n}"), "work"))

    outcome = simulate(2, threads)
    assert [] == outcome.problems
    assert any(state.transition.reason == "done" for state in outcome.history.log)
