"""``flowstate.testing`` says what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowstate.testing


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("DriverConformance", "pytest"),
        ("prove", "pytest"),
        ("DriverMachine", "hypothesis"),
    ],
)
def test_without_the_testing_extra_the_error_says_what_to_install(name: str, missing: str) -> None:
    """Asking for what needs a library that is missing names the library and the extra."""
    program = f"import sys; sys.modules[{missing!r}] = None; from flowstate.testing import {name}"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    assert ran.stderr.splitlines()[-1] == (
        f"ImportError: flowstate.testing needs {missing}: pip install 'flowstate-kernel[testing]'"
    )


def test_what_needs_no_library_does_without() -> None:
    """Virtual time, faults and wrappers are there where neither library is."""
    program = (
        "import sys; sys.modules.update(pytest=None, hypothesis=None);"
        "from flowstate.testing import FaultDriver, VirtualClock, WrapperDriver"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_is_there() -> None:
    """Names are loaded when they are first asked for; each can be."""
    for name in flowstate.testing.__all__:
        assert getattr(flowstate.testing, name, None) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = flowstate.testing.Nothing


def test_every_public_name_has_a_line_in_the_docs() -> None:
    """What is public is listed, and nothing else is."""
    page = (Path(__file__).parents[1] / "docs" / "testing.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    told = {name for name in flowstate.testing.__all__ if f"`{name}`" in page}
    assert set(flowstate.testing.__all__) == told
    assert listed <= set(flowstate.testing.__all__)


def test_importing_it_loads_no_test_library() -> None:
    """The processes that the suite starts are not slowed down by what only the suite needs."""
    program = "import sys, flowstate.testing.committer as _; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert not {"pytest", "hypothesis"} & set(ran.stdout.split())
