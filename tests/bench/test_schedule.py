"""In which order things are measured, and how long that takes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from flowstate.bench import WORKLOADS, Effort, Step
from flowstate.bench.runner import Case, Estimate, schedule

stores = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)
names = st.lists(st.sampled_from(list(WORKLOADS)), min_size=1, unique=True)
efforts = st.builds(Effort, rounds=st.integers(1, 6), is_quick=st.booleans())


@given(names, stores, efforts)
def test_every_case_is_taken_once_a_round_on_every_store(
    chosen: list[str], on: list[str], effort: Effort
) -> None:
    workloads = [WORKLOADS[name] for name in chosen]
    counted = Counter(step.key for step in schedule(workloads, on, effort) if step.round)
    assert {
        (one.name, value, store): one.rounds(effort)
        for one in workloads
        for value in one.cases(effort)
        for store in on
    } == counted


@given(names, stores, efforts)
def test_rounds_follow_each_other_and_the_stores_of_a_case_too(
    chosen: list[str], on: list[str], effort: Effort
) -> None:
    steps = list(schedule([WORKLOADS[name] for name in chosen], on, effort))
    assert sorted(step.round for step in steps) == [step.round for step in steps]
    for start in range(0, len(steps), len(on)):
        turn = steps[start : start + len(on)]
        assert set(on) == {step.store for step in turn}
        assert 1 == len({(step.round, step.case) for step in turn})


def test_each_store_is_first_in_its_turn() -> None:
    steps = schedule([WORKLOADS["get"]], ["a", "b"], Effort(rounds=2))
    in_turn = [step.store for step in steps if step.round and step.case.value == 1]
    assert ["a", "b", "b", "a"] == in_turn


def test_what_was_measured_is_expected_to_take_as_long_again() -> None:
    estimate = Estimate(Effort(seconds=1.0))
    step = Step(1, Case(WORKLOADS["commit"], 1), "a")
    guessed = estimate.seconds(step)
    estimate.add(step, 17.0)
    assert guessed > 1.0
    assert 17.0 == estimate.seconds(Step(2, step.case, "a"))
    assert guessed == estimate.seconds(Step(2, step.case, "b"))
