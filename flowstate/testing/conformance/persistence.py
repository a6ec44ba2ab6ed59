"""A store that outlives its driver."""

from __future__ import annotations

from ...commands import Delay, Transit
from ...data import DataRef
from ...leases import Due
from ...query import Query
from ...state import State
from ..store import Store
from .base import Laws, create, move, put, read_all


class PersistenceLaws(Laws):
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
            assert (await driver.due(10, ["wake"], 10)).due == (Due(log[-1], 10),)
            ref = a.data["order"]
            assert isinstance(ref, DataRef)
            assert await driver.load(ref) == b"pears"

    async def test_revisions_go_on_after_reopening(self, persistent_store: Store) -> None:
        """No revision is given out twice, whoever opens the store, and expectations still count."""
        async with persistent_store.driver() as driver:
            (a,) = await create(driver, "a")
        async with persistent_store.driver() as driver:
            new = await move(driver, a)
        assert new.rev > a.rev
