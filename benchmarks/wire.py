"""A wire to a server of PostgreSQL that takes a while: what a network does to who commits.

``python -m benchmarks.wire FOLDER HOST PORT DELAY`` listens in a folder for what is meant for the
server, and hands on each byte DELAY seconds after it came, both ways; a process of its own, so that
it takes no turn from whom it serves. It ends with its standard input.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from tests.postgres import target, with_options
from tests.proxy import NAME, reach

CHUNK_BYTES = 1 << 20


@contextmanager
def delayed(url: str, round_trip_s: float) -> Iterator[str]:
    """A URL for the same store, with a wire in between that takes so long there and back."""
    where = target(url).parameters
    server = (where["host"], where.get("port", "5432"))
    with tempfile.TemporaryDirectory(prefix="flowstate-wire-") as folder:
        command = [sys.executable, "-m", "benchmarks.wire", folder, *server, str(round_trip_s / 2)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield with_options(url, host=folder, port="5432")
            finally:
                process.stdin.close()


def listen(folder: Path, host: str, port: str, delay: float) -> None:
    """Take connections for as long as the process lives."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / NAME))
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            client, _ = listener.accept()
            server = reach(host, port)
            for source, sink in ((client, server), (server, client)):
                way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                threading.Thread(target=take, args=(source, way, delay), daemon=True).start()
                threading.Thread(target=hand_on, args=(way, sink), daemon=True).start()


def take(source: socket.socket, way: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            way.put((time.monotonic() + delay, data))
    way.put((0, b""))


def hand_on(way: SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
    with suppress(OSError):
        while (item := way.get())[1]:
            time.sleep(max(0, item[0] - time.monotonic()))
            sink.sendall(item[1])
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    folder, host, port, delay = sys.argv[1:]
    arguments = (Path(folder), host, port, float(delay))
    threading.Thread(target=listen, args=arguments, daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # whoever still sleeps is not waited for
