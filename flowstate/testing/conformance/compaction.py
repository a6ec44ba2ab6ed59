"""Compaction: bounded batches, while others read and commit; pages say what was removed."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from ...clock import MAX_INSTANT_MS
from ...commands import Transit
from ...driver import Driver
from ...query import Query
from ...retention import Compaction, Retention
from ...state import Status
from ..store import Store
from .base import Crowd, CrowdLaws, create, move, put, read_all
from .read import write_varied
from .runs import (
    EVERYTHING,
    WITH_ENDED,
    batches,
    compact,
    highest_removed,
    ref,
    rev_of,
    stored,
    write_shared_payloads,
)
from .watch import states_over_time, time_between

LIMITS = (1, 2, 7, 1_000)


class BatchLaws(CrowdLaws):
    @pytest.mark.parametrize("limit", LIMITS)
    async def test_a_batch_looks_at_no_more_than_the_limit(
        self, store: Store, driver: Driver, limit: int
    ) -> None:
        """A batch looks at no more versions than its limit, says how far it looked, and removes
        only what lies there; all batches together remove what one large batch does."""
        log = await write_varied(driver)
        after, is_done = 0, False
        while not is_done:
            before = stored(store)
            batch = await driver.compact(WITH_ENDED, after, limit)
            removed = [rev for rev, id in before if (rev, id) not in stored(store)]
            looked = [rev for rev, _ in before if after < rev <= batch.upto]
            assert len(looked) <= limit
            assert set(removed) <= set(looked)
            assert len(removed) == batch.versions
            assert batch.upto > after or batch.done
            after, is_done = batch.upto, batch.done
        latest = {state.id: state for state in log}
        expected = [
            state
            for state in latest.values()
            if state.transition.status is not Status.ENDED or state is log[-1]
        ]
        assert await read_all(driver) == sorted(expected, key=rev_of)

    async def test_a_run_ends_at_the_first_version_that_is_young_enough(
        self, driver: Driver
    ) -> None:
        """A run ends at the first version that is young enough, for none above it can be older."""
        states = await states_over_time(driver, ticks=3)
        before = time_between(states)
        old = [state.rev for state in states if state.committed_at < before]
        batch = await driver.compact(Retention(before), 0, 100_000)
        assert (batch.upto, batch.done) == (old[-1], True)
        again = await driver.compact(Retention(before), batch.upto, 100_000)
        assert again == Compaction(batch.upto, done=True)

    @pytest.mark.parametrize("limit", LIMITS)
    @pytest.mark.parametrize(
        "retention",
        [Retention(MAX_INSTANT_MS, keep, ended) for keep in (1, 2) for ended in (False, True)],
        ids=lambda retention: f"keep-{retention.keep}{'-ended' * retention.ended}",
    )
    async def test_a_dry_run_counts_the_same_and_removes_nothing(
        self, store: Store, driver: Driver, limit: int, retention: Retention
    ) -> None:
        """A dry run removes nothing, and gives for each batch the counts that a real run gives."""
        await write_shared_payloads(driver)
        before = stored(store), sorted(store.raw_payloads())
        counted = [batch async for batch in batches(driver, retention, limit, dry_run=True)]
        assert (stored(store), sorted(store.raw_payloads())) == before
        assert await highest_removed(driver) == 0
        assert counted == [batch async for batch in batches(driver, retention, limit)]
        assert sum(batch.versions for batch in counted) == len(before[0]) - len(stored(store))
        assert sum(batch.payloads for batch in counted) == len(before[1]) - len(
            store.raw_payloads()
        )

    async def test_a_page_says_what_was_removed(self, driver: Driver) -> None:
        """``compacted`` of a page is the highest revision that was ever removed, whatever the query
        and wherever the page begins; above it the log is whole."""
        a, b = await create(driver, "a", "b")
        assert await highest_removed(driver) == 0
        new_a = await move(driver, a)
        newer_a = await move(driver, new_a)
        await compact(driver, EVERYTHING, until=b.rev)
        assert await highest_removed(driver) == a.rev
        await compact(driver, EVERYTHING)
        for query in (Query(), Query(id="b"), Query(labels={"no": "such"}), Query(latest=True)):
            for after in (0, a.rev, newer_a.rev):
                assert (await driver.read(query, after, 10)).compacted == new_a.rev
        await create(driver, "c")
        assert await highest_removed(driver) == new_a.rev

    async def test_what_was_removed_is_not_told_to_be_less_by_a_later_batch(
        self, driver: Driver
    ) -> None:
        """``compacted`` does not fall when a later batch removes lower revisions."""
        a, b = await create(driver, "a", "b")
        await put(driver, Transit(a, "x"), Transit(b, "x"))
        await compact(driver, EVERYTHING, after=a.rev)
        assert await driver.get("a", a.rev) == a
        assert await highest_removed(driver) == b.rev
        assert (await compact(driver, EVERYTHING)).versions == 1
        assert await highest_removed(driver) == b.rev

    async def test_what_was_removed_before_the_time_asked_for_does_not_count(
        self, driver: Driver
    ) -> None:
        """With ``since``, ``compacted`` is 0 if all that was removed was committed before that
        time."""
        states = await states_over_time(driver, ticks=4)
        await compact(driver, EVERYTHING, until=states[len(states) // 2].rev)
        removed = await highest_removed(driver)
        removed_at = next(state for state in states if state.rev == removed).committed_at
        page = await driver.read(Query(since=removed_at), 0, 10)
        assert page.compacted == removed
        page = await driver.read(Query(since=removed_at + 1), 0, 10)
        assert page.compacted == 0

    async def test_commits_go_on_between_batches(self, driver: Driver, crowd: Crowd) -> None:
        """While a store is compacted, others commit, from other processes too: no acknowledged
        commit is lost, and in the end exactly the current versions are left."""
        removed = 0
        with anyio.fail_after(self.patience_s):
            async with crowd.working():
                while not crowd.is_done:
                    async for batch in batches(driver, EVERYTHING, limit=20):
                        removed += batch.versions
                        await anyio.lowlevel.checkpoint()
        removed += (await compact(driver, EVERYTHING)).versions
        commits = crowd.writers * crowd.commits
        assert len(crowd.acks) == commits
        left = await read_all(driver)
        assert len(left) == crowd.writers * crowd.size
        assert removed == commits * crowd.size - len(left)
        for state in left:
            assert state.labels["commit"].endswith(f"-{crowd.commits - 1}")
            content = await driver.load(ref(state, "turn"))
            assert content.decode() == state.labels["commit"]
        assert await driver.head() == left[-1].rev

    async def test_two_runs_at_once_remove_each_version_once(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """Several drivers may compact a store at the same time, and count each removed version
        once."""
        await write_shared_payloads(driver)
        before = len(stored(shared_store)), len(shared_store.raw_payloads())
        counted: list[Compaction] = []

        async def run(runner: Driver) -> None:
            counted.extend([batch async for batch in batches(runner, WITH_ENDED, limit=2)])

        async with shared_store.driver() as other, anyio.create_task_group() as tasks:
            tasks.start_soon(run, driver)
            tasks.start_soon(run, other)
        after = len(stored(shared_store)), len(shared_store.raw_payloads())
        assert sum(batch.versions for batch in counted) == before[0] - after[0]
        assert sum(batch.payloads for batch in counted) == before[1] - after[1]
        assert (await compact(driver, WITH_ENDED)).versions == 0

    async def test_another_driver_sees_what_was_removed(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """What one driver removed is removed for every driver, and their pages say so."""
        (a,) = await create(driver, "a")
        async with shared_store.driver() as other:
            assert await other.get("a", a.rev) == a
            new = await move(driver, a)
            await compact(driver, EVERYTHING)
            assert await other.get("a", a.rev) is None
            assert await read_all(other) == [new]
            assert await highest_removed(other) == a.rev
