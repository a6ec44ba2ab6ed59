"""Law 2, atomicity: all of a commit or nothing, to everyone, also after ``kill -9``."""

from __future__ import annotations

from collections import Counter, defaultdict

import anyio
import anyio.lowlevel
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from ...commands import Delay, Require, Transit
from ...data import DataRef
from ...driver import Driver, Durability
from ...engine import Engine
from ...errors import RevMismatchError
from ...leases import Due
from ...query import Query
from ...state import State
from ..store import Store
from .base import Ack, Crowd, CrowdLaws, committer, create, move, put, read_acks, read_all


class AtomicityLaws(CrowdLaws):
    async def test_a_refused_commit_writes_no_state(self, store: Store, driver: Driver) -> None:
        """One conflicting state, and none of the others is written."""
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
        """What was refused moves no due time."""
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
        assert (await driver.due(1_000, ["wake"], 10)).due == (Due(a, 1_000),)

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
                    assert {s.labels["commit"] for s in whole.versions} == {state.labels["commit"]}
                    assert whole.versions[-1].rev == last
                    content = await engine.data(state, "turn", type=bytes)
                    assert content.decode() == state.labels["commit"]
                    left -= 1
                    if not left:
                        break

    async def test_a_killed_process_leaves_whole_commits(self, process_store: Store) -> None:
        """After ``kill -9`` every commit is there with all its states and its payload, or is not
        there at all; and every acknowledged one is there."""
        size = 5
        acks: list[Ack] = []
        async with process_store.driver() as driver:  # makes the store before they race for it
            if driver.durability < Durability.PROCESS:
                pytest.skip("the driver does not declare that commits survive the process")
        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for writer, kill_after in enumerate((1, 10, 40)):
                    tasks.start_soon(
                        _kill_after, process_store, f"w{writer}", size, kill_after, acks
                    )
        assert len(acks) >= 51
        stored = Counter(version.commit_id for version in process_store.raw_versions())
        assert set(stored.values()) == {size}
        assert {ack.commit_id for ack in acks} <= set(stored)
        async with process_store.driver() as driver:
            log = await read_all(driver)
            _check_whole(log, size)
            assert len(log) == size * len(stored)
            for state in log[::size]:
                ref = state.data["turn"]
                assert isinstance(ref, DataRef)
                assert (await driver.load(ref)).decode() == state.labels["commit"]
            latest = await driver.get("w2/0")
            assert latest is not None
            assert (await move(driver, latest)).rev > log[-1].rev


def _check_whole(versions: tuple[State, ...] | list[State], size: int) -> None:
    revisions: dict[str, list[int]] = defaultdict(list)
    for state in versions:
        revisions[state.labels["commit"]].append(state.rev)
    for commit_id, found in revisions.items():
        expected = list(range(found[0], found[0] + size))
        assert found == expected, f"commit {commit_id} is not whole"


async def _kill_after(store: Store, writer: str, size: int, commits: int, acks: list[Ack]) -> None:
    """Start a process that commits without end and kill it once it told of so many commits."""
    command = committer(store, writer, 0, size)
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdout is not None
        out = BufferedByteReceiveStream(process.stdout)
        printed = b""
        for _ in range(commits):
            printed += await out.receive_until(b"\n", 1_000) + b"\n"
        process.kill()
        printed += out.buffer
        try:
            while True:  # what it still told before it died was acknowledged too
                printed += await out.receive()
        except anyio.EndOfStream:
            pass
    acks.extend(read_acks(printed))
