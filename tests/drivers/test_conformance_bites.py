"""The conformance suite can fail: each driver that breaks a law is caught by the law's test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowstate.drivers.memory import MemoryDriver

from . import broken


@pytest.fixture(scope="module")
def report() -> str:
    """What pytest says of all broken drivers, each run against the test that must catch it."""
    path = Path(broken.__file__)
    tests = [f"{path}::Test{driver.__name__}::{test}" for driver, test in broken.CAUGHT_BY.items()]
    options = ["-q", "-rA", "--tb=no", "-p", "no:cacheprovider", "-k", "asyncio"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        capture_output=True,
        check=False,
        cwd=path.parents[2],
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("driver", "test"),
    broken.CAUGHT_BY.items(),
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_driver_that_breaks_a_law_is_caught(
    report: str, driver: type[MemoryDriver], test: str
) -> None:
    """The test that states the law fails on the driver that breaks it."""
    told = [line for line in report.splitlines() if f"::Test{driver.__name__}::{test}" in line]
    assert any(line.startswith("FAILED") for line in told), "\n".join(told) or report
