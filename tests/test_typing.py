"""Type checkers infer what a program gets, and refuse what is wrong.

A line that is to be refused says so, to each of them, in a comment: ``type: ignore`` to mypy,
``pyright: ignore`` to pyright. One that is not refused, for just that reason, is an error too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PYRIGHT = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": True,
}


@pytest.mark.parametrize(
    "checker",
    [
        ["mypy", "--strict"],
        ["pyright", "--pythonpath", sys.executable],
    ],
    ids=["mypy", "pyright"],
)
def test_a_type_checker_infers_what_the_engine_gives(checker: list[str], tmp_path: Path) -> None:
    """Checked as by someone who only has the package: away from this project's own settings."""
    for module in (HERE / "typing").glob("*.py"):
        (tmp_path / module.name).write_text(module.read_text())
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    ran = subprocess.run(
        [sys.executable, "-m", *checker, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
