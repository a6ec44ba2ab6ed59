"""Readers are bounded, also when nobody waits any more for what some of them read."""

from __future__ import annotations

import threading
from functools import partial

import anyio
import pytest
from attrs import define

from flowstate.drivers.pool import Pool

from ..helpers import until

pytestmark = pytest.mark.anyio

PATIENCE_S = 30


@define
class Reader:
    is_usable: bool = True

    def close(self) -> None:
        self.is_usable = False


async def test_whoever_is_cancelled_waits_for_no_read_and_its_reader_stays_in_use() -> None:
    """Until the thread has read."""
    made: list[Reader] = []
    begun: list[Reader] = []
    may_end = threading.Event()

    def make() -> Reader:
        made.append(Reader())
        return made[-1]

    def read(reader: Reader) -> int:
        begun.append(reader)
        assert may_end.wait(PATIENCE_S)
        return 5

    def has_begun(reads: int) -> bool:
        return len(begun) == reads

    pool = Pool(make, 2)
    with anyio.fail_after(PATIENCE_S):
        for number in (1, 2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.run, read)
                await until(partial(has_begun, number))
                tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.run, read)
            await anyio.wait_all_tasks_blocked()
            assert 2 == len(begun)
            may_end.set()
        assert 5 == await pool.run(read)
    assert 2 == len(made)
    assert [True, True] == [reader.is_usable for reader in made]


async def test_whoever_is_cancelled_before_a_thread_has_begun_leaves_its_turn() -> None:
    pool = Pool(Reader, 1)
    with anyio.fail_after(PATIENCE_S):
        for _ in range(3):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await pool.run(lambda reader: reader)
        assert await pool.run(lambda reader: reader.is_usable)
