"""What an engine wrote or loaded it does not read from the store again."""

from __future__ import annotations

from collections import Counter

import pytest

from flowstate import Commit, DataRef, Driver, Engine, Pause, State, SystemClock
from flowstate.payloads import PayloadCache
from flowstate.testing.virtual import TimedDriver, VirtualClock

C = "c" * 64
D = "d" * 64

pytestmark = pytest.mark.anyio


def calls(store: Driver) -> Counter[str]:
    assert isinstance(store, TimedDriver)
    return store.calls


async def written(engine: Engine) -> State:
    (state,) = await engine.do(Commit(Pause(State("a").attach("x", {"n": 1}))))
    return state


async def test_what_was_written_is_not_loaded(engine: Engine, store: Driver) -> None:
    assert {"n": 1} == await engine.data(await written(engine), "x")
    assert 0 == calls(store)["load"]


async def test_what_was_loaded_is_loaded_once(
    engine: Engine, store: Driver, clock: VirtualClock
) -> None:
    state = await written(engine)
    async with Engine(store, clock=clock) as other:
        assert [{"n": 1}] * 3 == [await other.data(state, "x") for _ in range(3)]
    assert 1 == calls(store)["load"]


async def test_a_payload_of_the_second_state_of_a_commit_is_found_too(
    engine: Engine, store: Driver
) -> None:
    _, state = await engine.do(
        Commit(Pause(State("a").attach("x", 1)), Pause(State("b").attach("y", 2)))
    )
    assert 2 == await engine.data(state, "y")
    assert 0 == calls(store)["load"]


async def test_what_is_large_is_not_kept(engine: Engine, store: Driver) -> None:
    large = b"x" * (5 << 20)
    (state,) = await engine.do(Commit(Pause(State("a").attach("x", large))))
    assert large == await engine.data(state, "x", bytes)
    assert 1 == calls(store)["load"]


def ref(rev: int, checksum: str = C) -> DataRef:
    return DataRef(rev, 10, "text/plain", checksum)


def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago() -> None:
    cache = PayloadCache(SystemClock(), 100)
    for rev in range(1, 11):
        cache.put(rev, C, b"x" * 10)
    assert cache.get(ref(1)) is not None
    cache.put(11, C, b"x" * 10)
    kept = [rev for rev in range(1, 12) if cache.get(ref(rev)) is not None]
    assert [1, *range(3, 12)] == kept
    assert 100 == cache.size


def test_a_payload_is_told_by_its_revision_and_its_checksum() -> None:
    cache = PayloadCache(SystemClock(), 100)
    cache.put(1, C, b"one")
    assert (b"one", None, None) == (
        cache.get(ref(1)),
        cache.get(ref(2)),
        cache.get(ref(1, D)),
    )
