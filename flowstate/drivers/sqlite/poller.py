"""Noticing what other processes commit: ``PRAGMA data_version``, polled only while someone waits.

The pragma reads a counter in shared memory (https://sqlite.org/pragma.html#pragma_data_version),
so a poll costs microseconds and no I/O.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from attrs import define, field

from ..head import Head
from ..loop import Loop
from .connection import File

INTERVAL_S = 0.004
"""Between two polls: how late another process's commit is noticed, at most."""


@define(eq=False)
class Poller:
    """A thread that keeps a head up to date while there are tasks waiting for it."""

    file: File
    head: Head
    _watching: int = field(default=0, init=False)
    _wanted: threading.Event = field(factory=threading.Event, init=False)
    _closing: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _loop: Loop = field(init=False)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Keep the head up to date for as long as this lasts. On the event loop."""
        if self._thread is None:
            self._loop = Loop.current()
            name = f"flowstate poller {self.file.path}"
            self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._thread.start()
        self._watching += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._watching -= 1

    def close(self) -> None:
        self._closing.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    # ------------------------------------------------------------ in the thread

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        while not self._closing.is_set():
            try:
                if connection is None:
                    connection = self.file.connect()
                self._poll(connection)
            except sqlite3.Error:
                # a hint may be late; whoever reads the store is told what is wrong with it
                if connection is not None:
                    connection.close()
                connection = None
                self._closing.wait(INTERVAL_S)
        if connection is not None:
            connection.close()

    def _poll(self, connection: sqlite3.Connection) -> None:
        """Poll for as long as somebody waits, then rest until somebody does."""
        seen = told = None
        while not self._closing.is_set():
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version != seen:
                seen = version
                (head,) = connection.execute("SELECT max(rev) FROM versions").fetchone()
                # a change without a new revision: due times were moved
                self._tell(
                    partial(self.head.advance, head or 0) if head != told else self.head.hint
                )
                told = head
            if self._watching:
                self._closing.wait(INTERVAL_S)
                continue
            self._wanted.clear()
            # again: someone may have come, or closed it, just before the event was cleared
            if not self._is_wanted():
                self._wanted.wait()
            seen = None

    def _is_wanted(self) -> bool:
        return self._watching > 0 or self._closing.is_set()

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            self._loop.soon_threadsafe(tell)
        except RuntimeError:
            self._closing.set()  # the loop has ended
