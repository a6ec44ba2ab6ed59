"""Plots of a run, as SVG: readable in print, in grey, and for the colour-blind.

A store is a colour and a marker; what a line is of is its dash: solid for a median or a p50,
dashed for a p99, dotted for a raw limit. The colours are those of Okabe and Ito
(https://jfly.uni-koeln.de/color/), in an order whose neighbours differ in grey too.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false
# matplotlib leaves some parameters untyped

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .compare import Change, Verdict
from .results import Measurement, Run, WorkloadFacts
from .stats import Summary, summarize
from .text import amount, short
from .values import Better, Measure

COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
MARKERS = "osD^vPX"
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo")
GREY = "#555555"
SIZE = (4.6, 3.3)
"""Of a panel, in inches."""
ROW = 0.22
"""The height of a row of a chart of rows, in inches."""
MAX_ROWS = 40
NARROW = 40.0
"""An axis whose ends differ by less has labels between the powers of ten."""
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8d8d8",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
}


@frozen
class Panel:
    """One plot. ``about`` says in words what can be seen there."""

    workload: str
    name: str
    about: str
    svg: str


def panels(run: Run, facts: WorkloadFacts) -> Iterator[Panel]:
    """The plots of a workload: one for each rate, and one for each kind of delay."""
    measurements = [measurement for measurement in run.of(facts.name) if measurement.rounds]
    for name, measures in _groups(facts.measures):
        drawn = [
            measurement for measurement in measurements if measurement.values(measures[0].name)
        ]
        if drawn:
            yield _panel(run, facts, name, measures, drawn)
    if facts.measures[0].unit == "ms":
        for value in sorted({measurement.value for measurement in measurements})[-1:]:
            yield _distribution(
                run,
                facts,
                [measurement for measurement in measurements if measurement.value == value],
            )


def _groups(measures: Sequence[Measure]) -> Iterator[tuple[str, list[Measure]]]:
    """Measures that share a plot: the p50 and the p99 of a kind of delay."""
    groups: dict[str, list[Measure]] = {}
    for measure in measures:
        kind = re.sub(r" ?p\d\d$", "", measure.name) if measure.unit == "ms" else measure.name
        groups.setdefault(f"{kind} {measure.unit}", []).append(measure)
    for group in groups.values():
        yield " and ".join(amount(measure.name, measure.unit) for measure in group), group


def _panel(
    run: Run,
    facts: WorkloadFacts,
    name: str,
    measures: Sequence[Measure],
    measurements: Sequence[Measurement],
) -> Panel:
    with _style(f"{facts.name} {name}"):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        if len({measurement.value for measurement in measurements}) > 1:
            _lines(axes, run, facts, measures, measurements)
        else:
            _bars(axes, run, measures, measurements)
        axes.set_title(f"{facts.name}: {name}")
        about = f"{name} of {facts.name} ({facts.about}), for each store"
        return Panel(facts.name, name, about, _svg(figure))


# ---------------------------------------------------------------- kinds of plots


def _lines(
    axes: Axes,
    run: Run,
    facts: WorkloadFacts,
    measures: Sequence[Measure],
    measurements: Sequence[Measurement],
) -> None:
    """Over the parameter; both axes are logarithmic."""
    has_raw = False
    for index, store in enumerate(run.stores):
        mine = [measurement for measurement in measurements if measurement.store == store.name]
        for measure, dash in zip(measures, ("-", "--"), strict=False):
            drawn = [
                (measurement.value, made)
                for measurement in mine
                if (made := measurement.summary(measure.name))
            ]
            _line(axes, drawn, index, dash)
        limits = [
            (measurement.value, made)
            for measurement in mine
            if (made := measurement.raw_summary(measures[0].name))
        ]
        if limits and measures[0].has_raw:
            has_raw = True
            xs, ys = [x for x, _ in limits], [made.median for _, made in limits]
            axes.plot(xs, ys, ":", color=COLOURS[index % len(COLOURS)], linewidth=1.4)
    axes.set_xscale(
        "symlog" if any(not measurement.value for measurement in measurements) else "log"
    )
    axes.set_yscale("log")
    axes.set_xlabel(facts.parameter)
    values = sorted({measurement.value for measurement in measurements})
    axes.set_xticks(values, [short(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    _logarithmic(axes)
    _legend(axes, run, measures, measurements, has_raw=has_raw)


def _line(axes: Axes, drawn: Sequence[tuple[int, Summary]], index: int, dash: str) -> None:
    if not drawn:
        return
    colour = COLOURS[index % len(COLOURS)]
    medians = [made.median for _, made in drawn]
    axes.errorbar(
        [value for value, _ in drawn],
        medians,
        yerr=[
            [made.median - made.low for _, made in drawn],
            [made.high - made.median for _, made in drawn],
        ],
        fmt=f"{MARKERS[index % len(MARKERS)]}{dash}",
        color=colour,
        markerfacecolor=colour if dash == "-" else "white",
        elinewidth=1,
        capsize=2,
    )


def _bars(
    axes: Axes, run: Run, measures: Sequence[Measure], measurements: Sequence[Measurement]
) -> None:
    """A bar for each store; of two measures, one above the other."""
    rows: list[tuple[str, int, Summary]] = []
    for index, store in enumerate(run.stores):
        for measurement in measurements:
            for measure in measures:
                made = measurement.summary(measure.name)
                if measurement.store == store.name and made:
                    kind = f", {measure.name}" if len(measures) > 1 else ""
                    rows.append((f"{store.name} ({store.durability}){kind}", index, made))
    for place, (_, index, made) in enumerate(rows):
        axes.barh(
            place,
            made.median,
            height=0.62,
            color=_light(COLOURS[index % len(COLOURS)]),
            edgecolor=COLOURS[index % len(COLOURS)],
            hatch=HATCHES[index % len(HATCHES)],
            xerr=[[made.median - made.low], [made.high - made.median]],
            error_kw={"elinewidth": 1, "capsize": 3},
        )
        axes.annotate(
            short(made.median),
            (made.high, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(rows)), [_wrapped(label) for label, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(made.high for _, _, made in rows) * 1.22)
    axes.xaxis.set_major_formatter(FuncFormatter(_number))
    axes.locator_params(axis="x", nbins=4)
    unit = measures[0].unit
    axes.set_xlabel(amount(measures[0].name, unit) if unit.startswith("/") else unit)
    axes.grid(visible=False, axis="y")


def _distribution(run: Run, facts: WorkloadFacts, measurements: Sequence[Measurement]) -> Panel:
    """The delays by the share that is below, each the median of the rounds."""
    name = "distribution"
    with _style(f"{facts.name} {name}"):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        value = measurements[0].value
        for index, store in enumerate(run.stores):
            for measurement in measurements:
                if measurement.store == store.name:
                    columns = zip(
                        *(taken.quantiles[""] for taken in measurement.rounds), strict=True
                    )
                    delays = [summarize(column).median for column in columns]
                    axes.plot(
                        delays[1:-1],  # the very first and last are of one commit each
                        [share * 100 for share in run.shares[1:-1]],
                        f"{MARKERS[index % len(MARKERS)]}-",
                        color=COLOURS[index % len(COLOURS)],
                        label=f"{store.name} ({store.durability})",
                    )
        axes.set_xscale("log")
        _logarithmic(axes, "x")
        axes.set_xlabel("ms")
        axes.set_ylabel("% of the delays are not longer")
        axes.set_ylim(0, 103)
        axes.set_title(f"{facts.name}: distribution ({facts.parameter}: {value:,})")
        axes.figure.legend(loc="outside lower center", ncols=2)
        about = f"which share of the delays of {facts.name} is not longer than so many ms"
        return Panel(facts.name, name, about, _svg(figure))


def change_panel(changes: Sequence[Change]) -> Panel:
    """How many times better or worse each figure is, with those that changed beyond the noise
    filled; the worst first."""
    rows = sorted(changes, key=lambda change: change.gain)
    if len(rows) > MAX_ROWS:
        rows = [*rows[: MAX_ROWS // 2], *rows[-MAX_ROWS // 2 :]]
    with _style("changes"):
        figure = Figure(figsize=(2 * SIZE[0], 1.1 + ROW * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, change in enumerate(rows):
            colour, marker = _VERDICTS[change.verdict]
            is_sure = change.verdict not in {Verdict.SAME, Verdict.UNSURE}
            low, high = _gain_range(change)
            axes.plot((low, high), (place, place), "-", color=colour, linewidth=1)
            axes.plot(
                change.gain,
                place,
                marker,
                color=colour,
                markerfacecolor=colour if is_sure else "white",
                markersize=6,
            )
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log")
        _logarithmic(axes, "x", times=True)
        axes.set_yticks(range(len(rows)), [_label(change) for change in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("times as good as in the earlier run (left of 1: worse)")
        figure.legend(
            handles=[
                Line2D([], [], linestyle="", marker=marker, color=colour, label=verdict.value)
                for verdict, (colour, marker) in _VERDICTS.items()
                if any(change.verdict is verdict for change in rows)
            ],
            loc="outside lower center",
            ncols=5,
        )
        return Panel("changes", "changes", "how each figure changed", _svg(figure))


_VERDICTS = {
    Verdict.WORSE: ("#D55E00", "v"),
    Verdict.MACHINE: ("#E69F00", "d"),
    Verdict.BETTER: ("#0072B2", "^"),
    Verdict.SAME: ("#777777", "o"),
    Verdict.UNSURE: ("#777777", "s"),
}


def _label(change: Change) -> str:
    measure = amount(change.measure.name, change.measure.unit)
    return f"{change.workload.name} {change.value:,}, {measure}, {change.store}"


def _gain_range(change: Change) -> tuple[float, float]:
    """The rounds of now, as multiples of the earlier median."""
    earlier, now = change.earlier.median, change.now
    if not earlier or not now.low:
        return change.gain, change.gain
    if change.measure.better is Better.HIGHER:
        return now.low / earlier, now.high / earlier
    return earlier / now.high, earlier / now.low


# ---------------------------------------------------------------- parts


def _logarithmic(axes: Axes, which: str = "y", *, times: bool = False) -> None:
    """Labels that people read, and enough of them."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    if high / low < NARROW:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axis.set_major_locator(LogLocator(numticks=8))
    axis.set_major_formatter(FuncFormatter(_times if times else _number))
    axis.set_minor_formatter(NullFormatter())


def _number(value: float, _position: int | None) -> str:
    return short(value)


def _times(value: float, _position: int | None) -> str:
    return f"{short(value)}×"


def _legend(
    axes: Axes,
    run: Run,
    measures: Sequence[Measure],
    measurements: Sequence[Measurement],
    *,
    has_raw: bool,
) -> None:
    shown = {measurement.store for measurement in measurements}
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            label=f"{store.name} ({store.durability})",
        )
        for index, store in enumerate(run.stores)
        if store.name in shown
    ]
    if len(measures) > 1:
        handles.append(Line2D([], [], linestyle="-", label="p50, solid", color=GREY))
        handles.append(Line2D([], [], linestyle="--", label="p99, dashed", color=GREY))
    if has_raw:
        of = " of p50" if len(measures) > 1 else ""
        handles.append(Line2D([], [], linestyle=":", label=f"raw limit{of}, dotted", color=GREY))
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=2)


def _wrapped(label: str) -> str:
    return label.replace(" (", "\n(")


def _light(colour: str) -> tuple[float, float, float]:
    """The colour, mostly white: a hatch is to be seen on it."""
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return 0.45 + red * 0.55, 0.45 + green * 0.55, 0.45 + blue * 0.55


def _style(name: str) -> AbstractContextManager[None]:
    """How the plot of that name looks; its elements get ids that no other plot has."""
    return mpl.rc_context(STYLE | {"svg.hashsalt": name})


def _svg(figure: Figure) -> str:
    """The figure as one element, to be put into a page or a file."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    # the others would be there several times in a page with several plots
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
