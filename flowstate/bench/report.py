"""A run as one HTML page that needs nothing else: tables, and plots as SVG.

The page is well-formed XML too. Needs matplotlib: ``pip install 'flowstate-kernel[bench]'``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape
from string import Template

from .compare import Change, Verdict, differences, summed_up
from .plots import Panel, change_panel, panels
from .results import Measurement, Run, WorkloadFacts
from .stats import Summary
from .text import amount, number, ratio, span, spread

NOTHING = "–"


def page(run: Run, earlier: Run | None = None, changes: Sequence[Change] = ()) -> str:
    """The report of a run, and of how it differs from an earlier one."""
    sections = [
        _about(run),
        *([_changes(run, earlier, changes)] if earlier else []),
        *(_workload(run, facts) for facts in run.workloads if _measured(run, facts)),
        _missing(run),
        _reading(run),
    ]
    title = f"flowstate bench, {run.began[:10]}"
    return _PAGE.substitute(title=escape(title), body="\n".join(filter(None, sections)))


def _measured(run: Run, facts: WorkloadFacts) -> list[Measurement]:
    return [measurement for measurement in run.of(facts.name) if measurement.rounds]


# ---------------------------------------------------------------- sections


def _about(run: Run) -> str:
    machine, effort = run.machine, run.effort
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    facts = {
        "measured": f"{run.began.replace('T', ' ')[:16]} UTC, in {span(run.took_s)}"
        + (", interrupted" if run.is_interrupted else ""),
        "machine": f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB; load "
        f"{machine.load:g} before",
        "system": f"{machine.system}, {machine.python}",
        "versions": versions,
        "effort": f"up to {effort.rounds} rounds, {effort.seconds:g} s a measurement"
        + (" (quick)" if effort.is_quick else ""),
    }
    has_raw = any(facts.raw for facts in run.workloads)
    stores = _table(
        ("store", "durability", "URL", "versions and settings", *(["raw limit"] * has_raw)),
        (
            (
                store.name,
                store.durability,
                store.url,
                ", ".join(f"{name} {value}" for name, value in store.facts.items()),
                *([store.raw or "none is known: its figures are without a ratio"] * has_raw),
            )
            for store in run.stores
        ),
        texts=range(5),
    )
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    notes = "".join(
        f"<li><b>{escape(store.name)}</b>: {escape(note)}</li>"
        for store in run.stores
        for note in store.notes
    )
    return f"<dl>{rows}</dl>{stores}" + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _workload(run: Run, facts: WorkloadFacts) -> str:
    raw = f" Raw limit: {escape(facts.raw)}." if facts.raw else ""
    return (
        f'<section id="{escape(facts.name)}"><div class="whole"><h2>{escape(facts.name)}</h2>'
        f"<p>{escape(facts.about)}.{raw}</p>"
        f'<div class="plots">{"".join(map(_figure, panels(run, facts)))}</div></div>'
        f"{_figures(run, facts)}</section>"
    )


def _figure(panel: Panel) -> str:
    return f'<figure role="img" aria-label="{escape(panel.about)}">{panel.svg}</figure>'


def _figures(run: Run, facts: WorkloadFacts) -> str:
    raw = [measure for measure in facts.measures if measure.has_raw]
    header = [facts.parameter, "store"]
    header += [amount(measure.name, measure.unit) for measure in facts.measures]
    for measure in raw:
        header += [f"raw {amount(measure.name, measure.unit)}", "of raw"]
    rows = (
        [
            f"{measurement.value:,}",
            f"{measurement.store} ({run.store(measurement.store).durability})",
            *(_summary(measurement.summary(measure.name)) for measure in facts.measures),
            *(cell for measure in raw for cell in _raw(measurement, measure.name, facts)),
        ]
        for measurement in _measured(run, facts)
    )
    return _table(header, rows, texts=(1,))


def _raw(measurement: Measurement, name: str, facts: WorkloadFacts) -> tuple[str, str]:
    measure = next(measure for measure in facts.measures if measure.name == name)
    share = measurement.share_of_raw(measure)
    return _summary(measurement.raw_summary(name)), NOTHING if share is None else ratio(share)


def _changes(run: Run, earlier: Run, changes: Sequence[Change]) -> str:
    items = "".join(f"<li>{escape(difference)}</li>" for difference in differences(run, earlier))
    differs = f'<p>The runs differ in more:</p><ul class="notes">{items}</ul>' if items else ""
    moved = sorted(
        (change for change in changes if change.verdict not in {Verdict.SAME, Verdict.UNSURE}),
        key=lambda change: change.gain,
    )
    table = _table(
        ("figure", "store", "then", "now", "change", ""),
        (
            (
                f"{change.workload.name} {change.value:,}, {_measured_in(change)}",
                change.store,
                _summary(change.earlier),
                _summary(change.now),
                f"{(change.ratio - 1) * 100:+.0f}%",
                change.verdict.words,
            )
            for change in moved
        ),
        texts=(0, 1, 5),
    )
    plot = f'<div class="plots wide">{_figure(change_panel(changes))}</div>' if changes else ""
    return (
        f'<section id="changes"><h2>Against the run of {escape(earlier.began[:16])}</h2>{differs}'
        f"<p>{escape(summed_up(changes))}</p>"
        f"{table if moved else ''}{plot}</section>"
    )


def _missing(run: Run) -> str:
    rows = "".join(
        f"<li>{escape(measurement.workload)} {measurement.value:,} on {escape(measurement.store)}: "
        f"{escape(measurement.missing)}</li>"
        for measurement in run.measurements
        if measurement.missing
    )
    return f"<section><h2>Not measured</h2><ul>{rows}</ul></section>" if rows else ""


def _reading(run: Run) -> str:
    return (
        "<section><h2>How to read this</h2><p>Each figure is the median of its rounds, ± how far "
        "the furthest round is from it; error bars go from the lowest round to the highest. The "
        "stores take turns in every round, and a raw limit is measured right before the figure "
        "that it belongs to, so that both see the same machine. “of raw” is the share of the raw "
        "limit that was reached, the median over the rounds. p50 and p99 are of all delays of a "
        "round. NONE, PROCESS, POWER and NODE say what an acknowledged commit survives: nothing, "
        "the death of the process, of the machine, the loss of the machine.</p></section>"
    )


# ---------------------------------------------------------------- parts


def _measured_in(change: Change) -> str:
    return amount(change.measure.name, change.measure.unit)


def _summary(summary: Summary | None) -> str:
    if summary is None:
        return NOTHING
    return f"{number(summary.median)} {spread(summary)}".rstrip()


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Collection[int]) -> str:
    """A table; the columns with these indexes are texts, the others numbers."""

    def cells(tag: str, row: Sequence[str]) -> Iterator[str]:
        for index, cell in enumerate(row):
            kind = ' class="text"' if index in texts else ""
            yield f"<{tag}{kind}>{escape(cell)}</{tag}>"

    head = "".join(cells("th", header))
    body = "".join(f"<tr>{''.join(cells('td', row))}</tr>" for row in rows)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


_PAGE = Template("""<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #111; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.4rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.2rem; border-bottom: 1px solid #999; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; }
dt { color: #555; }
dd { margin: 0; }
.plots { display: flex; flex-wrap: wrap; gap: 0.5rem 1rem; }
.plots figure { flex: 0 1 490px; margin: 0.5rem 0; }
.plots.wide figure { flex-basis: 100%; }
svg { width: 100%; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums;
  margin: 0.6rem 0; }
th, td { padding: 0.2rem 0.7rem; text-align: right; vertical-align: top; }
th.text, td.text { text-align: left; }
thead th { border-bottom: 1px solid #555; }
tbody tr:nth-child(even) { background: #f4f4f4; }
.notes { color: #7a3b00; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; }
  .whole, .table, figure, tr { break-inside: avoid; }
  .table { overflow: visible; }
  h2, section > p { break-after: avoid; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.1rem 0.35rem; }
  .plots figure { flex-basis: 47%; }
}
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")
