"""Durations are seconds to the millisecond; instants are whole milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from flowstate import InvalidValueError, SystemClock
from flowstate.clock import (
    MAX_DURATION_S,
    MAX_INSTANT_MS,
    instant,
    milliseconds,
    seconds,
)

from .helpers import to_datetime


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, 0),
        (1, 1.0),
        (0.0004, 0.0),
        (1.2346, 1.235),
        (timedelta(milliseconds=1500), 1.5),
        (timedelta(days=1), 86_400.0),
        (MAX_DURATION_S, MAX_DURATION_S),
    ],
)
def test_a_duration_is_seconds_rounded_to_milliseconds(
    given: float | timedelta, expected: float
) -> None:
    assert expected == seconds("wait", given)


@pytest.mark.parametrize(
    "given",
    [-0.001, MAX_DURATION_S + 1, float("nan"), float("inf"), True, "1", None, timedelta(-1)],
)
def test_what_is_no_duration_is_refused(given: object) -> None:
    with pytest.raises(InvalidValueError, match=r"^wait: takes "):
        seconds("wait", given)  # type: ignore[arg-type]


@given(some.integers(0, MAX_DURATION_S * 1000))
def test_milliseconds_give_back_what_seconds_rounded(ms: int) -> None:
    assert ms == milliseconds(seconds("wait", ms / 1000))


@given(some.integers(0, MAX_INSTANT_MS))
def test_an_instant_and_its_datetime_are_the_same(ms: int) -> None:
    assert ms == instant("at", to_datetime(ms))
    assert ms == instant("at", ms)


def test_the_epoch_is_1970_in_utc() -> None:
    assert instant("at", datetime(1970, 1, 1, tzinfo=UTC)) == 0


def test_a_naive_datetime_is_refused_not_guessed_at() -> None:
    with pytest.raises(InvalidValueError, match="2030-01-01T00:00:00 has no time zone; give an"):
        instant("at", datetime(2030, 1, 1))  # noqa: DTZ001  (that is the point)


@pytest.mark.parametrize(
    "given", [-1, MAX_INSTANT_MS + 1, 1.5, True, "now", datetime(1960, 1, 1, tzinfo=UTC)]
)
def test_what_is_no_instant_is_refused(given: object) -> None:
    with pytest.raises(InvalidValueError, match=r"^at: takes "):
        instant("at", given)  # type: ignore[arg-type]


def test_the_longest_duration_from_now_is_still_an_instant() -> None:
    assert SystemClock().now() + milliseconds(MAX_DURATION_S) < MAX_INSTANT_MS


def test_the_system_clock_tells_milliseconds_since_the_epoch() -> None:
    before = datetime.now(UTC)
    now = to_datetime(SystemClock().now())
    after = datetime.now(UTC)
    assert before - timedelta(milliseconds=1) <= now <= after
