"""``FaultDriver`` loses answers exactly as it is told, and hides nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from flowstate import (
    Commit,
    Driver,
    Engine,
    Plan,
    RetryPolicy,
    RevMismatchError,
    State,
    StoreBusyError,
    Transit,
    UnknownOutcomeError,
)
from flowstate.committer import COMMIT_RETRIES
from flowstate.drivers.memory import MemoryDriver
from flowstate.testing import DriverConformance, Fault, FaultDriver, Store
from flowstate.transitions import plan

from .test_memory import MemoryStore

pytestmark = pytest.mark.anyio


class UnfaultyStore(MemoryStore):
    """A memory driver inside a FaultDriver without faults."""

    def driver(self) -> Driver:
        return FaultDriver(self.memory, [])


class TestFaultDriverWithoutFaults(DriverConformance):
    """Without faults it is the driver inside: it keeps the same laws."""

    def new_store(self, tmp_path: Path) -> Store:  # noqa: ARG002
        return UnfaultyStore()


def creation(id: str) -> Plan:
    """A plan that creates a state."""
    commit = Commit(Transit(State(id), "work"))
    return plan(commit, commit_id=f"create {id}", now=0, policy=RetryPolicy())


async def test_a_fault_before_stores_nothing() -> None:
    """The commit never reaches the store."""
    memory = MemoryDriver()
    with pytest.raises(UnknownOutcomeError):
        await FaultDriver(memory, [Fault.BEFORE]).commit(creation("a"))
    assert await memory.get("a") is None


async def test_a_fault_after_stores_the_commit() -> None:
    """The commit happens; only its answer is lost."""
    memory = MemoryDriver()
    with pytest.raises(UnknownOutcomeError):
        await FaultDriver(memory, [Fault.AFTER]).commit(creation("a"))
    assert await memory.get("a") is not None


async def test_a_refusal_can_be_lost_too() -> None:
    """Whether the store refused the commit is not told either."""
    memory = MemoryDriver()
    driver = FaultDriver(memory, [None, Fault.AFTER])
    await driver.commit(creation("a"))
    refused = plan(
        Commit(Transit(State("a"), "other")), commit_id="other", now=0, policy=RetryPolicy()
    )
    with pytest.raises(UnknownOutcomeError):
        await driver.commit(refused)
    with pytest.raises(RevMismatchError):
        await driver.commit(refused)


async def test_each_commit_meets_the_fault_of_its_turn() -> None:
    """The n-th commit meets the n-th fault; after the last there are none."""
    driver = FaultDriver(MemoryDriver(), [None, Fault.BEFORE])
    await driver.commit(creation("a"))
    with pytest.raises(UnknownOutcomeError, match="create b"):
        await driver.commit(creation("b"))
    for id in ("c", "d", "e"):
        await driver.commit(creation(id))
    assert driver.lost == 1
    assert await driver.head() == 4


async def test_an_engine_gives_up_in_the_end() -> None:
    """When no answer ever comes, the caller is told that the outcome is unknown."""
    memory = MemoryDriver()
    driver = FaultDriver(memory, itertools.repeat(Fault.AFTER))
    async with Engine(driver) as engine:
        with pytest.raises(UnknownOutcomeError):
            await engine.do(Commit(Transit(State("a"), "work")))
    assert await memory.head() == 1, "each try was the same commit"
    assert driver.lost == 1 + COMMIT_RETRIES


class FailsAfterwards(FaultDriver):
    """Loses the first answer, and fails some times before it answers again."""

    failures = 3

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        if self.lost and self.failures:
            self.failures -= 1
            raise StoreBusyError("store", "is locked; nothing was written")
        return await super().commit(plan)


async def test_an_unknown_outcome_stays_unknown_while_the_store_fails() -> None:
    """That a later try wrote nothing says nothing of the first one: the engine goes on asking."""
    memory = MemoryDriver()
    driver = FailsAfterwards(memory, [Fault.AFTER])
    async with Engine(driver) as engine:
        (state,) = await engine.do(Commit(Transit(State("a"), "work")))
    assert state == await memory.get("a")
    assert (0, 1) == (driver.failures, driver.lost)


async def test_an_engine_that_gives_up_says_that_the_outcome_is_unknown() -> None:
    """Not what went wrong last: it would say that nothing was written."""
    memory = MemoryDriver()
    driver = FailsAfterwards(memory, [Fault.AFTER])
    driver.failures = COMMIT_RETRIES
    async with Engine(driver) as engine:
        with pytest.raises(UnknownOutcomeError):
            await engine.do(Commit(Transit(State("a"), "work")))
    assert await memory.head() == 1


async def test_it_declares_the_durability_of_the_driver_inside() -> None:
    """Losing answers does not make a store more or less durable."""
    assert FaultDriver(MemoryDriver(), []).durability is MemoryDriver.durability
