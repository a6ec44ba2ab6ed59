"""A proxy before a PostgreSQL server that cuts connections at the COMMIT, before it or after, or
goes silent."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from attrs import define, field

Fault = Literal["before", "after", "silent"]
"""Whether the COMMIT that is cut never reaches the server, or only its answer is lost; or that is
lost and the connection stays."""

COMMIT = b"COMMIT\0"
READY = b"Z\0\0\0\5I"
"""ReadyForQuery, outside a transaction: the server is done with all that it was sent."""
NAME = ".s.PGSQL.5432"


@define(eq=False)
class Proxy:
    """Listens in ``folder``, or on a port of this machine (None), for what is meant for the server
    at ``host`` and ``port``.

    The text of statements must be in each message: use ``prepare=off``. And it must be readable:
    no encryption.
    """

    folder: Path | None
    host: str
    """A name, or the directory of a socket."""
    port: str = "5432"
    faults: deque[Fault] = field(factory=deque)
    cut: int = field(default=0, init=False)
    """Connections that were cut so far."""
    speaks: threading.Event = field(factory=threading.Event, init=False)
    """Cleared, it keeps all connections, takes new ones, and passes nothing on until it is set."""
    was_asked: threading.Event = field(factory=threading.Event, init=False)
    """Set once something is sent to it that it does not pass on."""
    delay_s: float = field(default=0.0, init=False)
    """How long each part of an answer takes that a socket holds at once."""
    parts: int = field(default=0, init=False)
    """Those that were passed on so."""
    reset: int = field(default=0, init=False)
    """Connections whose client gave up what it had not sent."""
    _listener: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        self.speaks.set()
        if self.folder is None:
            self._listener = socket.socket()
            self._listener.bind(("127.0.0.1", 0))
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self.folder / NAME))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.speaks.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def where(self) -> dict[str, str]:
        """The parameters of libpq that name it."""
        if self.folder is not None:
            return {"host": str(self.folder), "port": "5432"}
        return {"host": "127.0.0.1", "port": str(self._listener.getsockname()[1])}

    def _accept(self) -> None:
        with suppress(OSError):  # until it is closed
            while True:
                client, _ = self._listener.accept()
                connection = _Connection(self, client, reach(self.host, self.port))
                for pump in (connection.forth, connection.back):
                    threading.Thread(target=pump, daemon=True).start()


def reach(host: str, port: str) -> socket.socket:
    """A connection to a server, as libpq names it."""
    if not host.startswith("/"):
        return socket.create_connection((host, int(port)))
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{host}/.s.PGSQL.{port}")
    return server


@define(eq=False)
class _Connection:
    proxy: Proxy
    client: socket.socket
    server: socket.socket
    _is_losing: threading.Event = field(factory=threading.Event, init=False)
    _is_silent: bool = field(default=False, init=False)

    def forth(self) -> None:
        try:
            self._forth()
        except ConnectionResetError:
            self.proxy.reset += 1
        except OSError:
            pass
        self._close()

    def _forth(self) -> None:
        while data := self.client.recv(1 << 20):
            if not self.proxy.speaks.is_set():
                self.proxy.was_asked.set()
                self.proxy.speaks.wait()
            if COMMIT in data and self.proxy.faults:
                fault = self.proxy.faults.popleft()
                if fault == "before":
                    self.proxy.cut += 1
                    break
                self._is_silent = fault == "silent"
                self._is_losing.set()
            self.server.sendall(data)

    def back(self) -> None:
        lost = b""
        with suppress(OSError):
            while data := self.server.recv(1 << 20):
                self.proxy.speaks.wait()
                if self.proxy.delay_s:
                    time.sleep(self.proxy.delay_s)
                    self.proxy.parts += 1
                if not self._is_losing.is_set():
                    self.client.sendall(data)
                    continue
                lost += data
                if READY in lost:
                    self.proxy.cut += 1
                    if not self._is_silent:
                        break
        self._close()

    def _close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
