"""The `flowstate` command as a person uses it: in a directory, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define

FLOWSTATE = str(Path(sys.executable).with_name("flowstate"))
TIMEOUT_S = 60.0
"""Longer than anything here takes on a slow machine: to fail, not to wait."""


@define
class Shell:
    """A directory with a store, ``store.db``, that every command works on by default."""

    directory: Path

    @property
    def store(self) -> Path:
        return self.directory / "store.db"

    def write(self, name: str, *records: object) -> str:
        """A file of lines: text as it is, anything else as JSON. Gives its name."""
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        (self.directory / name).write_text("".join(f"{line}\n" for line in lines))
        return name

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FLOWSTATE, *arguments],
            cwd=self.directory,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def start(
        self,
        *arguments: str,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [FLOWSTATE, *arguments],
            cwd=self.directory,
            env=self._environment(environment or {}),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        # bounds every read from it: it ends, and the read with it
        watchdog = threading.Timer(TIMEOUT_S, process.kill)
        watchdog.daemon = True
        watchdog.start()
        return process

    def states(self, *options: str) -> list[dict[str, Any]]:
        return _records(self.run("ls", "--json", *options))

    def history(self, id: str) -> list[dict[str, Any]]:
        return _records(self.run("show", id, "--history", "--json"))

    def status(self, id: str) -> str:
        """The status of a state; empty if there is none, or no store yet."""
        shown = self.run("show", id, "--json")
        status: str = json.loads(shown.stdout)["transition"]["status"] if shown.stdout else ""
        return status

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k not in _OF_A_TERMINAL}
        return inherited | {"FLOWSTATE_STORE": "sqlite:///store.db"} | more


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(exit code, rest of stdout, rest of stderr) of a process that is about to end."""
    with process:  # not communicate(): it would lose what is already in a buffer
        if process.stdin:
            with suppress(BrokenPipeError):
                process.stdin.close()
        stdout = process.stdout.read() if process.stdout else ""
        stderr = process.stderr.read() if process.stderr else ""
    return process.returncode, stdout, stderr


def read_until(stream: Any, wanted: str) -> str:
    """What the stream gives up to a line that holds *wanted*; it must come before the end."""
    read = ""
    while wanted not in read:
        line = stream.readline()
        assert line, f"{wanted!r} did not come, only: {read}"
        read += line
    return read


def read_terminal(ours: int) -> bytes:
    """All that is written to the other side of a pseudo-terminal, which this closes."""
    shown = b""
    with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # ends with an error
        while chunk := terminal.read(65536):
            shown += chunk
    return shown


def wait_for(condition: Callable[[], object]) -> None:
    """Return as soon as it holds; it must within the timeout."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "did not become true"
        time.sleep(0.005)


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def _records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) in {(0, ""), (0, "no state matches\n")}, done
    return [json.loads(line) for line in done.stdout.splitlines()]


_OF_A_TERMINAL: Sequence[str] = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "FLOWSTATE_STORE")
