"""Runs of compaction, for the laws of what they remove and of what they leave."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from ...clock import MAX_INSTANT_MS
from ...commands import Command, End, Transit
from ...data import DataRef
from ...driver import Driver
from ...query import Query
from ...retention import Compaction, Retention
from ...state import State, Status
from ..store import Store
from .base import put

EVERYTHING = Retention(MAX_INSTANT_MS)
"""Removes all that is superseded, however young."""
WITH_ENDED = Retention(MAX_INSTANT_MS, ended=True)
"""Removes all that is superseded, and ended states whole."""


def stored(store: Store) -> list[tuple[int, str]]:
    """(revision, id) of every version that is stored."""
    return [(version.rev, version.id) for version in store.raw_versions()]


def ref(state: State, name: str) -> DataRef:
    """The reference to a payload of a stored state."""
    found = state.data[name]
    assert isinstance(found, DataRef)
    return found


async def batches(
    driver: Driver, retention: Retention, limit: int, *, after: int = 0, dry_run: bool = False
) -> AsyncIterator[Compaction]:
    """Compact to the end, and give each batch."""
    while True:
        batch = await driver.compact(retention, after, limit, dry_run=dry_run)
        yield batch
        if batch.done:
            return
        assert batch.upto > after, "a batch must look further than where it began"
        after = batch.upto


async def compact(
    driver: Driver, retention: Retention, *, after: int = 0, limit: int = 1_000, until: int = 0
) -> Compaction:
    """Compact to the end, or up to a revision, and give the sum of all batches."""
    total = Compaction(after)
    if until:
        batch = Compaction(after)
        while batch.upto < until and not batch.done:
            batch = await driver.compact(retention, batch.upto, 1)
            total = _sum(total, batch)
        return total
    async for batch in batches(driver, retention, limit, after=after):
        total = _sum(total, batch)
    return total


def rev_of(state: State) -> int:
    return state.rev


def _sum(total: Compaction, batch: Compaction) -> Compaction:
    return Compaction(
        batch.upto,
        total.versions + batch.versions,
        total.states + batch.states,
        total.payloads + batch.payloads,
        total.size + batch.size,
        batch.done,
    )


async def highest_removed(driver: Driver) -> int:
    """The highest revision that was ever removed."""
    return (await driver.read(Query(), 0, 1)).compacted


def left_after(log: list[State], upto: int) -> list[State]:
    """What is left of a log once all that may be removed is removed, up to a revision."""
    current = {state.id: state for state in log}
    over = {id for id, state in current.items() if state.transition.status is Status.ENDED}
    return [
        state
        for state in log
        if state.rev > upto
        or state is log[-1]
        or (current[state.id] is state and state.id not in over)
    ]


async def write_shared_payloads(driver: Driver, prefix: str = "") -> None:
    """Commit states that bring payloads, carry them on, share them and drop them; some end."""
    states = [
        State(f"{prefix}{n}").attach("own", b"%d" % n).attach("common", b"all") for n in range(6)
    ]
    states = list(await put(driver, *(Transit(state, "x") for state in states)))
    for turn in range(5):
        for n, state in enumerate(states):
            if state.transition.status is Status.ENDED:
                continue
            moved = state
            if turn == n % 3:
                moved = moved.attach("taken", states[(n + 1) % 6].data["own"])
            if turn == 2:
                moved = moved.attach("own", b"new %d" % n)
            if turn == 3 and n % 2:
                moved = State(state.id, rev=state.rev).stack("before", state)
            command: Command[State] = End(moved) if turn == 4 and n < 3 else Transit(moved, "x")
            (states[n],) = await put(driver, command)


def compactor(store: Store, limit: int) -> list[str]:
    """The command that starts a process which compacts the store, and prints a line a batch."""
    return [sys.executable, "-m", "flowstate.testing.compactor", store.url, str(limit)]
