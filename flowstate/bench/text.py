"""Figures as people read them. Pure."""

from __future__ import annotations

import math

from .stats import Summary

MINUTE_S = 60
DIGITS = 3
"""That are shown of a figure; none has more that mean anything."""


def number(value: float) -> str:
    """Three digits that count, thousands apart: 213,000, 3.15, 0.00386."""
    rounded = float(f"{value:.{DIGITS}g}")
    if not rounded:
        return "0"
    decimals = DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, decimals)}f}"


def amount(name: str, unit: str) -> str:
    """A measure with its unit: "commits/s", "p50 ms"."""
    return f"{name}{unit}" if unit.startswith("/") else f"{name} {unit}"


def spread(summary: Summary) -> str:
    """How far the rounds are from their median; nothing if there is only one."""
    return f"±{_percent(summary.spread)}" if summary.rounds > 1 else ""


def ratio(share: float) -> str:
    """A share as a percentage."""
    return _percent(share)


def _percent(share: float) -> str:
    percent = share * 100
    return f"{percent:.0f}%" if percent >= 1 or not percent else f"{percent:.1g}%"


def span(seconds: float) -> str:
    """How long something takes: 3 s, 8 min."""
    return f"{seconds:.0f} s" if seconds < MINUTE_S else f"{seconds / MINUTE_S:.0f} min"


def short(value: float) -> str:
    """A figure for an axis: 0.01, 5, 300, 20k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
