"""What a retention gives up, of a store and of one state's history."""

from __future__ import annotations

import pytest

from flowstate import Retention, Status
from flowstate.retention import Retained

BEFORE = 1_000
HISTORY = (2, 5, 7)
"""The revisions of a state, the last of which is current."""
HEAD = 9
"""The newest revision of the store: that of another state."""


def test_what_was_committed_before_is_old_to_the_millisecond() -> None:
    retention = Retention(BEFORE)
    assert [True, False, False] == [retention.is_old(at) for at in (999, 1_000, 1_001)]


@pytest.mark.parametrize("status", Status)
def test_a_state_goes_whole_only_if_it_was_asked_for_has_ended_and_is_old(status: Status) -> None:
    has_ended = status is Status.ENDED
    assert has_ended is Retention(BEFORE, ended=True).removes_state(status, 999)
    assert not Retention(BEFORE, ended=True).removes_state(status, 1_000)
    assert not Retention(BEFORE).removes_state(status, 999)


def test_keep_does_not_hold_a_state_that_goes_whole() -> None:
    assert Retention(BEFORE, keep=100, ended=True).removes_state(Status.ENDED, 999)


def retained(first_kept: int, *, whole_goes: bool = False) -> Retained:
    return Retained(HISTORY[0], HISTORY[-1], first_kept, whole_goes)


@pytest.mark.parametrize(
    ("first_kept", "removed"),
    [(7, [2, 5]), (5, [2]), (2, []), (0, [])],
    ids=["one is kept", "two are", "three are", "there are no more"],
)
def test_what_is_older_than_the_versions_that_are_kept_goes(
    first_kept: int, removed: list[int]
) -> None:
    of_state = retained(first_kept)
    assert removed == [rev for rev in HISTORY if of_state.may_remove(rev, HEAD)]
    assert removed == [rev for rev in HISTORY if of_state.removes(rev, HEAD, after=0)]


def test_of_a_state_that_goes_whole_nothing_is_kept() -> None:
    of_state = retained(5, whole_goes=True)
    assert list(HISTORY) == [rev for rev in HISTORY if of_state.may_remove(rev, HEAD)]
    assert list(HISTORY) == [rev for rev in HISTORY if of_state.removes(rev, HEAD, after=0)]


def test_the_newest_version_of_the_store_stays_also_of_a_state_that_goes_whole() -> None:
    of_state = retained(7, whole_goes=True)
    head = HISTORY[-1]
    assert [2, 5] == [rev for rev in HISTORY if of_state.may_remove(rev, head)]
    assert [2, 5] == [rev for rev in HISTORY if of_state.removes(rev, head, after=0)]


@pytest.mark.parametrize(
    ("after", "removed"), [(1, [2, 5, 7]), (2, [2, 5]), (6, [2, 5])], ids=lambda value: f"{value}"
)
def test_what_is_current_goes_only_in_a_run_that_began_below_all_of_its_state(
    after: int, removed: list[int]
) -> None:
    """Else an older version, which is below the run, would be current."""
    of_state = retained(7, whole_goes=True)
    assert removed == [rev for rev in HISTORY if of_state.removes(rev, HEAD, after)]
