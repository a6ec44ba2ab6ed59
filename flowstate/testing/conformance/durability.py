"""Law 3, durability: a commit outlives its driver, and its process if the driver declares so.

The death of a machine, which ``POWER`` and ``NODE`` are about, cannot be had in a test.
"""

from __future__ import annotations

import anyio
import pytest

from ...commands import Delay, Transit
from ...errors import RevMismatchError
from ...query import Query
from ...state import State
from ..store import Store
from .base import Laws, create, due_at, kill_writers, move, put, read_all
from .runs import EVERYTHING, compact, highest_removed, ref


class DurabilityLaws(Laws):
    async def test_everything_is_there_after_reopening(self, persistent_store: Store) -> None:
        """A driver that is opened after another was closed gives the same: head, log, current
        versions, payloads and due times."""
        async with persistent_store.driver() as driver:
            (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
            await put(driver, Delay(a.with_labels(queue="mail"), to="wake", at=10))
            log = await read_all(driver)
        async with persistent_store.driver() as driver:
            assert await driver.head() == log[-1].rev
            assert await read_all(driver) == log
            assert await driver.get("a") == log[-1]
            assert await driver.find(Query(labels={"queue": "mail"})) == log[-1]
            assert (await driver.due(10, 10)).due == (due_at(log[-1], 10),)
            assert await driver.load(ref(a, "order")) == b"pears"

    async def test_revisions_go_on_after_reopening(self, persistent_store: Store) -> None:
        """A driver that is opened later gives out revisions above those of the last one, and still
        refuses a commit that expects a superseded one."""
        async with persistent_store.driver() as driver:
            (a,) = await create(driver, "a")
        async with persistent_store.driver() as driver:
            new = await move(driver, a)
            with pytest.raises(RevMismatchError):
                await move(driver, a)
        assert new.rev > a.rev

    async def test_what_was_acknowledged_survives_a_killed_process(
        self, process_store: Store
    ) -> None:
        """After ``kill -9`` every acknowledged commit is in the log at its revisions, and the next
        commit is above them."""
        size = 5
        with anyio.fail_after(self.patience_s):
            acks = await kill_writers(process_store, size)
        async with process_store.driver() as driver:
            log = await read_all(driver)
            commit_at = {state.rev: state.labels["commit"] for state in log}
            for ack in acks:
                found = [commit_at.get(ack.first_rev + n) for n in range(size)]
                assert found == [ack.commit_id] * size
            latest = await driver.get("w2/0")
            assert latest is not None
            assert (await move(driver, latest)).rev > log[-1].rev

    async def test_what_was_removed_is_known_after_reopening(self, persistent_store: Store) -> None:
        """After a compaction, a driver that is opened later gives the head, the log and
        ``compacted`` as the last one left them, and knows which payloads are referred to."""
        async with persistent_store.driver() as driver:
            (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
            carrying = await move(driver, a)
            await compact(driver, EVERYTHING)
        async with persistent_store.driver() as driver:
            assert await driver.head() == carrying.rev
            assert await read_all(driver) == [carrying]
            assert await highest_removed(driver) == a.rev
            assert await driver.load(ref(a, "order")) == b"pears"
            await put(driver, Transit(State("a", rev=carrying.rev), "x"))
            assert (await compact(driver, EVERYTHING)).payloads == 1
