"""A run as JSON, and figures as text."""

from __future__ import annotations

import json

import pytest

from flowstate.bench import BenchError, decode, encode
from flowstate.bench.results import SCHEMA
from flowstate.bench.stats import summarize
from flowstate.bench.text import number, ratio, spread

from . import made

RUN = made.run(
    made.measurement({"commits": [1.5, 2.5], "p50": [0.1, 0.2]}, {"commits": [3.0, 4.0]})
)


def test_what_is_written_is_what_is_read() -> None:
    assert RUN == decode(encode(RUN), "a file")


def test_the_figures_of_every_round_are_there_for_others() -> None:
    read = json.loads(encode(RUN))
    (measurement,) = read["measurements"]
    assert [1.5, 2.5] == [one["figures"]["commits"] for one in measurement["rounds"]]
    assert [3.0, 4.0] == [one["raw"]["commits"] for one in measurement["rounds"]]
    assert SCHEMA == read["schema"]


def test_a_run_of_another_schema_is_refused_by_name() -> None:
    text = encode(RUN).replace(b'"schema": 1', b'"schema": 2')
    with pytest.raises(BenchError, match=r"old\.json: is of schema 2"):
        decode(text, "old.json")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"schema": 1}', b'{"some": "thing"}'])
def test_what_is_no_run_is_refused_by_name(text: bytes) -> None:
    with pytest.raises(BenchError, match=r"^x\.json: is not a run"):
        decode(text, "x.json")


def test_a_share_of_the_raw_limit_is_of_the_same_round() -> None:
    (measurement,) = RUN.measurements
    assert [0.5, 0.625] == measurement.shares(made.RATE)
    assert measurement.share_of_raw(made.DELAY) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.0038649, "0.00386"),
        (3.14159, "3.14"),
        (31.4159, "31.4"),
        (999.7, "1,000"),
        (2_142.7, "2,140"),
        (223_301.4, "223,000"),
        (9.996, "10.0"),
    ],
)
def test_a_figure_has_three_digits_that_count(value: float, shown: str) -> None:
    assert shown == number(value)


def test_one_round_has_no_spread() -> None:
    assert ("", "±50%") == (spread(summarize([1])), spread(summarize([1, 2, 3])))


@pytest.mark.parametrize(
    ("share", "shown"), [(0.814, "81%"), (1.2, "120%"), (0.0046, "0.5%"), (0.0, "0%")]
)
def test_a_share_is_a_percentage(share: float, shown: str) -> None:
    assert shown == ratio(share)
