"""A test that uses no server needs nothing that speaks to one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROGRAM = """
import sys, pytest
sys.modules["psycopg"] = None  # to import it raises ImportError
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments",
    [["tests/test_state.py"], ["--collect-only", "tests/scenarios", "tests/test_processes.py"]],
    ids=["passed", "collected"],
)
def test_tests_run_where_psycopg_cannot_be_imported(arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        check=False,
        cwd=TESTS.parent,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
