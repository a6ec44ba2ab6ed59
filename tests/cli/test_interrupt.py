"""Ctrl-C in the first moments, while the command is still being imported: 130, and no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED_IMPORTING = """
import os, signal, sys

interrupted = sys.argv.pop(1)

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv[0] = "/usr/bin/flowstate"
from flowstate.cli import main
main()
"""
"""A process that interrupts itself when it comes to import the module of that name."""

FLOWS = """
import os, signal
from flowstate import Flows

flows = Flows()
os.kill(os.getpid(), signal.SIGINT)
"""


def run(directory: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    program = before + INTERRUPTED_IMPORTING
    command = [sys.executable, "-c", program, *arguments, "--store", "sqlite:///none.db"]
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "module",
    ["flowstate.clock", "msgspec", "sqlite3", "flowstate.cli", "click", "flowstate.cli.ls"],
)
def test_ctrl_c_while_the_command_is_imported(tmp_path: Path, module: str) -> None:
    ran = run(tmp_path, module, "ls")
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


def test_ctrl_c_while_the_flows_are_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FLOWS)
    (tmp_path / "in.jsonl").touch()
    ran = run(tmp_path, "-", "run", "mine.py:flows", "--input", "in.jsonl", "--start", "x")
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
    assert not (tmp_path / "none.db").exists()


def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path: Path) -> None:
    """As for what a script has put into the background."""
    ignore = f"import signal; signal.signal({int(signal.SIGINT)}, signal.SIG_IGN)"
    ran = run(tmp_path, "flowstate.cli.ls", "ls", before=ignore)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: none.db: does not exist")
