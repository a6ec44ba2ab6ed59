"""The page of a run: one file that needs nothing else, and that anybody can read."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from flowstate.bench import Better, Measure, Measurement, Run, StoreFacts, WorkloadFacts, compare
from flowstate.bench.plots import COLOURS, HATCHES, MARKERS, Panel, panels
from flowstate.bench.report import page
from flowstate.bench.results import Round
from flowstate.bench.stats import SHARES

from . import made

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
WATCH = WorkloadFacts(
    name="watch",
    about="From a commit to its watchers",
    parameter="watchers",
    measures=(Measure("p50", "ms", Better.LOWER), Measure("p99", "ms", Better.LOWER)),
)


def watched(store: str, p50: float) -> Measurement:
    quantiles = tuple(p50 * (0.5 + share) for share in SHARES)
    figures = {"p50": p50, "p99": p50 * 1.5}
    taken = tuple(Round(number=n, figures=figures, quantiles={"": quantiles}) for n in (1, 2, 3))
    return Measurement(workload="watch", value=1, store=store, rounds=taken)


def a_run(factor: float = 1.0) -> Run:
    commits = [
        made.measurement(
            {
                "commits": [v * factor for v in (rate, rate * 1.1, rate * 1.2)],
                "p50": [0.1, 0.2, 0.3],
            },
            {"commits": [rate * 2] * 3},
            value=value,
            store=store,
        )
        for value, rate in ((1, 3_000.0), (10, 20_000.0), (1_000, 50_000.0))
        for store in ("sqlite", "postgresql")
    ]
    run = made.run(*commits)
    return replace(
        run,
        workloads=(*run.workloads, WATCH),
        measurements=(*run.measurements, watched("sqlite", 0.5), watched("postgresql", 2.0)),
    )


RUN = a_run()


def parsed(run: Run, earlier: Run | None = None) -> ET.Element:
    changes = compare(run, earlier) if earlier else ()
    return ET.fromstring(page(run, earlier, changes))  # noqa: S314  (our own page)


def texts(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    root = parsed(RUN)
    assert f"{HTML}html" == root.tag
    for element in root.iter():
        assert element.tag not in {f"{HTML}{tag}" for tag in ("script", "link", "img", "iframe")}
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in {"href", "src"}:
                assert value.startswith("#"), value
    assert "@import" not in page(RUN)
    assert not re.search(r"url\((?!#)", page(RUN))


def test_no_id_is_there_twice_and_every_reference_leads_somewhere() -> None:
    text = page(RUN)
    ids = Counter(re.findall(r'\sid="([^"]*)"', text))
    assert {1} == set(ids.values())
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= ids.keys()


def test_each_plot_is_inside_and_says_in_words_what_it_shows() -> None:
    figures = list(parsed(RUN).iter(f"{HTML}figure"))
    assert {
        "commits/s of commit (Committed transitions), for each store",
        "p50 ms of commit (Committed transitions), for each store",
        "p50 ms and p99 ms of watch (From a commit to its watchers), for each store",
        "which share of the delays of watch is not longer than so many ms",
    } == {figure.attrib["aria-label"] for figure in figures}
    for figure in figures:
        assert "img" == figure.attrib["role"]
        (svg,) = figure
        assert f"{SVG}svg" == svg.tag


def test_the_text_of_a_plot_is_text_and_names_each_store_with_its_durability() -> None:
    for figure in parsed(RUN).iter(f"{HTML}figure"):
        told = " ".join(texts(one) for one in figure.iter(f"{SVG}text"))
        for store in ("sqlite", "postgresql"):
            assert f"{store} (POWER)" in told


def test_the_tables_have_every_figure_beside_its_raw_limit() -> None:
    told = texts(parsed(RUN))
    for cell in ("1,000", "sqlite (POWER)", "55,000 ±9%", "100,000 ±0%", "55%", "A processor"):
        assert cell in told


def test_the_same_run_makes_the_same_page() -> None:
    assert page(RUN) == page(RUN)


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", 'a"b', "&amp;", "]]>"])
def test_what_a_store_is_called_is_text(hostile: str) -> None:
    run = made.run(made.measurement({"commits": [1.0, 2.0, 3.0]}, store=hostile))
    assert hostile in texts(parsed(run))


def test_what_is_missing_interrupted_or_without_a_raw_limit_is_told() -> None:
    run = replace(
        made.run(made.measurement({"commits": [1.0]})),
        is_interrupted=True,
        stores=(StoreFacts(name="sqlite", url="x:", durability="POWER", notes=("in memory",)),),
    )
    lost = Measurement(workload="commit", value=7, store="sqlite", missing="out of luck")
    told = texts(parsed(replace(run, measurements=(*run.measurements, lost))))
    for part in ("interrupted", "none is known", "in memory", "commit 7 on sqlite: out of luck"):
        assert part in told


def test_two_runs_are_compared_in_a_table_and_a_plot() -> None:
    root = parsed(a_run(0.5), RUN)
    (section,) = (one for one in root.iter(f"{HTML}section") if one.get("id") == "changes")
    told = texts(section)
    assert "commit 1,000, commits/s" in told
    assert "−50%" in told.replace("-", "−")
    assert "worse" in told
    assert 1 == len(list(section.iter(f"{SVG}svg")))


def test_a_workload_without_rounds_has_no_section() -> None:
    run = made.run(replace(made.measurement({"commits": [1.0]}), rounds=(), missing="no"))
    assert [] == [one for one in parsed(run).iter(f"{HTML}section") if one.get("id") == "commit"]


def grey(colour: str) -> float:
    """How light a colour is in print without colours (ITU-R BT.709), 0 to 1."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_stores_differ_without_colours_too() -> None:
    assert len(COLOURS) == len(set(COLOURS)) == len(set(MARKERS)) == len(set(HATCHES))
    for one, next_one in pairwise(COLOURS[:4]):
        assert abs(grey(one) - grey(next_one)) > 0.2


def test_a_panel_is_a_whole_svg_of_its_own() -> None:
    drawn: list[Panel] = list(panels(RUN, RUN.workloads[0]))
    assert ["commits/s", "p50 ms"] == [panel.name for panel in drawn]
    for panel in drawn:
        assert f"{SVG}svg" == ET.fromstring(panel.svg).tag  # noqa: S314
