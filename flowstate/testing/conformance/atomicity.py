"""Law 2, atomicity: all of a commit or nothing, to everyone, also after ``kill -9``."""

from __future__ import annotations

from collections import Counter, defaultdict

import anyio
import anyio.lowlevel
import pytest

from ...commands import Delay, Require, Transit
from ...data import DataRef
from ...driver import Driver, Durability
from ...engine import Engine
from ...errors import RevMismatchError
from ...plan import references
from ...query import Query
from ...state import State
from ..store import Store
from .base import (
    Crowd,
    CrowdLaws,
    create,
    due_at,
    kill_after,
    kill_writers,
    move,
    put,
    read_all,
    revs,
)
from .runs import (
    EVERYTHING,
    WITH_ENDED,
    batches,
    compact,
    compactor,
    highest_removed,
    left_after,
    write_shared_payloads,
)


class AtomicityLaws(CrowdLaws):
    async def test_a_refused_commit_writes_no_state(self, store: Store, driver: Driver) -> None:
        """If one state of a commit conflicts, none of the others is written."""
        a, b = await create(driver, "a", "b")
        await move(driver, b)
        before = store.raw_versions()
        with pytest.raises(RevMismatchError):
            await put(driver, Transit(a, "x"), Transit(b, "x"), Transit(State("c"), "x"))
        assert store.raw_versions() == before
        assert await driver.get("a") == a
        assert await driver.get("c") is None

    async def test_a_refused_commit_writes_no_payload(self, store: Store, driver: Driver) -> None:
        """A payload is written with its state or not at all."""
        (a,) = await create(driver, "a")
        await move(driver, a)
        with pytest.raises(RevMismatchError):
            await put(
                driver,
                Transit(State("b").attach("order", b"pears"), "x"),
                Transit(a.attach("order", b"plums"), "x"),
            )
        assert store.raw_payloads() == []

    async def test_a_refused_requirement_writes_nothing(self, store: Store, driver: Driver) -> None:
        """A requirement that does not hold refuses the whole commit."""
        a, b = await create(driver, "a", "b")
        await move(driver, b)
        before = store.raw_versions()
        with pytest.raises(RevMismatchError):
            await put(driver, Transit(a.attach("order", b"pears"), "x"), Require(b))
        assert store.raw_versions() == before
        assert store.raw_payloads() == []

    async def test_a_refused_commit_leaves_the_due_time(self, driver: Driver) -> None:
        """A commit that was refused moves no due time."""
        (a,) = await put(driver, Delay(State("a"), to="wake", at=1_000))
        b, c = await create(driver, "b", "c")
        await move(driver, b)
        with pytest.raises(RevMismatchError):
            await put(
                driver,
                Transit(a, "x"),
                Delay(c, to="wake", at=1_000),
                Transit(b, "x"),
            )
        assert (await driver.due(1_000, 10)).due == (due_at(a, 1_000),)

    async def test_a_reader_never_sees_half_a_commit(self, driver: Driver, crowd: Crowd) -> None:
        """A page that ends at the end of what there is never ends inside a commit."""
        after = 0
        with anyio.fail_after(self.patience_s):
            async with crowd.working():
                while not crowd.is_done or after < await driver.head():
                    page = await driver.read(Query(), after, 100_000)
                    _check_whole(page.versions, crowd.size)
                    after = page.upto
                    await anyio.lowlevel.checkpoint()
        assert after >= crowd.writers * crowd.commits * crowd.size

    async def test_with_one_state_of_a_commit_all_are_current(
        self, driver: Driver, crowd: Crowd
    ) -> None:
        """Who gets one state of a commit gets the others as that commit left them, or later."""
        looked = 0
        with anyio.fail_after(self.patience_s):
            async with crowd.working():
                while not crowd.is_done:
                    last = await driver.get(f"w0/{crowd.size - 1}")
                    first = await driver.get("w0/0")
                    if last is not None:
                        assert first is not None
                        assert first.rev >= last.rev - crowd.size + 1
                        first = await driver.get("w0/0")
                        last = await driver.get(f"w0/{crowd.size - 1}")
                        assert first is not None
                        assert last is not None
                        assert last.rev >= first.rev + crowd.size - 1
                        looked += 1
                    await anyio.lowlevel.checkpoint()
        assert looked

    async def test_a_watcher_never_sees_half_a_commit(self, driver: Driver, crowd: Crowd) -> None:
        """When a watcher is given one state of a commit, all the others can be read, and so can
        the payload that it carries."""
        left = crowd.writers * crowd.commits * crowd.size
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine, crowd.working():
                async for state in engine.watch():
                    place = int(state.labels["place"])
                    last = state.rev - place + crowd.size - 1
                    whole = await driver.read(Query(), state.rev - place - 1, crowd.size)
                    assert {version.labels["commit"] for version in whole.versions} == {
                        state.labels["commit"]
                    }
                    assert whole.versions[-1].rev == last
                    content = await engine.data(state, "turn", type=bytes)
                    assert content.decode() == state.labels["commit"]
                    left -= 1
                    if not left:
                        break

    async def test_a_killed_process_leaves_whole_commits(self, process_store: Store) -> None:
        """After ``kill -9`` every commit is there with all its states and its payload, or is not
        there at all."""
        size = 5
        with anyio.fail_after(self.patience_s):
            await kill_writers(process_store, size)
        stored = Counter(version.commit_id for version in process_store.raw_versions())
        assert set(stored.values()) == {size}
        async with process_store.driver() as driver:
            log = await read_all(driver)
            _check_whole(log, size)
            assert len(log) == size * len(stored)
            for state in log[::size]:
                ref = state.data["turn"]
                assert isinstance(ref, DataRef)
                assert (await driver.load(ref)).decode() == state.labels["commit"]

    # ------------------------------------------------------------ compaction

    async def test_a_reader_never_sees_half_a_batch(self, driver: Driver) -> None:
        """While batches are removed, each page is as if all that may be removed were removed up to
        the page's ``compacted``, and nothing above it."""
        states = list(await create(driver, *(f"{n}" for n in range(40))))
        for _ in range(5):
            states = list(await put(driver, *(Transit(state, "x") for state in states)))
        log = await read_all(driver)
        left = revs(states)
        removed: set[int] = set()
        done = anyio.Event()

        async def read() -> None:
            while not done.is_set():
                page = await driver.read(Query(), 0, 10_000)
                removed.add(page.compacted)
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
        assert len(removed) > 2, "it was seen on the way"

    async def test_a_killed_run_leaves_whole_batches(self, process_store: Store) -> None:
        """After ``kill -9`` of a compaction, all that may be removed is removed up to
        ``compacted``, and nothing above it; the payloads are those that versions refer to; and
        another run does the rest."""
        async with process_store.driver() as driver:
            if driver.durability < Durability.PROCESS:
                pytest.skip("the driver does not declare that commits survive the process")
            for n in range(4):
                await write_shared_payloads(driver, f"{n}/")
            log = await read_all(driver)
        removed: list[int] = []
        for killed_after in (1, 2, 5):
            with anyio.fail_after(self.patience_s):
                await kill_after(compactor(process_store, limit=3), killed_after)
            async with process_store.driver() as driver:
                removed.append(await highest_removed(driver))
                left = await read_all(driver)
                assert left == left_after(log, removed[-1])
                assert set(process_store.raw_payloads()) == {
                    (ref.rev, ref.checksum) for state in left for ref in references(state)
                }
        assert 0 < removed[0] < log[-1].rev - 10, "it was killed on the way"
        async with process_store.driver() as driver:
            await compact(driver, WITH_ENDED)
            assert await read_all(driver) == left_after(log, log[-1].rev)


def _check_whole(versions: tuple[State, ...] | list[State], size: int) -> None:
    revisions: dict[str, list[int]] = defaultdict(list)
    for state in versions:
        revisions[state.labels["commit"]].append(state.rev)
    for commit_id, found in revisions.items():
        expected = list(range(found[0], found[0] + size))
        assert found == expected, f"commit {commit_id} is not whole"
