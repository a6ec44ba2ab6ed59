"""The words of leases: how long they are, until when, and what a due time tells of them."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from flowstate import Commit, Due, DuePage, RetryPolicy, State, Transit
from flowstate.clock import MAX_INSTANT_MS
from flowstate.leases import Execution, LeaseKeeper, instant_of, lease_ms, released_at, renewal_ms
from flowstate.transitions import plan

from .helpers import NOW, FixedClock

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
    """What a plan says, and what the keeper asks the store for when a third of it is gone."""
    policy = RetryPolicy(lease=length / 1_000)
    commit = Commit(Transit(State("a"), "work"))
    (write,) = plan(commit, commit_id="c", now=NOW, policy=policy).writes
    (committed,) = plan(commit, commit_id="c", now=NOW, policy=policy).stamp(1, NOW)
    renewed: list[int] = []

    async def renew(leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        renewed.append(until)
        return frozenset()

    clock = FixedClock(NOW + length // 3)
    keeper = LeaseKeeper(renew, clock, policy)
    keeper.begin(Execution(committed, committed, policy))
    await keeper.renew()
    assert NOW + length == write.due
    assert [clock.ms + length] == renewed


def test_a_lease_is_renewed_once_a_third_of_it_is_gone() -> None:
    assert [333, 10_000] == [renewal_ms(length) for length in (1_000, 30_000)]


# ---------------------------------------------------------------- until when


@pytest.mark.parametrize("now", [0, NOW, MAX_INSTANT_MS])
def test_a_lease_that_is_released_is_due_before_every_instant_and_tells_when_that_was(
    now: int,
) -> None:
    assert released_at(now) < 0
    assert now == instant_of(released_at(now))


@pytest.mark.parametrize("at", [0, NOW, MAX_INSTANT_MS])
def test_a_due_time_that_was_not_released_is_its_own_instant(at: int) -> None:
    assert at == instant_of(at)


def test_what_is_due_tells_since_when_and_whether_it_was_released() -> None:
    ran_out, released = Due(State("a"), NOW), Due(State("b"), released_at(NOW))
    assert (NOW, False) == (ran_out.at, ran_out.is_released)
    assert (NOW, True) == (released.at, released.is_released)


@pytest.mark.parametrize(
    ("following", "expected"), [(None, None), (NOW, NOW), (0, 0), (released_at(NOW), NOW)]
)
def test_the_next_due_time_of_a_page_stands_for_an_instant(
    following: int | None, expected: int | None
) -> None:
    assert expected == DuePage((), following).next_at
