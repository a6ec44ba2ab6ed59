"""The only place that asks this machine what time it is, and the one meaning of durations and
instants.

Instants are whole milliseconds since 1970-01-01 UTC. Durations are seconds with millisecond
resolution. Both are what people give (a number of seconds or a ``timedelta``; an aware
``datetime``) made exact once, where a value is made.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from time import time_ns
from typing import Protocol

import anyio

from .errors import InvalidValueError, shown


class Clock(Protocol):
    """What tells the time. Injected, so that tests can move it."""

    def now(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        """Return at that instant (ms), or as soon as the event is set. May return early."""
        ...


class SystemClock:
    """The clock of this machine."""

    __slots__ = ()

    def now(self) -> int:
        return time_ns() // 1_000_000

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        # the day is the longest that is slept at a time: some timers take no more, and the clock
        # of a machine may be set
        delay = min(max(0, instant - self.now()) / 1000, 86_400)
        with anyio.move_on_after(delay):
            await (event.wait() if event is not None else anyio.sleep_forever())


async def pause(clock: Clock, wait_ms: int) -> None:
    """Wait for so long by a clock that may be wrong, or be set right meanwhile: less if it goes
    forward then, and at most once more if it goes back."""
    end = clock.now() + wait_ms
    while (left := end - clock.now()) > 0:
        end -= max(0, left - wait_ms)
        await clock.wait_until(end)


def seconds(field: str, duration: float | timedelta) -> float:
    """A duration in seconds, rounded to whole milliseconds; it may not be negative."""
    exact = duration if type(duration) is float else _float(field, duration)
    if not 0 <= exact <= MAX_DURATION_S:
        raise InvalidValueError(
            field, f"takes 0 to {MAX_DURATION_S:,} seconds, not {shown(duration)}"
        )
    # rounding takes long, and most need none; 0.0 makes a plain zero of a negative one
    return (exact if exact.is_integer() else round(exact, 3)) + 0.0


def _float(field: str, duration: float | timedelta) -> float:
    """Seconds as a plain number, whatever it is a subclass of."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    # bool is an int to Python, never a duration to a person
    if isinstance(duration, bool) or not isinstance(duration, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidValueError(field, f"takes seconds or a timedelta, not {shown(duration)}")
    try:
        return float(duration)
    except OverflowError:
        return math.inf


def milliseconds(duration_s: float) -> int:
    """A duration in whole milliseconds."""
    return round(duration_s * 1000)


def instant(field: str, at: datetime | int) -> int:
    """An instant in milliseconds since the epoch. A naive datetime is refused, not guessed at."""
    if isinstance(at, datetime):
        if at.tzinfo is None or at.utcoffset() is None:
            raise InvalidValueError(
                field, f"{at.isoformat()} has no time zone; give an aware datetime, e.g. in UTC"
            )
        at = round(at.timestamp() * 1000)
    if isinstance(at, bool) or not isinstance(at, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidValueError(field, f"takes an aware datetime, not {shown(at)}")
    if not 0 <= at <= MAX_INSTANT_MS:
        raise InvalidValueError(
            field, f"takes milliseconds since the epoch up to {MAX_INSTANT_MS:,}, not {shown(at)}"
        )
    return int.__int__(at)  # a plain number, whatever it is a subclass of


MAX_DURATION_S = 1_000 * 366 * 24 * 3600  # a thousand years; keeps every sum a valid instant
MAX_INSTANT_MS = 253_402_300_799_999  # the end of the year 9999, as far as datetime goes
