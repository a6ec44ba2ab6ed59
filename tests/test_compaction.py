"""A run of compaction: what it is asked for, what it tells, and how it makes room for others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Commit,
    Compaction,
    End,
    Engine,
    EngineClosedError,
    InvalidValueError,
    Pause,
    Query,
    Retention,
    State,
    StoreBusyError,
)
from flowstate.compaction import FIRST_LIMIT, MAX_LIMIT, MIN_LIMIT
from flowstate.drivers.memory import MemoryDriver
from flowstate.testing import VirtualClock

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


@define(eq=False)
class Observed(MemoryDriver):
    """Notes every batch, and takes as long for it as it is told."""

    batches: list[tuple[int, int]] = field(factory=list[tuple[int, int]])
    """after, limit"""
    takes_ms: int = 0

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        self.batches.append((after, limit))
        if self.takes_ms:
            await self.clock.wait_until(self.clock.now() + self.takes_ms)
        return await super().compact(retention, after, limit, dry_run=dry_run)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def driver(clock: VirtualClock) -> Observed:
    return Observed(clock=clock)


@pytest.fixture
async def engine(driver: Observed, clock: VirtualClock) -> Any:
    async with driver, Engine(driver, clock=clock) as engine:
        yield engine


async def fill(engine: Engine, states: int, versions: int) -> None:
    """That many states with that many versions each, all of one state first."""
    for n in range(states):
        state = State(f"s{n}")
        for _ in range(versions):
            (state,) = await engine.do(Commit(Pause(state)))


def count(engine: Engine) -> int:
    assert isinstance(engine.driver, Observed)
    return len(list(engine.driver.stored()))


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    "age", [3_600, 3_600.0, timedelta(hours=1), "instant"], ids=["int", "float", "delta", "time"]
)
async def test_before_is_an_age_or_a_time(engine: Engine, clock: VirtualClock, age: Any) -> None:
    """Seconds or a timedelta before now, by the engine's clock; or an aware datetime."""
    if age == "instant":
        age = datetime.fromtimestamp(clock.now() / 1000, UTC)
    await fill(engine, 1, 3)
    await clock.advance(3_600)
    assert (await engine.compact(age).finish()).versions == 0, "not older, as old"
    await clock.advance(0.001)
    if isinstance(age, datetime):
        age += timedelta(milliseconds=1)
    assert (await engine.compact(age).finish()).versions == 2


async def test_an_age_of_zero_is_everything_until_now(engine: Engine, clock: VirtualClock) -> None:
    await fill(engine, 1, 3)
    await clock.advance(0.001)
    assert (await engine.compact(0).finish()).versions == 2


async def test_an_age_longer_than_time_is_nothing(engine: Engine) -> None:
    """Before 1970 nothing was committed."""
    await fill(engine, 1, 3)
    assert (await engine.compact(timedelta(days=300_000)).finish()).versions == 0


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        ({"before": -1}, "before"),
        ({"before": "30d"}, "before"),
        ({"before": True}, "before"),
        ({"before": datetime(2024, 1, 1)}, "before"),  # noqa: DTZ001  (what is refused)
        ({"before": 1, "keep": 0}, "Retention.keep"),
        ({"before": 1, "keep": 1.5}, "Retention.keep"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_removed(
    engine: Engine, kwargs: Any, field: str
) -> None:
    await fill(engine, 1, 3)
    with pytest.raises(InvalidValueError) as refused:
        engine.compact(**kwargs)
    assert refused.value.field == field
    assert count(engine) == 3


async def test_keep_and_ended_reach_the_store(engine: Engine, clock: VirtualClock) -> None:
    await fill(engine, 2, 4)
    await engine.do(Commit(End(await engine.get("s0"))))
    await engine.do(Commit(Pause(State("newest"))))
    await clock.advance(1)
    total = await engine.compact(0.5, keep=3, ended=True).finish()
    assert (total.versions, total.states) == (5 + 1, 1)
    assert [s.id async for s in engine.states()] == ["s1"] * 3 + ["newest"]


async def test_a_dry_run_counts_and_removes_nothing(engine: Engine, clock: VirtualClock) -> None:
    await fill(engine, 2, 3)
    await clock.advance(1)
    counted = await engine.compact(0, dry_run=True).finish()
    assert count(engine) == 6
    assert await engine.compact(0).finish() == counted
    assert counted.versions == 4
    assert count(engine) == 2


async def test_only_an_open_engine_compacts(driver: Observed) -> None:
    with pytest.raises(EngineClosedError):
        Engine(driver).compact(0)


# ---------------------------------------------------------------- what it tells


async def test_it_tells_how_far_it_has_come(engine: Engine, clock: VirtualClock) -> None:
    """After each batch: all that was removed so far, up to which revision, and where it will
    end."""
    await fill(engine, 2, 200)
    await clock.advance(1)
    run = engine.compact(0)
    told = [total async for total in run]
    assert [(total.upto, total.versions, total.done) for total in told] == [
        (100, 100, False),
        (300, 299, False),
        (400, 398, True),
    ]
    assert told[0].size < told[1].size < told[2].size
    assert run.total == told[-1]
    assert run.end == 400


async def test_it_ends_below_the_first_version_that_stays_for_its_age(
    engine: Engine, clock: VirtualClock
) -> None:
    """So that who shows how far it has come knows what is left."""
    await fill(engine, 1, 150)
    await clock.advance(10)
    await engine.do(Commit(Pause(await engine.get("s0"))))
    run = engine.compact(5)
    await anext(run)
    assert (run.end, run.total.done) == (150, False)
    assert (await run.finish()).upto == 150
    with pytest.raises(StopAsyncIteration):
        await anext(run)


async def test_an_empty_store_is_told_of_once(engine: Engine) -> None:
    assert [total async for total in engine.compact(0)] == [Compaction(0, done=True)]


async def test_it_does_not_run_after_what_is_committed_meanwhile(
    engine: Engine, driver: Observed, clock: VirtualClock
) -> None:
    """A time to come takes in what is committed while it runs: it ends where the head was when it
    began, however fast others are."""
    await fill(engine, 1, 250)
    run = engine.compact(datetime.fromtimestamp(clock.now() / 1000 + 60, UTC))
    async for _ in run:
        for _ in range(1_000):
            await engine.do(Commit(Pause(await engine.get("s0"))))
    assert run.end == 250
    assert len(driver.batches) == 2


# ---------------------------------------------------------------- room for others


async def test_batches_grow_while_they_are_quick(
    engine: Engine, driver: Observed, clock: VirtualClock
) -> None:
    """Up to a bound."""
    await fill(engine, 1, 4_000)
    await clock.advance(1)
    await engine.compact(0, dry_run=True).finish()
    limits = [limit for _, limit in driver.batches]
    assert limits[0] == FIRST_LIMIT
    assert limits == [min(MAX_LIMIT, FIRST_LIMIT * 2**n) for n in range(len(limits))]
    assert limits[-1] == MAX_LIMIT


async def test_batches_shrink_while_they_are_slow(
    engine: Engine, driver: Observed, clock: VirtualClock
) -> None:
    """Commits would wait for them. Down to a bound, so that it ends some time."""
    await fill(engine, 1, 300)
    await clock.advance(1)
    driver.takes_ms = 30
    async with clock.running():
        await engine.compact(0).finish()
    limits = [limit for _, limit in driver.batches]
    assert limits == [max(MIN_LIMIT, FIRST_LIMIT // 2**n) for n in range(len(limits))]
    assert limits[-1] == MIN_LIMIT
    assert count(engine) == 1


async def test_it_rests_as_long_as_a_batch_took(
    engine: Engine, driver: Observed, clock: VirtualClock
) -> None:
    """So that other processes, which poll for their turn, get it too."""
    await fill(engine, 1, 300)
    await clock.advance(1)
    driver.takes_ms = 15
    began = clock.now()
    async with clock.running():
        await engine.compact(0).finish()
    batches = len(driver.batches)
    assert batches == 3
    assert clock.now() - began == 15 * batches + 15 * (batches - 1)


async def test_it_does_not_rest_where_it_removed_nothing(
    engine: Engine, driver: Observed, clock: VirtualClock
) -> None:
    await fill(engine, 300, 1)
    await clock.advance(1)
    driver.takes_ms = 15
    began = clock.now()
    async with clock.running():
        await engine.compact(0).finish()
    assert clock.now() - began == 15 * len(driver.batches)


async def test_others_run_between_batches(engine: Engine, clock: VirtualClock) -> None:
    """Also with a driver that never waits for anything."""
    await fill(engine, 1, 1_000)
    await clock.advance(1)
    seen: list[int] = []

    async def look() -> None:
        while count(engine) > 1:
            seen.append(count(engine))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await engine.compact(0).finish()
    assert len(set(seen)) > 1, "it was seen on the way"


async def test_a_run_that_is_left_has_done_what_it_told_and_another_goes_on(
    engine: Engine, clock: VirtualClock
) -> None:
    await fill(engine, 1, 1_000)
    await clock.advance(1)
    async for total in engine.compact(0):
        assert total.versions == 100
        break
    assert count(engine) == 900
    assert (await engine.compact(0).finish()).versions == 899
    assert [s.rev async for s in engine.states(Query())] == [1_000]


async def test_an_error_ends_the_run_and_can_be_tried_again(
    engine: Engine, driver: Observed, clock: VirtualClock, monkeypatch: Any
) -> None:
    """What was done stays done; the same run goes on where it was."""
    await fill(engine, 1, 300)
    await clock.advance(1)
    run = engine.compact(0)
    await anext(run)
    with monkeypatch.context() as patch:

        async def busy(*_: Any, **__: Any) -> Compaction:
            raise StoreBusyError("store", "is busy")

        patch.setattr(type(driver), "compact", busy)
        with pytest.raises(StoreBusyError):
            await anext(run)
    assert (await run.finish()).versions == 299
