"""Group commit: what is handed in together shares a transaction."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import anyio
import pytest
from attrs import define, field

from flowstate import State, StoreBusyError, StoreError
from flowstate.drivers.group_commit import GroupCommitter, Take, Taken
from flowstate.drivers.plans import Outcome
from flowstate.plan import Plan, Write

pytestmark = pytest.mark.anyio


@define(eq=False)
class Store:
    """Notes the groups that it is given."""

    groups: list[list[str]] = field(factory=list[list[str]])
    may_write: threading.Event = field(factory=threading.Event)
    error: Exception | None = None

    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        self.may_write.wait()
        self.groups.append([plan.commit_id for plan in plans])
        return [tuple(write.state for write in plan.writes) for plan in plans]

    def take(self, takes: Sequence[Take]) -> Sequence[Taken]:
        self.groups.append([take.claim for take in takes])
        if self.error is not None:
            raise self.error
        return [()] * len(takes)


def plan(id: str) -> Plan:
    return Plan(id, (Write(State(id)),))


def take(claim: str) -> Take:
    return Take([("s", 1)], "me", claim, 0)


async def test_what_comes_one_after_the_other_is_done_together() -> None:
    """Plans with plans and takes with takes, in the order in which they came; a call alone."""
    store = Store()
    committer = GroupCommitter(store.write, store.take, lambda error: error, "writer")
    committer.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(committer.commit, plan("first"))
        await anyio.wait_all_tasks_blocked()  # it is in the thread, and the others gather
        for claim in "ab":
            tasks.start_soon(committer.take, take(claim))
            await anyio.wait_all_tasks_blocked()
        for id in "xy":
            tasks.start_soon(committer.commit, plan(id))
            await anyio.wait_all_tasks_blocked()
        tasks.start_soon(committer.run, lambda: store.groups.append(["call"]))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(committer.take, take("c"))
        await anyio.wait_all_tasks_blocked()
        store.may_write.set()
    await committer.close()
    assert store.groups == [["first"], ["a", "b"], ["x", "y"], ["call"], ["c"]]


async def test_what_taking_raises_is_the_outcome_of_all_that_were_taken_together() -> None:
    store = Store(error=StoreError("here", "is gone"))
    committer = GroupCommitter(store.write, store.take, lambda error: error, "writer")
    committer.open()
    failed: list[str] = []

    async def fails(claim: str) -> None:
        with pytest.raises(StoreError):
            await committer.take(take(claim))
        failed.append(claim)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fails, "a")
        tasks.start_soon(fails, "b")
    await committer.close()
    assert sorted(failed) == ["a", "b"]
    assert [["a", "b"]] == [sorted(group) for group in store.groups]


async def test_closing_waits_for_whoever_holds_the_store_only_once() -> None:
    """What is left would wait for as long, one after the other: it is refused with the same."""
    store = Store(error=StoreBusyError("here", "is locked"))
    committer = GroupCommitter(store.write, store.take, lambda error: error, "writer")
    committer.open()
    refused: list[str] = []

    async def is_refused(id: str) -> None:
        with pytest.raises(StoreBusyError):
            await committer.take(take(id))
        refused.append(id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(committer.commit, plan("first"))
        await anyio.wait_all_tasks_blocked()  # it is in the thread
        for id in "abc":
            tasks.start_soon(is_refused, id)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(refused_call, committer)
            await anyio.wait_all_tasks_blocked()
        tasks.start_soon(committer.close)
        await anyio.wait_all_tasks_blocked()
        store.may_write.set()
    assert sorted(refused) == ["a", "b", "c"]
    assert store.groups == [["first"], ["a"]]


async def refused_call(committer: GroupCommitter) -> None:
    with pytest.raises(StoreBusyError):
        await committer.run(lambda: pytest.fail("it was called"))
