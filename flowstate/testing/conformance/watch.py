"""Law 7, watch: every matching version exactly once, in order, from any revision."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import pytest

from ...clock import MAX_INSTANT_MS
from ...commands import Transit
from ...driver import Driver
from ...engine import Engine
from ...errors import CompactedError
from ...query import Query
from ...retention import Retention
from ...state import State, Status
from ...watch import Watcher
from ..store import Store
from .base import Crowd, CrowdLaws, Writers, create, move, put, read_all, revs

CROWD_QUERIES = {
    "everything": Query(),
    "label": Query(labels={"writer": "w1"}),
    "any-of": Query(labels=[{"writer": "w0"}, {"place": "2"}]),
    "all-of": Query(labels={"writer": "w1", "turn": "2"}),
    "any-of-all-of": Query(labels=[{"writer": "w0", "turn": "1"}, {"commit": "w2-7"}]),
    "id": Query(id="w1/1"),
    "id-prefix": Query(id_prefix="w2/"),
    "status": Query(status=Status.PAUSED),
    "labels-and-status": Query(labels={"writer": "w0"}, status={Status.PAUSED, Status.ENDED}),
    "nothing": Query(labels={"writer": "nobody"}),
}


class WatchLaws(CrowdLaws):
    @pytest.mark.parametrize("query", CROWD_QUERIES.values(), ids=CROWD_QUERIES)
    async def test_every_match_once_and_in_order(
        self, store: Store, driver: Driver, query: Query
    ) -> None:
        """While others commit, and reconnecting at random places with ``watcher.rev``, a watcher
        is given what the finished log holds for its query: each once, in order."""
        await self._compare(Crowd(store, driver, Writers.TASKS), query)

    async def test_every_match_once_whoever_writes(self, crowd: Crowd) -> None:
        """Whoever writes, tasks, drivers or processes: each match is given once, in order."""
        await self._compare(crowd, Query(labels={"turn": "1"}))

    async def _compare(self, crowd: Crowd, query: Query) -> None:
        driver = crowd.driver
        seen: list[State] = []
        chance = random.Random(1)
        rev = 0
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine:
                async with crowd.working():
                    while not crowd.is_done:
                        watcher = engine.watch(query, after=rev)
                        await _follow(watcher, seen, chance.randrange(1, 40), crowd)
                        rev = watcher.rev
                # the writers are done: what is left is in the log
                left = await read_all(driver, query, after=rev)
                watcher = engine.watch(query, after=rev)
                seen += [await anext(watcher) for _ in left]
        expected = [state for state in await read_all(driver) if query.matches(state)]
        assert revs(seen) == revs(expected)
        assert seen == expected

    async def test_a_watcher_goes_on_from_any_revision(self, driver: Driver) -> None:
        """A watcher that begins after a revision, whichever it is, is given exactly what comes
        later."""
        states = [*(await create(driver, "a", "b")), *(await create(driver, "c"))]
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine:
                for done in range(len(states)):
                    watcher = engine.watch(after=states[done].rev)
                    for state in states[done + 1 :]:
                        assert await anext(watcher) == state
                    states.append(await move(driver, states[0]))
                    states[0] = states[-1]
                    assert await anext(watcher) == states[-1]
                    assert watcher.rev == states[-1].rev

    async def test_from_now_gives_only_what_comes(self, driver: Driver) -> None:
        """A watcher from now on is given nothing of what was there when it began."""
        (a,) = await create(driver, "a")
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine, engine.watch(Query(from_now=True)) as watcher:
                new = await move(driver, a)
                assert await anext(watcher) == new

    async def test_since_gives_what_was_committed_at_or_after(self, driver: Driver) -> None:
        """A watcher since a time is given the versions of that very millisecond and all later
        ones, and none before."""
        states = await states_over_time(driver, ticks=3)
        since = time_between(states)
        expected = [state for state in states if state.committed_at >= since]
        assert 0 < len(expected) < len(states)
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine:
                watcher = engine.watch(Query(since=since))
                assert [await anext(watcher) for _ in expected] == expected
                new = await move(driver, states[-1])
                assert await anext(watcher) == new

    async def test_latest_gives_current_versions_and_then_changes(self, driver: Driver) -> None:
        """A watcher with ``latest`` is given each matching state as it is now, by revision, and
        then every version to come."""
        a, b = await put(
            driver,
            Transit(State("a", labels={"queue": "mail"}), "x"),
            Transit(State("b", labels={"queue": "mail"}), "x"),
        )
        new_a = await move(driver, a)
        moved_away = await put(driver, Transit(b.with_labels(queue="other"), "x"))
        (c,) = await put(driver, Transit(State("c", labels={"queue": "mail"}), "x"))
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine:
                query = Query(labels={"queue": "mail"}, latest=True)
                async with engine.watch(query) as watcher:
                    assert [await anext(watcher) for _ in range(2)] == [new_a, c]
                    newer_a = await move(driver, new_a)
                    newest_a = await move(driver, newer_a)
                    (back,) = await put(
                        driver, Transit(moved_away[0].with_labels(queue="mail"), "x")
                    )
                    assert [await anext(watcher) for _ in range(3)] == [newer_a, newest_a, back]

    async def test_latest_loses_no_state_that_moves_meanwhile(self, crowd: Crowd) -> None:
        """While others commit, a watcher with ``latest`` is given at most one version of each state
        from before it began, the one that was current then, and every version since."""
        driver = crowd.driver
        query = Query(latest=True, labels={"writer": "w0"})
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine, crowd.working():
                while await driver.head() < crowd.size * 10:
                    await driver.wait(await driver.head())
                async with engine.watch(query) as watcher:
                    seen = [await anext(watcher)]
                    while _turn(seen[-1]) < crowd.commits - 1 or not _ends_commit(seen[-1], crowd):
                        seen.append(await anext(watcher))
        log = [state for state in await read_all(driver) if state.labels["writer"] == "w0"]
        assert revs(seen) == sorted(set(revs(seen)))
        # from each state's first version that was seen on, all of them
        for n in range(crowd.size):
            id = f"w0/{n}"
            of_state = [state for state in seen if state.id == id]
            assert of_state == [state for state in log if state.id == id][-len(of_state) :]
            assert of_state

    async def test_many_watchers_each_see_everything(self, driver: Driver) -> None:
        """A hundred watchers of one engine are each given all of it."""
        seen: list[list[State]] = [[] for _ in range(100)]
        states: list[State] = []

        async def follow(watcher: Watcher, into: list[State]) -> None:
            while len(into) < 60:
                into.append(await anext(watcher))

        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine, anyio.create_task_group() as tasks:
                for into in seen:
                    tasks.start_soon(follow, engine.watch(), into)
                for n in range(20):
                    states += await create(driver, *(f"{n}/{k}" for k in range(3)))
        assert all(into == states for into in seen)

    async def test_who_asks_for_compacted_history_is_told(self, driver: Driver) -> None:
        """A watcher that asks for compacted history gets ``CompactedError`` with the revision from
        which the log is whole; one that begins there, with the current versions, from now on or
        since a later time goes on."""
        (a,) = await create(driver, "a")
        b = await move(driver, a)
        c = await move(driver, b)
        await driver.compact(Retention(MAX_INSTANT_MS), 0, 100)
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine:
                for after in (0, a.rev):
                    with pytest.raises(CompactedError) as raised:
                        await anext(engine.watch(after=after))
                    assert (raised.value.after, raised.value.oldest) == (after, b.rev + 1)
                assert await anext(engine.watch(after=b.rev)) == c
                assert await anext(engine.watch(Query(latest=True))) == c
                async with engine.watch(Query(from_now=True)) as watcher:
                    d = await move(driver, c)
                    assert await anext(watcher) == d
                while d.committed_at == c.committed_at:
                    d = await move(driver, d)
                assert await anext(engine.watch(Query(since=d.committed_at))) == d

    async def test_a_watcher_never_skips_what_was_compacted_in_silence(self, crowd: Crowd) -> None:
        """While others commit and the log is compacted close behind them, each version is given
        once, in order, or lies in a gap that a ``CompactedError`` named."""
        driver = crowd.driver
        everything = Retention(MAX_INSTANT_MS)
        seen: list[State] = []
        missed: set[int] = set()

        async def write() -> None:
            await crowd.work()
            await create(driver, "end")

        async def compact() -> None:
            while not crowd.is_done:
                await driver.compact(everything, 0, 50)
                await anyio.lowlevel.checkpoint()

        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine, anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                while not (await driver.compact(everything, 0, 50)).versions:
                    await driver.wait(await driver.head())
                tasks.start_soon(compact)
                rev = 0
                while not (seen and seen[-1].id == "end"):
                    rev = await _watch_on(engine.watch(after=rev), seen, missed)
        written = {ack.first_rev + n for ack in crowd.acks for n in range(crowd.size)}
        assert missed, "it was behind when it began"
        assert revs(seen) == sorted(set(revs(seen)))
        assert written - missed <= set(revs(seen)) <= written | {seen[-1].rev}


async def _watch_on(watcher: Watcher, seen: list[State], missed: set[int]) -> int:
    """Take versions up to the last one, or to compacted history; give the revision to go on at."""
    watcher.page_size = 7
    try:
        async for state in watcher:
            seen.append(state)
            if state.id == "end":
                break
    except CompactedError as error:
        missed.update(range(error.after + 1, error.oldest))
        return error.oldest - 1
    return watcher.rev


async def _follow(watcher: Watcher, seen: list[State], count: int, crowd: Crowd) -> None:
    """Take up to *count* versions; stop waiting once the writers are done."""
    with anyio.CancelScope() as scope:

        async def cut() -> None:
            """Cancel the watcher wherever it is, as when a connection breaks."""
            turns = 0
            while not crowd.is_done and turns < 50 * count:
                turns += 1
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut)
            async for state in watcher:
                seen.append(state)
                count -= 1
                if not count:
                    scope.cancel()
                    break


async def states_over_time(driver: Driver, ticks: int) -> list[State]:
    """Commit until the store's clock has moved *ticks* times, and give the versions."""
    states = list(await create(driver, "a", "b"))
    while ticks:
        latest = await move(driver, states[-1])
        ticks -= latest.committed_at > states[-1].committed_at
        states.append(latest)
    return states


def time_between(states: list[State]) -> int:
    """A time at which some of these versions were committed, some before, and some after."""
    _, _, between, *_ = sorted({state.committed_at for state in states})
    return between


def _turn(state: State) -> int:
    return int(state.labels["commit"].rpartition("-")[2])


def _ends_commit(state: State, crowd: Crowd) -> bool:
    return state.labels["place"] == str(crowd.size - 1)
