"""Presence: where a store can tell who is there, it knows at once that a process has died."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from ...driver import Driver
from ...leases import owner_in
from ..store import Store
from .base import Laws, hand_out

LOOK_S = 0.01
"""Between two looks for what has to be seen."""


class PresenceLaws(Laws):
    """For drivers that have a ``session`` once they are open. It may be seen late that it is over,
    and may not be known at all for a while: the laws are proved on ``presence_store``."""

    def presence_store(self, tmp_path: Path) -> Store:
        """A store as ``new_store`` gives it, which is as quick to know as it can be."""
        return self.new_store(tmp_path)

    @pytest.fixture
    async def present(self, tmp_path: Path) -> Store:
        """That store; the test is skipped if its drivers have no sessions."""
        store = self.presence_store(tmp_path)
        async with store.driver() as driver:
            if not driver.session:
                pytest.skip("its drivers have no sessions that others could look for")
        if not store.shared:
            pytest.skip("the store does not declare that drivers may share it")
        return store

    async def test_a_session_is_seen_until_its_driver_is_closed(self, present: Store) -> None:
        """From when it attends, for others and for itself; afterwards it is over, also if the
        driver is opened again, which begins another one."""
        async with present.driver() as watcher:
            await watcher.attend()
            worker = present.driver()
            async with worker:
                await worker.attend()
                assert worker.attends
                first = owner_in("worker", worker.session)
                await hand_out(worker, "a", owner=first, until=50)
                assert await watcher.owners() == {first: True}
                assert await worker.owners() == {first: True}
            async with worker:
                second = owner_in("worker", worker.session)
                assert second != first
                await worker.attend()
                await hand_out(worker, "b", owner=second)
                await self._see(watcher, {first: False, second: True})
            await self._see(watcher, {first: False, second: False})
            mine = owner_in("watcher", watcher.session)
            await hand_out(watcher, "c", owner=mine)
            assert (await watcher.owners())[mine] is True

    async def test_drivers_of_one_process_are_there_for_themselves(self, present: Store) -> None:
        """Each has a session of its own, and one that is closed ends no other."""
        async with present.driver() as watcher, present.driver() as stays:
            async with present.driver() as leaves:
                for driver in (watcher, stays, leaves):
                    await driver.attend()
                stayed = owner_in("worker", stays.session)
                left = owner_in("worker", leaves.session)
                await hand_out(leaves, "a", owner=left)
                await hand_out(stays, "b", owner=stayed)
                assert await watcher.owners() == {left: True, stayed: True}
            await self._see(watcher, {left: False, stayed: True})
            async with present.driver():  # one more comes and goes
                pass
            assert await watcher.owners() == {left: False, stayed: True}

    async def test_the_session_of_a_process_that_was_killed_is_over(self, present: Store) -> None:
        """It said nothing any more; the store knows it all the same."""
        if not present.processes:
            pytest.skip("the store does not declare that processes may share it")
        command = [sys.executable, "-m", "flowstate.testing.attendee", present.url]
        async with present.driver() as watcher:
            await watcher.attend()
            async with await anyio.open_process(command, stderr=None) as process:
                assert process.stdout is not None
                out = BufferedByteReceiveStream(process.stdout)
                with anyio.fail_after(self.patience_s):
                    session = (await out.receive_until(b"\n", 1_000)).decode()
                owner = owner_in("worker", session)
                await hand_out(watcher, "a", owner=owner, until=50)
                assert await watcher.owners() == {owner: True}
                process.kill()
            await self._see(watcher, {owner: False})

    async def test_nobody_knows_of_whom_has_no_session_here(self, present: Store) -> None:
        """An owner without a session may be there or not; one with that of another store is not
        seen, whoever is there in that one."""
        async with present.driver() as watcher:
            await watcher.attend()
            other = owner_in("worker", watcher.session[::-1])
            await hand_out(watcher, "a", owner="worker")
            await hand_out(watcher, "b", owner=other)
            owners = await watcher.owners()
            assert owners["worker"] is None
            assert owners[other] is not True

    async def _see(self, watcher: Driver, expected: dict[str, bool]) -> None:
        """Return once this is what a driver knows. What may be wrong is that it does not know."""
        with anyio.fail_after(self.patience_s):
            while (owners := await watcher.owners()) != expected:
                odd = {owner: owners[owner] for owner in expected if expected[owner]}
                assert all(odd.values()), f"{odd} are there"
                await anyio.sleep(LOOK_S)
