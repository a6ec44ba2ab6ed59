"""Connections that wait for a server only as long as it can be expected to answer."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg.errors import Diagnostic
from psycopg.rows import TupleRow

T = TypeVar("T")

DEADLINE_S = 60.0
"""How long a connection may be silent while something is asked. No statement but those of a
migration takes a server as long as this, also with a slow disk."""
CLOSING_S = 5.0
"""The same once the driver is being closed."""
WAIT_FOR_STANDBYS = "SyncRepWaitForLSN"
"""The function of the server in which a COMMIT waits for standbys; whatever the server's language,
warnings name it."""
QUICK_S = 0.1
"""What takes less is waited for by psycopg alone: to look whether there is progress costs a commit
some 5 % of its processor time."""
_QUICK_IS_OVER: type[psycopg.Error] | None = getattr(psycopg.errors, "_WaitTimeout", None)
"""What psycopg raises then, if it takes such a bound at all; one can go on waiting."""
_DROP_WHAT_IS_UNSENT = struct.pack("ii", 1, 0)
"""For ``SO_LINGER``."""


class NotReplicatedError(psycopg.OperationalError):
    """Something was committed, but somebody ended the wait for standbys to have it."""


class Connection(psycopg.Connection[TupleRow]):
    """A connection that is given up, and closed, if the server is silent for too long.

    Silent means that nothing is received and nothing can be sent. Keepalives do not notice where
    something between the two still answers them, nor that a server is stopped.
    """

    _deadline_s: float = DEADLINE_S
    _closing: threading.Event | None = None
    _is_unreplicated: bool = False

    def go_by(self, deadline_s: float, closing: threading.Event | None) -> None:
        """Wait that long, and no more than ``CLOSING_S`` once *closing* is set."""
        self._deadline_s = deadline_s
        self._closing = closing
        self.add_notice_handler(self._noticed)

    @contextmanager
    def patience(self, deadline_s: float) -> Generator[None]:
        """Wait longer than usual."""
        usual, self._deadline_s = self._deadline_s, max(self._deadline_s, deadline_s)
        try:
            yield
        finally:
            self._deadline_s = usual

    def check_replicated(self) -> None:
        """Raise ``NotReplicatedError`` if a COMMIT was answered before standbys had it that were to
        be waited for."""
        if self._is_unreplicated:
            raise NotReplicatedError("somebody cancelled the wait for a standby")

    @contextmanager
    def pipeline(self) -> Generator[psycopg.Pipeline]:
        """As it is in psycopg, but what is raised inside is all that is heard of a connection that
        was lost: psycopg would also log that it could not end the pipeline."""
        failed: Exception | None = None
        try:
            with super().pipeline() as pipeline:
                try:
                    yield pipeline
                except Exception as error:  # noqa: BLE001  (it is raised below)
                    failed = error
        except Exception:
            if failed is None:
                raise
        if failed is not None:
            raise failed

    def wait(self, gen: Generator[Any, Any, T], *given: Any, **options: Any) -> T:
        if _QUICK_IS_OVER is not None and not (given or options):
            try:
                return super().wait(gen, timeout=QUICK_S)
            except _QUICK_IS_OVER:
                pass
        return super().wait(self._bounded(gen), *given, **options)

    # ------------------------------------------------------------ inside

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """What psycopg drives: it is told what the socket has to be ready for, and sends what it is
        ready for, or several times a second that it is not."""
        silent_since: float | None = None
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    silent_since = None
                elif silent_since is None:
                    silent_since = time.monotonic()
                elif time.monotonic() - silent_since >= self._patience_s:
                    raise self._given_up()
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result

    @property
    def _patience_s(self) -> float:
        if self._closing is not None and self._closing.is_set():
            return min(CLOSING_S, self._deadline_s)
        return self._deadline_s

    def _given_up(self) -> psycopg.OperationalError:
        patience_s = self._patience_s
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as end:
            # or it would be sent once whatever is in between goes on
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_WHAT_IS_UNSENT)
        self.close()
        return psycopg.OperationalError(f"nothing came from the server for {patience_s:g} s")

    def _noticed(self, notice: Diagnostic) -> None:
        self._is_unreplicated |= notice.source_function == WAIT_FOR_STANDBYS
