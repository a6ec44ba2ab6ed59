"""The table of CONTRIBUTING.md is an order in which the kernel can be read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
KERNEL = {path.stem for path in (ROOT / "flowstate").glob("*.py")} - {"__init__"}


def rows() -> list[set[str]]:
    """The kernel's modules in each row, those to be skimmed first."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    place = text.index("Read in this order")
    lines = text[place:].split("\n\n## ")[0].replace("\n`codec", " `codec").splitlines()
    found = [set(re.findall(r"`(?:flowstate/)?(\w+)\.py`", line)) for line in lines]
    return [modules & KERNEL for modules in found if modules & KERNEL]


def imported(module: str) -> set[str]:
    """What a module of the kernel imports of the kernel, also for type checkers alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / "flowstate" / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found.update([node.module] if node.module else [alias.name for alias in node.names])
    return found & KERNEL


def test_every_module_of_the_kernel_has_its_place() -> None:
    assert set().union(*rows()) == KERNEL


def test_each_file_needs_only_those_before_it() -> None:
    read: set[str] = set()
    for modules in rows():
        read |= modules
        assert {} == {module: needs for module in modules if (needs := imported(module) - read)}
