"""Ages and dates, as options take them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import click

from flowstate import SystemClock


class Age(click.ParamType[timedelta]):
    """A length of time: "90s", "5m", "1d12h"."""

    name = "age"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        text = str(value).strip()
        try:
            return _age(text)
        except (OverflowError, ValueError):
            self.fail(f"{text!r} is not an age (90s, 5m, 12h, 1d12h)", param, ctx)


class Before(click.ParamType[datetime]):
    """An age ("30d", "1d12h") or a date ("2026-01-31", "2026-01-31T12:00+01:00"), as an instant."""

    name = "age or date"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        text = str(value).strip()
        now = datetime.fromtimestamp(SystemClock().now() / 1000, UTC)
        try:
            before = now - _age(text) if _AGE.fullmatch(text) else _date(text)
        except OverflowError:
            self.fail(f"{text!r} is before time began", param, ctx)
        except ValueError:
            self.fail(
                f"{text!r} is neither an age (90m, 12h, 30d, 4w) nor a date (2026-01-31, "
                "2026-01-31T12:00, UTC unless it says otherwise)",
                param,
                ctx,
            )
        if before > now:
            self.fail(f"{text!r} is still to come; it is {now:%Y-%m-%d %H:%M} UTC", param, ctx)
        return max(before, _EPOCH)


def _age(text: str) -> timedelta:
    if not _AGE.fullmatch(text):
        raise ValueError(text)
    parts: list[tuple[str, str]] = re.findall(_PART, text)
    return timedelta(seconds=sum(_UNITS[unit] * float(number) for number, unit in parts))


def _date(text: str) -> datetime:
    date = datetime.fromisoformat(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


_UNITS: Mapping[str, int] = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART = r"(\d+(?:\.\d+)?)([wdhms])"
_AGE = re.compile(f"(?:{_PART})+")
_EPOCH = datetime.fromtimestamp(0, UTC)
