"""Puts the run that is in docs/performance/run.json into docs/performance.md: tables and plots.

``flowstate bench --store … --out results`` makes a run; ``python docs/performance.py
results/bench.json`` takes it over and writes the tables, between marks in the page, and the plots
that the page shows. Without an argument it does the same with the run that is there. What is
between the marks comes from the run; what the figures mean is written by hand, and has to be read
again after a new run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from flowstate.bench import Measure, Measurement, Run, WorkloadFacts, decode, encode
from flowstate.bench.text import amount, number, ratio, spread

DOCS = Path(__file__).parent
PAGE = DOCS / "performance.md"
RUN = DOCS / "performance" / "run.json"
SHOWN = re.compile(r"\(performance/((\S+)-(\d+)\.svg)\)")
MARKED = re.compile(r"(<!-- (\S+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def load() -> Run:
    return decode(RUN.read_bytes(), str(RUN))


def page(run: Run) -> str:
    """The page with what the run says between its marks."""

    def filled(found: re.Match[str]) -> str:
        name = found[2]
        text = machine(run) if name == "machine" else table(run, name)
        return f"{found[1]}{text}\n{found[3]}"

    return MARKED.sub(filled, PAGE.read_text())


def machine(run: Run) -> str:
    """Where and how it was made."""
    about = run.machine
    when = f"{run.began[:10]}, {run.effort.rounds} rounds, {run.took_s / 60:.0f} minutes"
    where = f"{about.cpu}, {about.cores} cores, {about.memory_gb:g} GB"
    lines = [
        f"- {when}; load {about.load:g} before it began",
        f"- {where}; {about.system}; {about.python}",
    ]
    for store in run.stores:
        facts = ", ".join(f"{name} {value}" for name, value in store.facts.items())
        lines.append(f"- **{store.name}** ({store.durability})" + (f": {facts}" if facts else ""))
    return "\n".join(lines)


def table(run: Run, name: str) -> str:
    """The figures of a workload."""
    facts = workload(run, name)
    raw = next((measure for measure in facts.measures if measure.has_raw), None)
    header = [facts.parameter, "store", *(amount(m.name, m.unit) for m in facts.measures)]
    if raw is not None:
        header += [f"raw {amount(raw.name, raw.unit)}", "of raw"]
    rows = [header, ["--:", "---", *["--:"] * (len(header) - 2)]]
    rows += (_row(run, facts, raw, one) for one in run.of(name) if one.rounds)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(run: Run, facts: WorkloadFacts, raw: Measure | None, one: Measurement) -> list[str]:
    row = [f"{one.value:,}", f"{one.store} ({run.store(one.store).durability})"]
    for measure in facts.measures:
        summary = one.summary(measure.name)
        row.append(f"{number(summary.median)} {spread(summary)}".rstrip() if summary else "–")
    if raw is not None:
        limit, share = one.raw_summary(raw.name), one.share_of_raw(raw)
        row.append(number(limit.median) if limit else "–")
        row.append("–" if share is None else ratio(share))
    return row


def workload(run: Run, name: str) -> WorkloadFacts:
    (facts,) = (facts for facts in run.workloads if facts.name == name)
    return facts


def plots(run: Run) -> Iterator[tuple[Path, str]]:
    """Each plot that the page shows, and its file: ``<workload>-<which>.svg``."""
    from flowstate.bench.plots import panels  # noqa: PLC0415  (it imports matplotlib)

    for file, name, which in SHOWN.findall(PAGE.read_text()):
        panel = list(panels(run, workload(run, name)))[int(which)]
        yield RUN.with_name(file), panel.svg


def take(path: Path) -> None:
    """Keep a run, but for where its stores were."""
    run = decode(path.read_bytes(), str(path))
    stores = [replace(store, url=f"{store.url.partition(':')[0]}:…") for store in run.stores]
    RUN.parent.mkdir(exist_ok=True)
    RUN.write_bytes(msgspec.json.format(encode(replace(run, stores=stores)), indent=-1))


if __name__ == "__main__":
    for given in sys.argv[1:]:
        take(Path(given))
    shown = load()
    PAGE.write_text(page(shown))
    for old in RUN.parent.glob("*.svg"):
        old.unlink()
    for path, svg in plots(shown):
        path.write_text(svg)
