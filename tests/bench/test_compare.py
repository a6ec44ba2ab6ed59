"""What is said of two runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from flowstate.bench import (
    Better,
    Change,
    Run,
    Verdict,
    compare,
    differences,
    got_worse,
    summed_up,
)
from flowstate.bench.compare import MIN_ROUNDS, TOLERANCE, by_chance, judge
from flowstate.bench.stats import summarize

from . import made

STEADY = [100.0, 101.0, 102.0]
HALF = [50.0, 51.0, 52.0]
values = st.lists(st.floats(0.001, 1e6), min_size=MIN_ROUNDS, max_size=9)


def change(
    now: list[float],
    earlier: list[float],
    raw_now: list[float] | None = None,
    raw_earlier: list[float] | None = None,
    measure: str = "commits",
) -> Change:
    """What is said of one figure."""
    (found,) = compare(
        made.run(made.measurement({measure: now}, {measure: raw_now} if raw_now else None)),
        made.run(
            made.measurement({measure: earlier}, {measure: raw_earlier} if raw_earlier else None)
        ),
    )
    return found


def test_a_rate_that_halves_got_worse_and_one_that_doubles_got_better() -> None:
    assert Verdict.WORSE is change(HALF, STEADY).verdict
    assert Verdict.BETTER is change(STEADY, HALF).verdict


def test_a_delay_that_halves_got_better_and_one_that_doubles_got_worse() -> None:
    assert Verdict.BETTER is change(HALF, STEADY, measure="p50").verdict
    assert Verdict.WORSE is change(STEADY, HALF, measure="p50").verdict


def test_rounds_that_overlap_are_noise() -> None:
    assert Verdict.SAME is change([40.0, 50.0, 101.0], STEADY).verdict


def test_a_difference_within_the_tolerance_is_none_however_sure_it_is() -> None:
    assert Verdict.SAME is change([95.0, 95.0, 95.0], [100.0, 100.0, 100.0]).verdict
    assert Verdict.WORSE is change([85.0, 85.0, 85.0], [100.0, 100.0, 100.0]).verdict


def test_too_few_rounds_tell_nothing() -> None:
    assert Verdict.UNSURE is change(HALF[:2], STEADY[:2]).verdict


def test_what_the_raw_limit_lost_as_well_is_the_machine() -> None:
    assert Verdict.MACHINE is change(HALF, STEADY, raw_now=HALF, raw_earlier=STEADY).verdict
    assert Verdict.WORSE is change(HALF, STEADY, raw_now=STEADY, raw_earlier=STEADY).verdict


def test_what_the_raw_limit_won_as_well_is_the_machine() -> None:
    assert Verdict.MACHINE is change(STEADY, HALF, raw_now=STEADY, raw_earlier=HALF).verdict


def test_a_delay_without_a_raw_limit_is_seen_beside_that_of_its_rate() -> None:
    def run(delays: list[float], raw: list[float]) -> Run:
        return made.run(made.measurement({"commits": STEADY, "p50": delays}, {"commits": raw}))

    slow_machine = compare(run(STEADY, HALF), run(HALF, STEADY))
    assert [Verdict.MACHINE] == [c.verdict for c in slow_machine if c.measure is made.DELAY]
    slow_store = compare(run(STEADY, STEADY), run(HALF, STEADY))
    assert [Verdict.WORSE] == [c.verdict for c in slow_store if c.measure is made.DELAY]


def test_what_chance_alone_makes_worse_is_expected_by_the_orders_of_the_rounds() -> None:
    assert 1 / 20 == by_chance([change(HALF, STEADY)])
    assert 2 / 252 == by_chance([change([*HALF, 50.0, 51.0], [*STEADY, 100.0, 101.0])] * 2)
    assert 0 == by_chance([change(HALF[:2], STEADY[:2])])


def test_that_it_may_be_chance_is_told_where_that_is_likely() -> None:
    one, many = [change(HALF, STEADY)], [change(HALF, STEADY)] * 60
    assert "1 figure: 1 worse." == summed_up(one)
    assert "60 figures: 60 worse. With so few rounds, up to 3 may seem" in summed_up(many)
    assert "60 figures: 60 better." == summed_up([change(STEADY, HALF)] * 60)


@given(values, values, st.sampled_from(Better))
def test_what_is_worse_one_way_is_never_worse_the_other_way(
    a: list[float], b: list[float], better: Better
) -> None:
    one, other = summarize(a), summarize(b)
    there = judge(one, other, better, TOLERANCE)
    back = judge(other, one, better, TOLERANCE)
    assert not (there is back and there is not Verdict.SAME)


@given(values, st.sampled_from(Better))
def test_a_run_does_not_differ_from_itself(a: list[float], better: Better) -> None:
    assert Verdict.SAME is judge(summarize(a), summarize(a), better, 0)


@given(values, values)
def test_a_rate_is_worse_when_its_inverse_is_a_delay_that_is_worse(
    a: list[float], b: list[float]
) -> None:
    rate = judge(summarize(a), summarize(b), Better.HIGHER, 0)
    delay = judge(summarize([-one for one in a]), summarize([-one for one in b]), Better.LOWER, 0)
    assert rate is delay


def test_only_what_both_runs_have_is_compared() -> None:
    now = made.run(made.measurement({"commits": STEADY}, value=1))
    earlier = made.run(made.measurement({"commits": STEADY}, value=10))
    assert [] == compare(now, earlier)


def test_the_worst_is_told_first() -> None:
    now = made.run(
        made.measurement({"commits": [80.0] * 3}, value=1),
        made.measurement({"commits": [10.0] * 3}, value=10),
        made.measurement({"commits": [100.0] * 3}, value=100),
    )
    earlier = made.run(
        *(made.measurement({"commits": [100.0] * 3}, value=value) for value in (1, 10, 100))
    )
    assert [10, 1] == [one.value for one in got_worse(compare(now, earlier))]


def test_another_machine_is_told() -> None:
    now = made.run(made.measurement({"commits": STEADY}))
    other = replace(made.MACHINE, cpu="Another processor")
    assert [] == list(differences(now, now))
    (told,) = differences(now, replace(now, machine=other))
    assert "Another processor" in told


def test_another_setting_of_a_store_is_told() -> None:
    now = made.run(made.measurement({"commits": STEADY}))
    (store,) = now.stores
    earlier = replace(now, stores=(replace(store, facts={"synchronous": "normal"}),))
    assert ["sqlite, synchronous: normal then, None now"] == list(differences(now, earlier))
