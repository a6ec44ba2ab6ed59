"""The driver of the page on writing one, held up where LMDB would show it what is not yet for all
to see.

LMDB has two places for the roots of its newest transactions, which take turns, and a counter of
transactions in its lock file. Who begins to read goes by the counter first and to the place then;
in between, others may commit twice. Nobody can be held up just there on purpose, so the counter is
set back here instead: who begins to read then finds the same.
"""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from attrs import define

from flowstate import DataNotFoundError, Driver, Query, Retention, State, Transit
from flowstate.clock import MAX_INSTANT_MS
from flowstate.data import BYTES, DataRef, checksum
from flowstate.leases import Place
from flowstate.testing.conformance.base import plan, standing

pytestmark = pytest.mark.anyio

COMMITS = 20
"""Before the one that not all can see."""
NEWEST = 2 * COMMITS + 1
"""The revision of the one that not all can see: two states are in each commit."""
HELD_UP_S = 0.05
WORD = 8
"""Bytes of LMDB's counter."""

Look = Callable[[Any], Awaitable[object]]


@define
class Counter:
    """The number of the transaction that who begins to read goes by."""

    memory: mmap.mmap
    place: slice

    @classmethod
    def of(cls, lock_file: Path, number: int) -> Counter:
        """It is where *number* is."""
        with lock_file.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        words = [slice(start, start + WORD) for start in range(0, 32 * WORD, WORD)]
        (place,) = [word for word in words if memory[word] == number.to_bytes(WORD, sys.byteorder)]
        return cls(memory, place)

    def set(self, number: int) -> None:
        self.memory[self.place] = number.to_bytes(WORD, sys.byteorder)


async def load_newest(driver: Driver) -> bytes | None:
    content = f"{COMMITS}".encode()
    try:
        return await driver.load(DataRef(NEWEST, len(content), BYTES, checksum(content)))
    except DataNotFoundError:
        return None


async def look_of_the_poller(driver: Any) -> object:
    return sys.modules["lmdb_waiting"].Transactions(driver.env).look()


LOOKS: dict[str, Look] = {
    "get": lambda driver: driver.get("a"),
    "get a revision": lambda driver: driver.get("a", NEWEST),
    "find": lambda driver: driver.find(Query(id="a")),
    "read": lambda driver: driver.read(Query(), 0, 4 * COMMITS),
    "read down": lambda driver: driver.read(Query(), NEWEST + 2, 4, newest_first=True),
    "count": lambda driver: driver.count(Query(), "flow"),
    "head": lambda driver: driver.head(),
    "due": lambda driver: driver.due(MAX_INSTANT_MS, 1),
    "holdings": lambda driver: driver.holdings(),
    "place": lambda driver: driver.place("a"),
    "line": lambda driver: driver.line(),
    "load": load_newest,
    "compact": lambda driver: driver.compact(
        Retention(MAX_INSTANT_MS), 0, 4 * COMMITS, dry_run=True
    ),
    "poller": look_of_the_poller,
}


async def move(driver: Driver, state: State, turn: int) -> State:
    """Commit another version, with a payload and a lease of its own, and a state that is ready."""
    attached = state.attach("turn", f"{turn}".encode())
    place = standing(Place(None, "worker", "", turn), Place(turn))
    moved = plan(Transit(attached, "work"), Transit(State(f"{turn}"), f"{turn}"), place=place)
    state, _ = await driver.commit(moved)
    return state


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
async def test_a_look_that_is_held_up_shows_no_more_than_the_next_one(
    look: Look, lmdb_driver: ModuleType, tmp_path: Path
) -> None:
    """However it looks: a commit that was shown once and then no more was none."""
    path = tmp_path / "store"
    async with lmdb_driver.LMDBDriver(path) as driver:
        state = State("a")
        for turn in range(COMMITS):
            state = await move(driver, state, turn)
        before = await look(driver)
        await move(driver, state, COMMITS)
        newest = driver.env.info()["last_txnid"]
        counter = Counter.of(path / "lock.mdb", newest)

        counter.set(newest - 2)  # held up since before the last two
        let_go = threading.Timer(HELD_UP_S, counter.set, [newest - 1])  # the last is not through
        let_go.start()
        held_up = await look(driver)
        let_go.join()
        assert before == await look(driver) == held_up

        counter.set(newest)
        assert before != await look(driver)
