"""A proxy before a PostgreSQL server that cuts connections at the COMMIT, before it or after."""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from attrs import define, field

Fault = Literal["before", "after"]
"""Whether the COMMIT that is cut never reaches the server, or only its answer is lost."""

COMMIT = b"COMMIT\0"
READY = b"Z\0\0\0\5I"
"""ReadyForQuery, outside a transaction: the server is done with all that it was sent."""
NAME = ".s.PGSQL.5432"


@define(eq=False)
class Proxy:
    """Listens in ``folder`` for what is meant for the server at ``host`` and ``port``.

    The text of statements must be in each message: use ``prepare=off``. And it must be readable:
    no encryption.
    """

    folder: Path
    host: str
    """A name, or the directory of a socket."""
    port: str = "5432"
    faults: deque[Fault] = field(factory=deque)
    cut: int = field(default=0, init=False)
    """Connections that were cut so far."""
    _listener: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / NAME))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

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

    def forth(self) -> None:
        with suppress(OSError):
            while data := self.client.recv(1 << 20):
                if COMMIT in data and self.proxy.faults:
                    if self.proxy.faults.popleft() == "before":
                        self.proxy.cut += 1
                        break
                    self._is_losing.set()
                self.server.sendall(data)
        self._close()

    def back(self) -> None:
        lost = b""
        with suppress(OSError):
            while data := self.server.recv(1 << 20):
                if not self._is_losing.is_set():
                    self.client.sendall(data)
                    continue
                lost += data
                if READY in lost:
                    self.proxy.cut += 1
                    break
        self._close()

    def _close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
