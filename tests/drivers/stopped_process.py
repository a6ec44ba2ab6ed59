"""A process that stops itself in the middle of a transaction: ``python -m
tests.drivers.stopped_process URL WHERE TRANSACTION_TIMEOUT``, with one of ``WHERE`` below. Once it
is continued it goes on as if nothing had been."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from typing import Any, TypeAlias

import anyio
from psycopg.waiting import Wait

from flowstate import Driver, Pause, RevMismatchError, State
from flowstate.drivers.postgres import writer
from flowstate.drivers.postgres.session import Connection
from flowstate.testing.conformance.base import put

from .wrapped import WRITES, before, driver_through

WHERE = {"sends": WRITES, "reads": "CROSS JOIN LATERAL", "claims": "FOR UPDATE OF s SKIP LOCKED"}
"""Having sent half of a message; or a statement, before it reads the answer, which no socket holds:
in a commit, and in a claim. For each, what is in that statement."""
TEXT = "x" * 8_000_000
"""More than all that is between the two can hold."""

Waiting: TypeAlias = Generator[Any, Any, Any]


def stop_once(where: str) -> Any:
    """Something to do before that statement."""
    is_near = False
    was_stopped = False

    def near(_: Connection) -> None:
        nonlocal is_near
        is_near = not was_stopped

    def is_there(connection: Connection, wanted: Wait) -> bool:
        if where == "sends":
            return connection.pgconn.flush() == 1  # some of it is sent, and not all
        return wanted == Wait.R

    def watched(connection: Connection, gen: Waiting) -> Waiting:
        nonlocal is_near, was_stopped
        try:
            wanted = next(gen)
            while True:
                if is_near and is_there(connection, wanted):
                    is_near, was_stopped = False, True
                    # to this thread: another one may be slow to see it, while this one goes on
                    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
                wanted = gen.send((yield wanted))
        except StopIteration as end:
            return end.value

    waits = Connection.wait

    def wait(self: Connection, gen: Waiting, *given: Any, **options: Any) -> Any:
        return waits(self, watched(self, gen), *given, **options)

    Connection.wait = wait  # type: ignore[method-assign]
    return near


async def main(url: str, where: str, transaction_timeout: str) -> None:
    writer.TRANSACTION_TIMEOUT = transaction_timeout
    async with driver_through(url, before({WHERE[where]: stop_once(where)})) as driver:
        await DOES[where](driver)


async def send(driver: Driver) -> None:
    await put(driver, Pause(State("stopped", annotations={"text": TEXT})))


async def read(driver: Driver) -> None:
    """A commit that loses to a version which is large."""
    try:
        await put(driver, Pause(State("large")))
    except RevMismatchError:
        return


async def claim(driver: Driver) -> None:
    assert await driver.claim({"work": 1}, 1, "w", "1", 5)


DOES = {"sends": send, "reads": read, "claims": claim}

if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
