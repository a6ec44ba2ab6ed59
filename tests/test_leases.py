"""Leases: how long they are, until when, and what an engine has taken and does not run."""

from __future__ import annotations

import pytest

from flowstate import Commit, Engine, RetryPolicy, State, Transit
from flowstate.committer import Committer
from flowstate.drivers.memory import MemoryDriver
from flowstate.executions import Execution, Keeper
from flowstate.leases import Place, lease_ms, renewal_ms
from flowstate.transitions import plan

from .helpers import NOW, FixedClock

POLICY = RetryPolicy()

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------- how long


def test_a_lease_is_exactly_as_many_milliseconds_as_were_asked_for() -> None:
    """Every length from 1.000 to 99.999 s. One of 1.001 s was 1,000 ms once."""
    lengths = range(1_000, 100_000)
    assert list(lengths) == [lease_ms(RetryPolicy(lease=length / 1_000)) for length in lengths]


def test_what_nobody_is_to_retry_has_no_lease() -> None:
    assert 0 == lease_ms(RetryPolicy(lease=30, enabled=False))


@pytest.mark.parametrize("length", [1_000, 1_001, 1_003, 16_385, 30_000, 99_999])
async def test_a_commit_and_a_renewal_lease_for_the_same_time(length: int) -> None:
    """What a plan says, and what the store has after a third of it is gone."""
    policy = RetryPolicy(lease=length / 1_000)
    clock = FixedClock(NOW)
    async with MemoryDriver(clock=clock) as driver:
        committer = Committer(driver, clock, policy, 1 << 20, 1 << 20, owner="me")
        committer.is_open = True
        planned = committer.plan(Commit(Transit(State("a"), "work")), committer.taken)
        (committed,) = await committer.store(planned)
        place = await driver.place("a")
        assert Place(None, "me", "", NOW + length) == place
        clock.ms += length // 3
        keeper = Keeper(driver, "me", clock, policy)
        keeper.begin(Execution(committed, committed, ""))
        await keeper.renew()
        place = await driver.place("a")
    assert Place(None, "me", "", clock.ms + length) == place


def test_a_lease_is_renewed_once_a_third_of_it_is_gone() -> None:
    assert [333, 10_000] == [renewal_ms(length) for length in (1_000, 30_000)]


def test_what_is_never_retried_is_taken_without_end() -> None:
    own = State("a", retry=RetryPolicy(enabled=False))
    (write,) = plan(Commit(Transit(own, "work")), commit_id="c", now=NOW, policy=POLICY).writes
    assert (0, Place(NOW)) == (write.lease, write.place)
    committer = Committer(MemoryDriver(), FixedClock(NOW), POLICY, 1, 1, owner="me")
    assert Place(None, "me", "", None) == committer.taken(own, NOW, write.lease)


async def test_what_is_taken_and_not_run_is_released_when_it_was_seen_twice() -> None:
    """The answer to a claim was lost; or it may still be on its way."""
    clock = FixedClock(NOW)
    policy = RetryPolicy(lease=1)
    async with MemoryDriver(clock=clock) as driver, Engine(driver, clock=clock) as other:
        run, lost = await other.do(
            Commit(Transit(State("run"), "work"), Transit(State("lost"), "work"))
        )
        await driver.take([("run", run.rev), ("lost", lost.rev)], "me", "claim", NOW)
        keeper = Keeper(driver, "me", clock, policy)
        keeper.begin(Execution(run, run, "claim"))
        stands: list[Place | None] = []
        for _ in range(2):
            clock.ms += 1_000
            await keeper.renew()
            stands.append(await driver.place("lost"))
        first, second = stands
        assert first is not None
        assert first.is_held("me", "claim")
        assert Place(clock.ms) == second
        kept = await driver.place("run")
    assert kept is not None
    assert kept.is_held("me", "claim")
