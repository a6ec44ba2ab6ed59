"""Medians, quantiles and spread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstate.bench.stats import SHARES, quantile, quantiles, summarize
from flowstate.bench.values import Sample

values = st.lists(st.floats(0.001, 1e9), min_size=1, max_size=200)
shares = st.floats(0, 1)


@given(values, shares)
def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed(
    some: list[float], share: float
) -> None:
    ordered = sorted(some)
    found = quantile(ordered, share)
    assert found in some
    assert sum(one <= found for one in ordered) >= share * len(ordered) - 1e-9
    below = [one for one in ordered if one < found]
    assert not below or len(below) < share * len(ordered)


@given(values)
def test_quantiles_ascend_from_the_least_to_the_greatest(some: list[float]) -> None:
    found = quantiles(some)
    assert len(SHARES) == len(found)
    assert sorted(found) == list(found)
    assert (min(some), max(some)) == (found[0], found[-1])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_of_a_hundred_values_a_quantile_is_the_one_at_that_place(
    share: float, expected: float
) -> None:
    assert expected == quantile(list(range(1, 101)), share)


@given(values)
def test_the_median_is_between_the_lowest_and_the_highest(some: list[float]) -> None:
    found = summarize(some)
    assert found.low <= found.median <= found.high
    assert len(some) == found.rounds


def test_the_spread_is_how_far_the_furthest_round_is_from_the_median() -> None:
    assert pytest.approx(0.25) == summarize([90, 100, 125]).spread
    assert pytest.approx(0.25) == summarize([75, 100, 110]).spread
    assert 0 == summarize([100]).spread
    assert 0 == summarize([0, 0]).spread


@given(values, st.floats(0.01, 100))
def test_the_spread_does_not_depend_on_the_unit(some: list[float], factor: float) -> None:
    scaled = summarize([one * factor for one in some])
    assert pytest.approx(summarize(some).spread, rel=1e-6, abs=1e-9) == scaled.spread


def test_delays_are_told_in_milliseconds() -> None:
    sample = Sample({"commits": 7.0}, {"": [0.001, 0.002, 0.003], "load": [0.5]})
    assert {
        "commits": 7.0,
        "p50": 2.0,
        "p99": 3.0,
        "load p50": 500.0,
        "load p99": 500.0,
    } == sample.all_figures()
    assert {"", "load"} == set(sample.distributions())
    assert pytest.approx((1.0, 3.0)) == (
        sample.distributions()[""][0],
        sample.distributions()[""][-1],
    )


def test_a_delay_that_nobody_had_has_no_figure() -> None:
    sample = Sample({"commits": 7.0}, {"": []})
    assert ({"commits": 7.0}, {}) == (sample.all_figures(), sample.distributions())
