"""A log is judged by what it says: one's own as well as that of a simulation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstate import (
    Commit,
    CompactedError,
    Driver,
    End,
    Engine,
    Pause,
    Retention,
    RetryPolicy,
    RevMismatchError,
    State,
    Status,
    Transit,
)
from flowstate.testing import History, RecordingDriver, check

pytestmark = pytest.mark.anyio


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
