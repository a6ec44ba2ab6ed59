"""Watchers of a compacted store: they are told of what is missing, and of nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from flowstate import (
    Commit,
    CompactedError,
    Driver,
    End,
    Engine,
    Pause,
    Query,
    Retention,
    State,
    StateNotFoundError,
    Status,
    Transit,
    Watcher,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.testing.virtual import all_blocked
from flowstate.watch import Tail

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(engine: Engine) -> AsyncIterator[Engine]:
    """Another engine on the same store: what it commits the tail of the first has to read."""
    async with Engine(engine.driver) as other:
        yield other


async def compact(engine: Engine, *, ended: bool = False) -> None:
    """Remove all that is superseded, without letting others run meanwhile."""
    await engine.driver.compact(Retention(MAX_INSTANT_MS, ended=ended), 0, 10_000)


async def versions(engine: Engine, count: int, id: str = "a") -> list[State]:
    """That many versions of one state, without letting others run meanwhile."""
    states = [await _latest(engine, id)]
    for _ in range(count):
        states += await engine.do(Commit(Pause(states[-1])))
    return states[1:]


async def _latest(engine: Engine, id: str) -> State:
    try:
        return await engine.get(id)
    except StateNotFoundError:
        return State(id)


# ---------------------------------------------------------------- behind from the beginning


async def test_a_watcher_that_begins_below_is_told_where_history_begins(engine: Engine) -> None:
    """What it asked for, what there is, and what to do."""
    *_, last = await versions(engine, 5)
    await compact(engine)
    with pytest.raises(CompactedError) as told:
        await anext(engine.watch(after=2))
    assert (told.value.after, told.value.oldest) == (2, 5)
    assert str(told.value) == (
        "history after revision 2 was compacted: it is whole only from revision 5 on. Start with "
        "the current versions, Query(latest=True), or leave out what is gone, after=4"
    )
    assert await anext(engine.watch(after=told.value.oldest - 1)) == last
    assert await anext(engine.watch(Query(latest=True))) == last


async def test_a_watcher_of_what_was_not_compacted_is_told_too(engine: Engine) -> None:
    """Nobody knows what the versions that are gone would have matched."""
    await versions(engine, 1, "b")
    await versions(engine, 5, "a")
    await compact(engine)
    with pytest.raises(CompactedError):
        await anext(engine.watch(Query(id="b")))


async def test_reading_what_there_is_is_no_error(engine: Engine) -> None:
    """States, one state, the newest match: those are as they are."""
    *_, a = await versions(engine, 5, "a")
    await versions(engine, 1, "b")
    await compact(engine)
    assert [state.id async for state in engine.states()] == ["a", "b"]
    assert [state.rev async for state in engine.states(Query(after=1))] == [5, 6]
    assert [state async for state in engine.states(Query(latest=True, id="a"))] == [a]
    assert await engine.get("a") == a
    assert await engine.find(Query(id_prefix="a")) == a
    with pytest.raises(StateNotFoundError):
        await engine.get("a", 3)


# ---------------------------------------------------------------- overtaken


async def test_a_slow_watcher_that_is_overtaken_between_two_pages_is_told(engine: Engine) -> None:
    """What it was given until then was whole, and its token says how far."""
    await versions(engine, 10)
    watcher = engine.watch()
    watcher.page_size = 4
    assert [(await anext(watcher)).rev for _ in range(2)] == [1, 2]
    await compact(engine)
    assert [(await anext(watcher)).rev for _ in range(2)] == [3, 4], "it has these in hand"
    with pytest.raises(CompactedError) as told:
        await anext(watcher)
    assert (told.value.after, told.value.oldest) == (4, 10)
    assert watcher.rev == 4
    with pytest.raises(CompactedError):
        await anext(watcher)


async def test_a_watcher_that_is_overtaken_while_it_is_given_current_versions_is_told(
    engine: Engine,
) -> None:
    """Changes that came after it began, and went before it was through."""
    for name in "abc":
        await versions(engine, 1, name)
    watcher = engine.watch(Query(latest=True))
    watcher.page_size = 1
    assert (await anext(watcher)).id == "a"
    await versions(engine, 3, "a")
    await compact(engine)
    assert [(await anext(watcher)).id for _ in range(2)] == ["b", "c"]
    with pytest.raises(CompactedError) as told:
        await anext(watcher)
    assert (told.value.after, told.value.oldest) == (3, 6)


async def test_waiting_watchers_that_are_overtaken_are_told_and_the_tail_goes_on(
    engine: Engine, other: Engine
) -> None:
    """All that happened between two looks of the tail is gone: it begins anew above the gap, and
    feeds those who begin there."""
    await versions(engine, 2)
    found: list[tuple[int, int]] = []

    async def watch() -> None:
        with pytest.raises(CompactedError) as error:
            await anext(engine.watch(after=2))
        found.append((error.value.after, error.value.oldest))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(watch)
        await all_blocked()
        *_, last = await versions(other, 4)
        await compact(engine)
    assert found == [(2, 6)] * 3
    watcher = engine.watch(after=5)
    assert await anext(watcher) == last
    assert await versions(engine, 3) == [await anext(watcher) for _ in range(3)]


async def test_a_gap_that_is_longer_than_a_page_is_one_gap(engine: Engine) -> None:
    """The tail reads a page at a time; it does not offer what lies between as whole."""
    tail = Tail(engine.driver, [], page_size=2)
    for name in "abcdef":
        await versions(engine, 1, name)
    watcher = Watcher(engine.driver, Query(after=6), tail=tail)

    async def watch() -> None:
        with pytest.raises(CompactedError) as raised:
            await anext(watcher)
        assert raised.value.oldest == 26

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await all_blocked()
        for name in "gggghhhhiiiijjjjkkkk":
            await versions(engine, 1, name)
        await compact(engine)
    late = Watcher(engine.driver, Query(after=25), tail=tail)
    assert await anext(late) == await engine.get("k")


async def test_a_watcher_in_the_buffer_is_not_disturbed(engine: Engine) -> None:
    """What the tail has read it can give, though the store has it no more."""
    fast, slow = engine.watch(), engine.watch()
    (first,) = await versions(engine, 1)
    assert await anext(fast) == await anext(slow) == first
    seen: list[State] = []

    async def follow() -> None:
        while len(seen) < 5:
            seen.append(await anext(fast))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await all_blocked()
        written = await versions(engine, 5)
        await all_blocked()
        await compact(engine)
    assert seen == written
    assert [await anext(slow) for _ in range(5)] == written
    assert await versions(engine, 2) == [await anext(slow) for _ in range(2)]


# ---------------------------------------------------------------- waiting for one state


async def test_one_can_wait_for_a_state_whose_history_is_gone(engine: Engine) -> None:
    """Also for one that was last moved long before what is gone."""
    (old,) = await versions(engine, 1, "old")
    await versions(engine, 5, "busy")
    await compact(engine)
    found: list[State] = []

    async def wait() -> None:
        found.append(await engine.wait("old", Status.ENDED))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await all_blocked()
        await engine.do(Commit(End(old)))
    assert [state.transition.status for state in found] == [Status.ENDED]


async def test_waiting_goes_on_when_others_are_compacted(engine: Engine) -> None:
    """However far the store has moved on meanwhile: the state itself has not."""
    (state,) = await engine.do(Commit(Transit(State("a"), "work")))
    found: list[State] = []

    async def wait() -> None:
        found.append(await engine.wait("a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        for _ in range(3):
            await all_blocked()
            await versions(engine, 4, "busy")
            await compact(engine)
        await all_blocked()
        assert found == []
        await engine.do(Commit(Pause(state)))
    assert found[0].transition.status is Status.PAUSED


async def test_who_waits_and_was_overtaken_is_given_what_is_as_wanted_now(engine: Engine) -> None:
    """The versions in between are gone; the current one is as wanted, and that will do."""
    (state,) = await engine.do(Commit(Transit(State("a"), "work")))
    found: list[State] = []

    async def wait() -> None:
        found.append(await engine.wait("a", Status.PAUSED))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await all_blocked()
        (moved,) = await engine.do(Commit(Transit(state, "other")))
        (paused,) = await engine.do(Commit(Pause(moved)))
        await compact(engine)
    assert found == [paused]


async def test_who_waits_is_told_when_what_was_wanted_may_have_been_missed(
    engine: Engine, other: Engine
) -> None:
    """The state moved, and what it was in between nobody knows."""
    (state,) = await engine.do(Commit(Transit(State("a"), "work")))

    async def wait() -> None:
        with pytest.raises(CompactedError):
            await engine.wait("a", Status.PAUSED)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await all_blocked()
        (paused,) = await other.do(Commit(Pause(state)))
        await other.do(Commit(Transit(paused, "work")))
        await compact(engine)


async def test_who_waits_for_a_state_that_went_whole_is_told(engine: Engine, other: Engine) -> None:
    """It is not there any more."""
    (state,) = await engine.do(Commit(Transit(State("a"), "work")))

    async def wait() -> None:
        with pytest.raises(StateNotFoundError):
            await engine.wait("a", Status.PAUSED)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await all_blocked()
        await other.do(Commit(End(state)))
        await versions(other, 1, "b")
        await compact(engine, ended=True)


async def test_one_can_wait_for_a_state_that_was_created_again(
    engine: Engine, driver: Driver
) -> None:
    """Its id is free, and what is there now counts."""
    await engine.do(Commit(End(State("a"))))
    await versions(engine, 1, "b")
    await compact(engine, ended=True)
    with pytest.raises(StateNotFoundError):
        await engine.wait("a")
    (again,) = await engine.do(Commit(Pause(State("a"))))
    assert await engine.wait("a") == again
    assert await driver.get("a") == again
