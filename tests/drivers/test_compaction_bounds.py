"""Batches of compaction are bounded by what they look at, in every durable driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flowstate import Commit, Compaction, Driver, Engine, Pause, Retention, State, connect
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.compaction import MAX_BATCH_BYTES, MAX_NEWER

from ..postgres import Database

pytestmark = pytest.mark.anyio

ALL = Retention(MAX_INSTANT_MS)


@pytest.fixture
def anyio_backend() -> str:
    """The conformance suite runs on both."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/orders.db"
    postgres: Database = request.getfixturevalue("postgres")
    return postgres.new_store()


async def write(driver: Driver, versions: int, change: Callable[[State, int], State]) -> None:
    """Versions of one state, each another."""
    state = State("a")
    async with Engine(driver, max_state_size=2 * LARGE) as engine:
        for n in range(versions):
            (state,) = await engine.do(Commit(Pause(change(state, n))))


LARGE = MAX_BATCH_BYTES // 2 + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda state, n: state.attach("blob", bytes(LARGE - 1) + bytes([n])),
        lambda state, n: state.with_annotations(text="x" * LARGE, n=f"{n}"),
    ],
    ids=["payloads", "states"],
)
async def test_a_batch_is_bounded_in_bytes_too(
    url: str, change: Callable[[State, int], State]
) -> None:
    """However few versions are large, a batch ends once it has looked at so many bytes."""
    counted: list[Compaction] = []
    async with connect(url) as driver:
        await write(driver, 6, change)
        while not (counted and counted[-1].done):
            after = counted[-1].upto if counted else 0
            counted.append(await driver.compact(ALL, after, 1_000))
    assert [2, 2, 1] == [batch.versions for batch in counted]
    assert sum(batch.size for batch in counted) > 5 * LARGE


async def test_a_payload_that_many_carry_counts_once(url: str) -> None:
    """A batch is bounded by what it may have to remove."""
    async with connect(url) as driver:
        await write(driver, 6, lambda state, n: state if n else state.attach("b", bytes(LARGE)))
        batch = await driver.compact(ALL, 0, 1_000)
    assert (5, 0, True) == (batch.versions, batch.payloads, batch.done)


async def test_a_large_keep_makes_batches_smaller(url: str) -> None:
    """To find the oldest of a thousand versions to keep takes a thousand steps: a batch takes a
    bounded number of them."""
    async with connect(url) as driver:
        await write(driver, 8, lambda state, _: state)
        for upto in (5, 2):
            retention = Retention(MAX_INSTANT_MS, MAX_NEWER // upto)
            assert upto == (await driver.compact(retention, 0, 1_000, dry_run=True)).upto
        retention = Retention(MAX_INSTANT_MS, 2 * MAX_NEWER)
        assert 1 == (await driver.compact(retention, 0, 1_000, dry_run=True)).upto
