"""Each of the nine laws of docs/concepts.md has its proofs, and they are found by its number."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from flowstate.testing import DriverConformance, Law, conformance

CONCEPTS = Path(__file__).parents[1] / "docs" / "concepts.md"
NAMES = [
    "Order",
    "Atomicity",
    "Durability",
    "Isolation",
    "Known outcome",
    "Cost",
    "Watch",
    "Exclusive claims",
    "Its own errors only",
]


def proofs() -> list[tuple[Law, Path]]:
    """Every test of the suite as a law, with the file that it is in."""
    found: list[tuple[Law, Path]] = []
    for mixin in DriverConformance.__mro__:
        module = sys.modules[mixin.__module__]
        heading, _, _ = (module.__doc__ or "").partition("\n\n")
        found += [
            (Law(name, heading, ""), Path(module.__file__ or ""))
            for name in vars(mixin)
            if name.startswith("test_")
        ]
    return found


def linked() -> list[tuple[str, Path]]:
    """The name of each law of the concepts, in order, and the file that it links to."""
    page = CONCEPTS.read_text()
    tokens = MarkdownIt().parse(page[page.index("Every driver keeps these laws") :])
    end = next(n for n, token in enumerate(tokens) if token.type == "ordered_list_close")
    laws: list[tuple[str, Path]] = []
    for token in tokens[:end]:
        children = token.children or []
        for link, text in pairwise(children):
            if link.type == "link_open":
                laws.append((text.content, (CONCEPTS.parent / str(link.attrs["href"])).resolve()))
    return laws


def test_the_concepts_link_each_law_to_a_file_of_the_suite() -> None:
    assert NAMES == [name for name, _ in linked()]
    assert all(path.is_file() for _, path in linked())


@pytest.mark.parametrize("number", range(1, len(NAMES) + 1))
def test_a_law_has_its_proofs_under_its_number(number: int) -> None:
    """They are all in the file that the concepts link to, under a heading with the law's name."""
    name, path = linked()[number - 1]
    numbered = [(law.title, file) for law, file in proofs() if law.matches(str(number))]
    assert {(f"Law {number}, {name.lower()}", path)} == set(numbered)


def test_no_other_law_has_a_number() -> None:
    """Conflicts, reading, due times and the like are parts of the contract without one."""
    assert {None, *range(1, len(NAMES) + 1)} == {law.number for law, _ in proofs()}


def test_the_suite_says_which_of_its_modules_proves_which_law() -> None:
    """Its docstring names every module: with a number, or as one of the rest."""
    text = " ".join((conformance.__doc__ or "").split())
    for law, path in proofs():
        number = f" ({law.number})" if law.number else ""
        assert f"``{path.stem}``{number}" in text
