"""A shell in a directory of its own, with flows to run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shutil.copy(Path(__file__).with_name("work.py"), tmp_path)
    return Shell(tmp_path)
