"""The processes below a directory: all whose current directory is in it.

What a node of the cluster starts has its current directory there, and so has all that this starts
in turn: PostgreSQL's processes are in no group that could be sent a signal. Run as a program, with
a directory, it waits until whoever started it is gone, ends all of them, and removes the directory.
Linux only.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 60
"""How long a process may take to end."""


def running_in(directory: Path) -> Iterator[int]:
    """The ids of the processes that run in the directory, or below it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended meanwhile, or is another user's
                if (entry / "cwd").readlink().is_relative_to(directory):
                    yield int(entry.name)


def stop(directory: Path) -> set[int]:
    """SIGSTOP for all of them; gives their ids. None is missed that starts meanwhile."""
    stopped: set[int] = set()
    while found := set(running_in(directory)) - stopped:
        send(found, signal.SIGSTOP)
        stopped |= found
    return stopped


def go_on(directory: Path) -> None:
    """SIGCONT for all of them."""
    send(running_in(directory), signal.SIGCONT)


def kill(directory: Path) -> None:
    """SIGKILL for all of them, at one moment: none sees another die before it. Returns when they
    are gone."""
    ids = stop(directory)
    send(ids, signal.SIGKILL)
    for id in ids:
        wait_for(id, directory)


def wait_for(id: int, directory: Path) -> None:
    """Return once this process does not run in the directory any more."""
    with suppress(ProcessLookupError):
        ended = os.pidfd_open(id)
        try:
            if id in running_in(directory):  # else the number has been given to another
                select.select([ended], [], [], PATIENCE_S)
        finally:
            os.close(ended)


def send(ids: Iterator[int] | set[int], number: int) -> None:
    for id in ids:
        with suppress(ProcessLookupError):
            os.kill(id, number)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.stdin.read()
    kill(folder)
    shutil.rmtree(folder)
