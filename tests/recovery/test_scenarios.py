"""The simulation over flows of somebody's own: it finds what they did not think of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import anyio
import pytest

from flowstate import (
    Command,
    Commit,
    CompactedError,
    Driver,
    End,
    Engine,
    Flows,
    Pause,
    Retention,
    RetryPolicy,
    RevMismatchError,
    State,
    Status,
    Transit,
)
from flowstate.testing import History, Outcome, RecordingDriver, Scenario, check, simulate

pytestmark = pytest.mark.anyio


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


# ---------------------------------------------------------------- a log of one's own


async def test_a_log_is_judged_by_what_it_says(driver: Driver) -> None:
    """All of it is read; what is not known is not judged."""
    async with Engine(driver, retry=RetryPolicy(max_attempts=2)) as engine:
        (state,) = await engine.do(Commit(Transit(State("a"), "work")))
        history = await History.read(driver)
        assert [state] == list(history.log)
        assert ["rest: state 'a' is RUNNING at 'work'"] == check(history)
        await engine.do(Commit(End(state)))
    assert [] == check(await History.read(driver))


async def test_what_was_tried_and_told_is_noted(driver: Driver) -> None:
    """A version that came by another way than the recording driver was written by nobody."""
    recording = RecordingDriver(driver)
    async with Engine(recording) as engine, Engine(driver) as other:
        (a,) = await engine.do(Commit(Pause(State("a"))))
        (a,) = await engine.do(Commit(Pause(a)))
        with pytest.raises(RevMismatchError):
            await engine.do(Commit(Pause(State("a"))))
        history = await recording.history()
        assert ([], 3, 2) == (check(history), len(history.plans), len(history.acknowledged))
        await other.do(Commit(Pause(a)))
    (problem,) = check(await recording.history())
    assert problem.startswith("writers: no plan wrote the whole commit that begins with revision 3")


async def test_a_compacted_log_is_not_judged(driver: Driver) -> None:
    """Nobody can say whether what is not there any more was right."""
    async with Engine(driver) as engine:
        (a,) = await engine.do(Commit(Pause(State("a"))))
        await engine.do(Commit(Pause(a)))
        (newer,) = await engine.do(Commit(Pause(State("b"))))
        await driver.compact(Retention(newer.committed_at + 1), 0, 100)
        with pytest.raises(CompactedError):
            await History.read(driver)


async def test_an_invariant_is_told_by_its_name(driver: Driver) -> None:
    """As the laws are."""

    def nobody_waits(history: History) -> Iterator[str]:
        waiting = [s for s in history.log if s.transition.status is Status.PAUSED]
        yield from (f"{state.id} waits" for state in waiting)

    async with Engine(driver) as engine:
        await engine.do(Commit(Pause(State("a"))))
    assert ["nobody_waits: a waits"] == check(await History.read(driver), [nobody_waits])
