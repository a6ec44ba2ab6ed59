"""The thread that looks for commits of other processes ends whenever it is asked to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flowstate import connect
from flowstate.drivers.poller import Poller
from flowstate.drivers.sqlite import SQLiteDriver
from flowstate.drivers.sqlite.connection import File
from flowstate.drivers.sqlite.poller import FileSource

pytestmark = pytest.mark.anyio

PATIENCE_S = 10


async def test_closing_just_before_the_thread_goes_to_rest_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with connect(f"sqlite:///{path}") as driver:
        assert isinstance(driver, SQLiteDriver)
        poller = Poller(FileSource(File(str(path))), driver._head, "poller")

        class ClosedJustBefore(threading.Event):
            """Does what closing does in the moment in which it could be lost."""

            def clear(self) -> None:
                poller._closing.set()
                self.set()
                super().clear()

        poller._wanted = ClosedJustBefore()
        with poller.watching():
            pass
        assert poller._thread is not None
        poller._thread.join(PATIENCE_S)
        assert not poller._thread.is_alive()
