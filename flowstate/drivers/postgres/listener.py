"""Noticing what other processes commit: ``LISTEN``, and a look now and then in case that fails."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable

from attrs import define, field
from psycopg import errors
from psycopg.sql import SQL, Identifier

from ..poller import Seen, Source
from .connection import Target
from .errors import translated
from .session import Connection

LISTENING_INTERVAL_S = 0.5
"""Between two looks while listening: how late a commit is noticed whose hint was lost."""
POLLING_INTERVAL_S = 0.02
"""Between two looks where nothing is notified."""
RETRY_INTERVAL_S = 0.2
"""Between two tries to reach the server."""


@define(eq=False)
class ServerSource(Source):
    """A connection that listens while somebody waits, and asks for the head after each hint."""

    linger = 2

    target: Target
    own: Callable[[], tuple[int, int]]
    """The process id of the server's side of the writer, and the newest revision it wrote."""
    closing: threading.Event
    """Set once the driver is being closed."""
    _connection: Connection | None = field(default=None, init=False)
    _can_listen: bool = field(init=False)
    _is_listening: bool = field(default=False, init=False)
    _is_stale: bool = field(default=True, init=False)
    """Whether there may be more than was seen."""
    _seen: Seen = field(default=Seen(0, 0), init=False)
    _woken: tuple[socket.socket, socket.socket] = field(factory=socket.socketpair, init=False)

    def __attrs_post_init__(self) -> None:
        self._can_listen = self.target.notify

    @property
    def patience_s(self) -> float:
        return self.target.reconnect

    def look(self) -> Seen | None:
        with translated(self.target):
            return self._look()

    def pause(self) -> None:
        interval = RETRY_INTERVAL_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken[0], selectors.EVENT_READ)
            if self._connection is not None:
                if self._is_stale:
                    return
                selector.register(self._connection, selectors.EVENT_READ)
                interval = LISTENING_INTERVAL_S if self._is_listening else POLLING_INTERVAL_S
            ready = {chosen.fileobj for chosen, _ in selector.select(interval)}
        if self._woken[0] in ready:
            self._woken[0].recv(1_000)
        if self._connection in ready:
            self._hear(self._connection)
        self._is_stale |= not ready

    def rest(self) -> None:
        # else what nobody reads would pile up, in the end for all who notify on that server
        if self._connection is not None and self._is_listening:
            self._connection.execute("UNLISTEN *")
        self._is_listening = False
        self._is_stale = True

    def wake(self) -> None:
        self._woken[1].send(b"\0")

    def reset(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._can_listen = self.target.notify
        self._is_listening = False
        self._is_stale = True

    def close(self) -> None:
        self.reset()
        for end in self._woken:
            end.close()

    # ------------------------------------------------------------ inside

    def _look(self) -> Seen:
        if self._connection is None:
            self._connection = self.target.connect(self.closing)
            self._connection.add_notify_handler(lambda notify: self._heard(notify.pid))
        if self._can_listen and not self._is_listening:
            self._listen(self._connection)
        if self._is_stale:
            self._is_stale = False  # what is heard from now on may be newer than what is found
            row = self._connection.execute(
                self.target.sql("SELECT rev, hints FROM {s}.head"), (), binary=True
            ).fetchone()
            if row is not None:
                self._seen = Seen(*row)
        return self._seen

    def _listen(self, connection: Connection) -> None:
        try:
            connection.execute(SQL("LISTEN {}").format(Identifier(self.target.channel)))
        except (errors.ReadOnlySqlTransaction, errors.FeatureNotSupported):
            self._can_listen = False  # a standby, or a pooler: it is asked often, then
        else:
            self._is_listening = True
        self._is_stale = True

    def _hear(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            self._heard(notify.be_pid)

    def _heard(self, pid: int) -> None:
        own_pid, newest = self.own()
        if pid != own_pid:
            self._is_stale = True
        elif newest > self._seen.rev:  # nothing to ask for
            self._seen = self._seen._replace(rev=newest)
