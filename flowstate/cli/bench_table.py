"""A run of the harness as tables: one for each workload, a row for each case and store."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from flowstate.bench import (
    Change,
    Measure,
    Measurement,
    Run,
    Summary,
    Verdict,
    WorkloadFacts,
    differences,
    got_worse,
    summed_up,
)
from flowstate.bench.text import amount, number, ratio, span, spread

from . import output

NOTHING = "–"


def print_run(console: Console, run: Run) -> None:
    _print_about(console, run)
    for facts in run.workloads:
        measurements = [found for found in run.of(facts.name) if found.rounds]
        if measurements:
            console.print(f"{facts.name}: {facts.about}", style="bold")
            if facts.raw and _has_raw(facts, measurements):
                console.print(f"raw limit: {facts.raw}", style="dim")
            _print_table(console, run, facts, measurements)
    _print_missing(console, run)
    rounds = run.effort.rounds
    if run.is_interrupted:
        console.print("Interrupted: this is what there is.", style="yellow")
    console.print(
        f"Medians of up to {rounds} round{'' if rounds == 1 else 's'}, ± how far the furthest is "
        f"from the median. {span(run.took_s)} in all.",
        style="dim",
    )


# ---------------------------------------------------------------- parts


def _print_about(console: Console, run: Run) -> None:
    machine = run.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    console.print(f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB, "
                  f"load {machine.load:g} before")  # fmt: skip
    console.print(f"{machine.system}, {machine.python}, {versions}")
    console.print()
    has_raw = any(facts.raw for facts in run.workloads)
    for store in run.stores:
        facts = ", ".join(f"{name} {value}" for name, value in store.facts.items())
        console.print(f"{store.name} ({store.durability})", style="bold", end="")
        console.print(f": {output.plain(store.url)}{f', {facts}' if facts else ''}")
        if has_raw:
            console.print(f"  raw limit: {store.raw or 'none is known'}", style="dim")
        for note in store.notes:
            console.print(f"  note: {note}", style="yellow")
    console.print()


def _print_missing(console: Console, run: Run) -> None:
    for measurement in run.measurements:
        if not measurement.missing:
            continue
        what = f"{measurement.workload} {measurement.value:,} on {measurement.store}"
        line = output.plain(f"not measured: {what}: {measurement.missing}")
        console.print(line, style="red" if measurement.has_failed else "dim")


def _print_table(
    console: Console, run: Run, facts: WorkloadFacts, measurements: Sequence[Measurement]
) -> None:
    """Print each row on one line if there is room, else with the spread below each figure."""
    wide = _table(run, facts, measurements, " ")
    room = console.options.update(max_width=output.UNBOUNDED)
    fits = console.measure(wide, options=room).maximum <= console.width
    console.print(wide if fits else _table(run, facts, measurements, "\n"))


def _table(
    run: Run, facts: WorkloadFacts, measurements: Sequence[Measurement], separator: str
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    raw = _raw_measure(facts)
    table.add_column(facts.parameter, justify="right", no_wrap=True)
    table.add_column("store", no_wrap=separator == " ", overflow="fold")
    for measure in facts.measures:
        table.add_column(_heading(measure, separator), justify="right", no_wrap=True)
    has_raw = _has_raw(facts, measurements)
    if has_raw:
        table.add_column(f"raw{separator}{_heading(raw, separator)}", justify="right", no_wrap=True)
        table.add_column(f"of{separator}raw", justify="right", no_wrap=True)
    before = None
    for measurement in measurements:
        durability = run.store(measurement.store).durability
        limit = measurement.raw_summary(raw.name)
        table.add_row(
            f"{measurement.value:,}" if measurement.value != before else "",
            f"{measurement.store}{separator}{durability}",
            *(_figure(measurement.summary(measure.name), separator) for measure in facts.measures),
            *((_amount(limit), _of_raw(measurement, raw)) if has_raw else ()),
        )
        before = measurement.value
    return table


def _raw_measure(facts: WorkloadFacts) -> Measure:
    """The measure whose raw limit is shown: the first that has a raw limit."""
    return next((measure for measure in facts.measures if measure.has_raw), facts.measures[0])


def _has_raw(facts: WorkloadFacts, measurements: Sequence[Measurement]) -> bool:
    """Whether the raw limit was measured at least once."""
    raw = _raw_measure(facts)
    return any(measurement.raw_values(raw.name) for measurement in measurements)


def _heading(measure: Measure, separator: str) -> str:
    return amount(measure.name, measure.unit).replace(" ", separator)


def _figure(summary: Summary | None, separator: str) -> str:
    if summary is None:
        return NOTHING
    return f"{number(summary.median)}{separator}{spread(summary)}".rstrip()


def _amount(summary: Summary | None) -> str:
    return number(summary.median) if summary else NOTHING


def _of_raw(measurement: Measurement, measure: Measure) -> str:
    share = measurement.share_of_raw(measure)
    return NOTHING if share is None else ratio(share)


# ---------------------------------------------------------------- two runs


def print_changes(console: Console, run: Run, earlier: Run, changes: Sequence[Change]) -> None:
    console.print()
    console.print(f"Against the run of {earlier.began}", style="bold")
    for difference in differences(run, earlier):
        console.print(f"differs: {difference}", style="yellow")
    others = [change for change in changes if change.verdict in {Verdict.MACHINE, Verdict.BETTER}]
    shown = [*got_worse(changes), *sorted(others, key=lambda change: change.gain)]
    if shown:
        console.print(_change_table(shown))
    console.print(summed_up(changes))


def _change_table(changes: Sequence[Change]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("figure", overflow="fold")
    table.add_column("store", overflow="fold")
    for column in ("then", "now", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for change in changes:
        measure = change.measure
        table.add_row(
            f"{change.workload.name} {change.value:,}, {amount(measure.name, measure.unit)}",
            change.store,
            _figure(change.earlier, " "),
            _figure(change.now, " "),
            _changed(change),
            change.verdict.words,
            style=_STYLES[change.verdict],
        )
    return table


def _changed(change: Change) -> str:
    more = "+" if change.ratio > 1 else "−"
    return f"{more}{abs(change.ratio - 1):.0%}"


_STYLES = {Verdict.WORSE: "red", Verdict.MACHINE: "yellow", Verdict.BETTER: "green"}
