"""A session: a connection that does nothing but hold a lock by which others see that it is there.

The server gives the lock up with the connection. It is an advisory lock of the session, shared, so
that a connection which the server does not know to be dead is no obstacle to the next one. Whoever
goes through a pooler that gives each transaction another session cannot have one.
"""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import ClassVar
from weakref import WeakSet

from attrs import define, field

from .connection import Target
from .errors import translate
from .schema import key
from .session import Connection

RETRY_INTERVAL_S = 0.1
"""Between two tries to reach the server."""


def lock_of(target: Target, session: str) -> int:
    """The key of the lock that a session has."""
    return key("flowstate session", target.schema, session)


def is_direct(connection: Connection) -> bool:
    """Whether nobody is between us and the server's side of a connection: a pooler says another
    process id when it is asked than when it was connected to."""
    found = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    return found == (connection.info.backend_pid,)


@define(eq=False)
class Session:
    """Is there from ``attend`` to ``close``, in a thread of its own that connects again when the
    connection is lost."""

    target: Target
    name: str = field(factory=lambda: secrets.token_hex(8))
    since: float | None = field(default=None, init=False)
    """Since when it is connected without a break (s, monotonic); None: it is not."""
    _connection: Connection | None = field(default=None, init=False)
    _starting: threading.Lock = field(factory=threading.Lock, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _settled: threading.Event = field(factory=threading.Event, init=False)
    """Set once it is there, could not be for long, or is closed."""
    _failed: Exception | None = field(default=None, init=False)
    _closing: threading.Event = field(factory=threading.Event, init=False)
    _woken: tuple[socket.socket, socket.socket] = field(factory=socket.socketpair, init=False)

    opened: ClassVar[WeakSet[Session]] = WeakSet()

    def attend(self) -> None:
        """Return once it is there. A server that went away is waited for; raises ``StoreError`` if
        it cannot be reached for long."""
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                self.opened.add(self)
                name = f"flowstate session {self.target.url}"
                self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._thread.start()
        self._settled.wait()
        if self._failed is not None:
            raise translate(self.target, self._failed) from self._failed

    def has_been_there(self, since: float | None) -> bool:
        """Whether it is there since then, and for so long that all others have come back who were
        there before the server was away, so that who is not there is dead."""
        if since is None or since != self.since:
            return False
        return time.monotonic() - since > self.target.reconnect

    def close(self) -> None:
        """End it."""
        with self._starting:
            self._closing.set()
        self._woken[1].send(b"\0")
        if self._thread is not None:
            self._thread.join()
        self._settled.set()
        for end in self._woken:
            end.close()

    def forked(self) -> None:
        """Let go of a connection that is another process's: while it is open here, that one would
        not seem dead. To close it would be noticed by whatever has it; nothing is sent this way."""
        if self._connection is not None:
            with suppress(Exception):  # it was just closed
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, self._connection.fileno(), inheritable=False)
                os.close(nothing)

    # ------------------------------------------------------------ in the thread

    def _serve(self) -> None:
        lost_at = time.monotonic()
        while not self._closing.is_set():
            try:
                with self.target.connect(self._closing) as self._connection:
                    self._hold(self._connection)
            except Exception as error:  # noqa: BLE001  (whatever it is, another try may succeed)
                self._connection = None
                if self.since is not None:  # it is missed from now on, so it is tried at once
                    self._settled.clear()
                    self.since, lost_at = None, time.monotonic()
                    continue
                self._failed = error
                if time.monotonic() - lost_at >= self.target.reconnect:
                    self._settled.set()
                self._closing.wait(RETRY_INTERVAL_S)

    def _hold(self, connection: Connection) -> None:
        """Be there until it is closed; raises when the connection is lost."""
        lock = lock_of(self.target, self.name)
        connection.execute("SELECT pg_catalog.pg_advisory_lock_shared(%s)", (lock,))
        self._failed, self.since = None, time.monotonic()
        self._settled.set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken[0], selectors.EVENT_READ)
            selector.register(connection, selectors.EVENT_READ)
            while not self._closing.is_set():
                selector.select()
                if not self._closing.is_set():
                    connection.pgconn.consume_input()
                    connection.execute("SELECT 1")


def _forked() -> None:
    for each in Session.opened:
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
