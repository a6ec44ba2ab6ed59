"""Compaction: in bounded batches, each all or nothing to everyone, and told of."""

from __future__ import annotations

import sys

import anyio
import anyio.lowlevel
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from ...clock import MAX_INSTANT_MS
from ...commands import Command, End, Transit
from ...driver import Driver, Durability
from ...errors import RevMismatchError
from ...plan import references
from ...query import Query
from ...retention import Compaction, Retention
from ...state import State, Status
from ..store import Store
from .base import Crowd, CrowdLaws, Laws, create, move, plan, put, read_all, revs
from .read import write_varied
from .retention import EVERYTHING, WITH_ENDED, batches, compact, ref, rev_of, stored
from .watch import states_over_time, time_between

LIMITS = (1, 2, 7, 1_000)


class BatchLaws(CrowdLaws):
    """One batch: bounded, atomic, and told of."""

    @pytest.mark.parametrize("limit", LIMITS)
    async def test_a_batch_looks_at_no_more_than_the_limit(
        self, store: Store, driver: Driver, limit: int
    ) -> None:
        """It says how far it looked; what it removed lies between, and after the last one all is
        as after one large batch."""
        log = await write_varied(driver)
        after, is_done = 0, False
        while not is_done:
            before = stored(store)
            batch = await driver.compact(WITH_ENDED, after, limit)
            gone = [rev for rev, _ in before if (rev, _) not in stored(store)]
            looked = [rev for rev, _ in before if after < rev <= batch.upto]
            assert len(looked) <= limit
            assert set(gone) <= set(looked)
            assert len(gone) == batch.versions
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
        """Times ascend with revisions: above it nothing can be old enough."""
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
        ids=lambda it: f"keep-{it.keep}{'-ended' * it.ended}",
    )
    async def test_a_dry_run_counts_the_same_and_removes_nothing(
        self, store: Store, driver: Driver, limit: int, retention: Retention
    ) -> None:
        """Batch by batch: versions, states, payloads and bytes, and how far it looked."""
        await _write_shared_payloads(driver)
        before = stored(store), sorted(store.raw_payloads())
        counted = [batch async for batch in batches(driver, retention, limit, dry_run=True)]
        assert (stored(store), sorted(store.raw_payloads())) == before
        assert await _floor(driver) == 0
        assert counted == [batch async for batch in batches(driver, retention, limit)]
        assert sum(batch.versions for batch in counted) == len(before[0]) - len(stored(store))
        assert sum(batch.payloads for batch in counted) == len(before[1]) - len(
            store.raw_payloads()
        )

    async def test_a_page_says_what_was_removed(self, driver: Driver) -> None:
        """``compacted`` is the highest revision that was ever removed, whatever is asked for and
        wherever the page begins; above it the log is whole."""
        a, b = await create(driver, "a", "b")
        assert await _floor(driver) == 0
        new_a = await move(driver, a)
        newer_a = await move(driver, new_a)
        await compact(driver, EVERYTHING, until=b.rev)
        assert await _floor(driver) == a.rev
        await compact(driver, EVERYTHING)
        for query in (Query(), Query(id="b"), Query(labels={"no": "such"}), Query(latest=True)):
            for after in (0, a.rev, newer_a.rev):
                assert (await driver.read(query, after, 10)).compacted == new_a.rev
        await create(driver, "c")
        assert await _floor(driver) == new_a.rev

    async def test_what_was_removed_is_not_told_to_be_less_by_a_later_batch(
        self, driver: Driver
    ) -> None:
        """Also if what that one removes lies lower."""
        a, b = await create(driver, "a", "b")
        await put(driver, Transit(a, "x"), Transit(b, "x"))
        await compact(driver, EVERYTHING, after=a.rev)
        assert await driver.get("a", a.rev) == a
        assert await _floor(driver) == b.rev
        assert (await compact(driver, EVERYTHING)).versions == 1
        assert await _floor(driver) == b.rev

    async def test_what_was_removed_before_the_time_asked_for_does_not_count(
        self, driver: Driver
    ) -> None:
        """With ``since``, a page tells of removed versions only if they may have been committed at
        that time or later."""
        states = await states_over_time(driver, ticks=4)
        await compact(driver, EVERYTHING, until=states[len(states) // 2].rev)
        floor = await _floor(driver)
        newest_gone = next(state for state in states if state.rev == floor).committed_at
        page = await driver.read(Query(since=newest_gone), 0, 10)
        assert page.compacted == floor
        page = await driver.read(Query(since=newest_gone + 1), 0, 10)
        assert page.compacted == 0

    async def test_a_reader_never_sees_half_a_batch(self, driver: Driver) -> None:
        """While batches are removed, each page holds exactly what is left if all is gone up to its
        ``compacted``, and nothing above it."""
        states = list(await create(driver, *(f"{n}" for n in range(40))))
        for _ in range(5):
            states = list(await put(driver, *(Transit(state, "x") for state in states)))
        log = await read_all(driver)
        left = revs(states)
        floors: set[int] = set()
        done = anyio.Event()

        async def read() -> None:
            while not done.is_set():
                page = await driver.read(Query(), 0, 10_000)
                floors.add(page.compacted)
                expected = [
                    state.rev for state in log if state.rev > page.compacted or state.rev in left
                ]
                assert revs(page.versions) == expected
                await anyio.lowlevel.checkpoint()

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                tasks.start_soon(read)
                async for _ in batches(driver, EVERYTHING, limit=3):
                    await anyio.lowlevel.checkpoint()
                done.set()
        assert len(floors) > 2, "it was seen on the way"

    async def test_commits_go_on_between_batches(self, driver: Driver, crowd: Crowd) -> None:
        """While others commit, also from other processes: nothing that they were told is lost,
        each state is where its last commit left it, and in the end only that is left."""
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
        """Several may compact a store at the same time, and count together what is gone."""
        await _write_shared_payloads(driver)
        before = len(stored(shared_store)), len(shared_store.raw_payloads())
        counted: list[Compaction] = []

        async def run(one: Driver) -> None:
            counted.extend([batch async for batch in batches(one, WITH_ENDED, limit=2)])

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
        """What is gone is gone for all, and all are told."""
        (a,) = await create(driver, "a")
        async with shared_store.driver() as other:
            assert await other.get("a", a.rev) == a
            new = await move(driver, a)
            await compact(driver, EVERYTHING)
            assert await other.get("a", a.rev) is None
            assert await read_all(other) == [new]
            assert await _floor(other) == a.rev

    async def test_what_was_removed_is_known_after_reopening(self, persistent_store: Store) -> None:
        """Head, log and ``compacted`` are as the last driver left them, and so are references."""
        async with persistent_store.driver() as driver:
            (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
            carrying = await move(driver, a)
            await compact(driver, EVERYTHING)
        async with persistent_store.driver() as driver:
            assert await driver.head() == carrying.rev
            assert await read_all(driver) == [carrying]
            assert await _floor(driver) == a.rev
            assert await driver.load(ref(a, "order")) == b"pears"
            await put(driver, Transit(State("a", rev=carrying.rev), "x"))
            assert (await compact(driver, EVERYTHING)).payloads == 1

    async def test_a_killed_run_leaves_whole_batches(self, process_store: Store) -> None:
        """After ``kill -9`` all is gone up to ``compacted`` that may go, and nothing above it;
        payloads are those that versions refer to; and another run does the rest."""
        async with process_store.driver() as driver:
            if driver.durability < Durability.PROCESS:
                pytest.skip("the driver does not declare that commits survive the process")
            for n in range(4):
                await _write_shared_payloads(driver, f"{n}/")
            log = await read_all(driver)
        floors: list[int] = []
        for batches_before in (1, 2, 5):
            with anyio.fail_after(self.patience_s):
                await _kill_after(process_store, batches_before)
            async with process_store.driver() as driver:
                floors.append(await _floor(driver))
                left = await read_all(driver)
                assert left == _left(log, floors[-1])
                assert set(process_store.raw_payloads()) == {
                    (one.rev, one.checksum) for state in left for one in references(state)
                }
        assert 0 < floors[0] < log[-1].rev - 10, "it was killed on the way"
        async with process_store.driver() as driver:
            await compact(driver, WITH_ENDED)
            assert await read_all(driver) == _left(log, log[-1].rev)


class CompactedOutcomeLaws(Laws):
    """What a commit that is committed again gives after compaction."""

    async def test_an_outcome_is_known_while_a_version_of_it_is_left(
        self, store: Store, driver: Driver
    ) -> None:
        """Also what else the commit wrote is given then, as it was written."""
        a, b = await create(driver, "a", "b")
        both = plan(Transit(b.attach("order", b"pears"), "x"), Transit(a, "x"))
        outcome = await driver.commit(both)
        await move(driver, outcome[0])
        await compact(driver, EVERYTHING)
        assert await driver.get("b", outcome[0].rev) is None
        before = stored(store)
        assert await driver.commit(both) == outcome
        assert stored(store) == before

    async def test_when_all_that_a_commit_wrote_is_gone_it_is_refused(
        self, store: Store, driver: Driver
    ) -> None:
        """Nobody can tell any more that it happened: its states have moved on, so it conflicts."""
        (a,) = await create(driver, "a")
        once = plan(Transit(a, "x"))
        (moved,) = await driver.commit(once)
        new = await move(driver, moved)
        await compact(driver, EVERYTHING)
        before = stored(store)
        with pytest.raises(RevMismatchError) as refused:
            await driver.commit(once)
        assert refused.value.conflicts == {"a": (a.rev, new.rev)}
        assert stored(store) == before

    async def test_what_went_whole_can_be_created_again_by_the_same_plan(
        self, driver: Driver
    ) -> None:
        """The store has forgotten that state: the plan that created it holds once more."""
        once = plan(End(State("a")))
        (first,) = await driver.commit(once)
        await create(driver, "newest")
        await compact(driver, WITH_ENDED)
        (again,) = await driver.commit(once)
        assert again.rev > first.rev
        assert await driver.commit(once) == (again,)


async def _floor(driver: Driver) -> int:
    """The highest revision that was ever removed."""
    return (await driver.read(Query(), 0, 1)).compacted


def _left(log: list[State], floor: int) -> list[State]:
    """What is left when all that may go is gone up to a revision."""
    current = {state.id: state for state in log}
    over = {id for id, state in current.items() if state.transition.status is Status.ENDED}
    return [
        state
        for state in log
        if state.rev > floor
        or state is log[-1]
        or (current[state.id] is state and state.id not in over)
    ]


async def _kill_after(store: Store, batches: int) -> None:
    """Start a process that compacts, and kill it once it told of so many batches."""
    command = [sys.executable, "-m", "flowstate.testing.compactor", store.url, "3"]
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdout is not None
        out = BufferedByteReceiveStream(process.stdout)
        for _ in range(batches):
            await out.receive_until(b"\n", 1_000)
        process.kill()


async def _write_shared_payloads(driver: Driver, prefix: str = "") -> None:
    """States that bring payloads, carry them on, share them and drop them; some end."""
    states = [
        State(f"{prefix}{n}").attach("own", b"%d" % n).attach("common", b"all") for n in range(6)
    ]
    states = list(await put(driver, *(Transit(state, "x") for state in states)))
    for turn in range(5):
        for n, state in enumerate(states):
            if state.transition.status is Status.ENDED:
                continue
            moved = state
            if turn == n % 3:
                moved = moved.attach("taken", states[(n + 1) % 6].data["own"])
            if turn == 2:
                moved = moved.attach("own", b"new %d" % n)
            if turn == 3 and n % 2:
                moved = State(state.id, rev=state.rev).stack("before", state)
            command: Command[State] = End(moved) if turn == 4 and n < 3 else Transit(moved, "x")
            (states[n],) = await put(driver, command)
