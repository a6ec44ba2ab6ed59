"""Puts the runs that are kept in docs/performance into docs/performance.md: tables and plots.

``flowstate bench --store … --out results`` and ``make peers`` make runs; ``python
docs/performance.py results/bench.json peers/peers.json`` takes them over and writes the tables,
between marks in the page, and the plots that the page shows. Without arguments it does the same
with the runs that are there. What is between the marks comes from the runs; what the figures mean
is written by hand, and has to be read again after a new run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from flowstate.bench import Measure, Measurement, Run, WorkloadFacts, decode, encode
from flowstate.bench.text import amount, number, ratio, spread

DOCS = Path(__file__).parent
PAGE = DOCS / "performance.md"
KEPT = DOCS / "performance"
RUNS = ("bench", "peers")
SHOWN = re.compile(r"\(performance/((\w+)-(\S+)-(\d+)\.svg)\)")
MARKED = re.compile(r"(<!-- ((\w+)/(\S+)): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def load() -> dict[str, Run]:
    paths = {name: KEPT / f"{name}.json" for name in RUNS}
    return {name: decode(path.read_bytes(), str(path)) for name, path in paths.items()}


def page(runs: Mapping[str, Run]) -> str:
    """The page with what the runs say between its marks, ``<run>/<workload>``."""

    def filled(found: re.Match[str]) -> str:
        begin, _, run, name, end = found.groups()
        text = machine(runs[run]) if name == "machine" else table(runs[run], name)
        return f"{begin}{text}\n{end}"

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


def plots(runs: Mapping[str, Run]) -> Iterator[tuple[Path, str]]:
    """Each plot that the page shows, and its file: ``<run>-<workload>-<which>.svg``."""
    from flowstate.bench.plots import panels  # noqa: PLC0415  (it imports matplotlib)

    for file, run, name, which in SHOWN.findall(PAGE.read_text()):
        panel = list(panels(runs[run], workload(runs[run], name)))[int(which)]
        yield KEPT / file, panel.svg


def take(path: Path) -> None:
    """Keep a run, but for where its stores were."""
    if path.stem not in RUNS:
        raise SystemExit(f"{path}: a run that is kept is one of {', '.join(RUNS)} (.json)")
    run = decode(path.read_bytes(), str(path))
    stores = [replace(store, url=f"{store.url.partition(':')[0]}:…") for store in run.stores]
    kept = msgspec.json.format(encode(replace(run, stores=stores)), indent=-1)
    (KEPT / path.name).write_bytes(kept)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        take(Path(given))
    shown = load()
    PAGE.write_text(page(shown))
    for old in KEPT.glob("*.svg"):
        old.unlink()
    for path, svg in plots(shown):
        path.write_text(svg)
