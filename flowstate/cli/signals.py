"""Ending a command that runs flows: gently on the first signal, at once on the second."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from .screen import Screen

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


@contextmanager
def interruptible(drain: Callable[[str], None], last_word: str) -> Generator[None]:
    """The first SIGINT or SIGTERM calls *drain* with its name; the second ends the process at once.

    These are plain signal handlers, so that the second one works even while a flow holds up the
    event loop. Ending at once loses nothing: what was acknowledged is in the store.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            ignore_interrupts()  # a third may come before the end
            Screen.abandon(last_word)
            os._exit(INTERRUPTED)
        asked = True
        loop.call_soon_threadsafe(drain, signal.Signals(number).name)

    before = [(number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, previous)


def ignore_interrupts() -> None:
    """Let no further SIGINT or SIGTERM disturb the end of the process.

    ``SIG_IGN`` would have Python print an error of one that has come and was not handled yet.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)


def _ignore(number: int, frame: FrameType | None) -> None: ...


def leave(code: int) -> None:
    """End the process, even if a flow that was given up still holds a thread."""
    sys.stdout.flush()
    threads = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if any(not thread.daemon for thread in threads):
        os._exit(code)
    sys.exit(code)
