"""Watchers: every matching version once and in order, from the tail's buffer or from pages."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field
from msgspec.structs import replace

from flowstate import Commit, Engine, Page, Pause, Query, State, Status, Transit, Watcher
from flowstate.drivers.memory import MemoryDriver
from flowstate.watch import Tail

from .helpers import NOW, FixedClock

pytestmark = pytest.mark.anyio


@define(eq=False)
class CountingDriver(MemoryDriver):
    """Notes after which revision it was read, how much was asked for, and how many wait."""

    reads: list[tuple[int, int]] = field(factory=list, init=False)
    waiting: int = field(default=0, init=False)

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        self.reads.append((after, limit))
        return await super().read(query, after, limit, newest_first=newest_first)

    async def wait(self, after: int) -> int:
        self.waiting += 1
        try:
            return await super().wait(after)
        finally:
            self.waiting -= 1


@pytest.fixture
async def driver() -> AsyncIterator[CountingDriver]:
    async with CountingDriver() as driver:
        yield driver


async def post(engine: Engine, count: int, **labels: str) -> list[State]:
    """That many new states, each in a commit of its own."""
    head = await engine.driver.head()
    return [
        (await engine.do(Commit(Pause(State(f"s{head + n}", labels=labels)))))[0]
        for n in range(1, count + 1)
    ]


async def take(watcher: Watcher, count: int) -> list[int]:
    """The revisions of the next versions."""
    return [(await anext(watcher)).rev for _ in range(count)]


async def wait_for_one(engine: Engine, watcher: Watcher) -> None:
    """Have the watcher wait at the head for a new state. From then on it is fed by the tail."""

    async def wait() -> None:
        await anext(watcher)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await post(engine, 1)


@pytest.fixture
async def other(engine: Engine) -> AsyncIterator[Engine]:
    """Another engine on the same store: what it commits has to be read."""
    async with Engine(engine.driver) as other:
        yield other


def small_tail(engine: Engine, size: int, page_size: int) -> Tail:
    """A tail that nobody offers anything to: it reads all."""
    return Tail(engine.driver, [], size=size, page_size=page_size)


def following(tail: Tail, query: Query = Query()) -> Watcher:  # noqa: B008  (immutable)
    """A watcher that is fed by that tail."""
    return Watcher(tail.driver, query, tail=tail)


# ---------------------------------------------------------------- order and completeness


async def test_every_version_comes_once_and_in_order_however_it_is_read(engine: Engine) -> None:
    """Some from pages, some from the buffer, some waited for: nobody can tell."""
    tail = small_tail(engine, size=20, page_size=7)
    seen: dict[str, list[int]] = {"early": [], "late": []}

    async def watch(name: str) -> None:
        watcher = following(tail)
        watcher.page_size = 5
        while len(seen[name]) < 300:
            seen[name] += await take(watcher, 1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, "early")
        for n in range(30):
            await post(engine, 10)
            if n % 3 == 0:
                await anyio.wait_all_tasks_blocked()
            if n == 20:
                tasks.start_soon(watch, "late")
    assert seen == {"early": list(range(1, 301)), "late": list(range(1, 301))}


async def test_the_versions_of_one_commit_come_together(engine: Engine) -> None:
    async with engine.watch() as watcher:
        await engine.do(Commit(*(Pause(State(f"s{n}")) for n in range(5))))
        assert await take(watcher, 5) == [1, 2, 3, 4, 5]


async def test_what_is_committed_while_the_current_versions_are_given_comes_after_them(
    engine: Engine,
) -> None:
    first, second, third = await post(engine, 3)
    watcher = engine.watch(Query(latest=True))
    watcher.page_size = 1
    assert await take(watcher, 1) == [first.rev]
    (moved,) = await engine.do(Commit(Pause(second)))
    assert await take(watcher, 2) == [third.rev, moved.rev]


async def test_a_selective_watcher_still_advances(engine: Engine) -> None:
    """What does not match counts as seen: resuming does not look at it again."""
    watcher = engine.watch({"wanted": "yes"})
    await post(engine, 50)
    (wanted,) = await post(engine, 1, wanted="yes")
    await post(engine, 50)
    assert await take(watcher, 1) == [wanted.rev]
    with anyio.move_on_after(0):
        await anext(watcher)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.__anext__)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert watcher.rev == 101


# ---------------------------------------------------------------- resume tokens


async def test_the_token_is_what_was_given_not_what_was_read_ahead(engine: Engine) -> None:
    await post(engine, 10)
    watcher = engine.watch()
    assert await take(watcher, 3) == [1, 2, 3]
    assert watcher.rev == 3


async def test_a_wait_that_was_cancelled_loses_nothing(engine: Engine) -> None:
    watcher = engine.watch()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.__anext__)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    await post(engine, 2)
    assert await take(watcher, 2) == [1, 2]


async def test_a_token_overrides_where_the_query_says_to_start(engine: Engine) -> None:
    await post(engine, 3)
    for query in (Query(latest=True), Query(from_now=True), Query(after=3)):
        assert await take(engine.watch(query, after=1), 1) == [2]


async def test_a_token_from_the_future_waits_for_it(engine: Engine) -> None:
    await post(engine, 1)
    seen: list[int] = []

    async def watch() -> None:
        seen.extend(await take(engine.watch(after=3), 1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            await post(engine, 1)
    assert seen == [4]


# ---------------------------------------------------------------- the tail


async def test_many_watchers_at_the_head_cost_one_read(
    engine: Engine, other: Engine, driver: CountingDriver
) -> None:
    seen: list[int] = []

    async def watch() -> None:
        async with engine.watch(Query(from_now=True)) as watcher:
            seen.extend(await take(watcher, 1))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        driver.reads.clear()
        await post(other, 1)
    assert seen == [1] * 100
    assert len(driver.reads) == 1


async def test_what_its_own_engine_commits_is_not_read_again(
    engine: Engine, driver: CountingDriver
) -> None:
    """The tail takes it from the commit: it is what the log gives."""
    seen: list[State] = []

    async def watch() -> None:
        async with engine.watch(Query(from_now=True)) as watcher:
            seen.extend([await anext(watcher) for _ in range(20)])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        written: list[State] = []
        for _ in range(10):
            await anyio.wait_all_tasks_blocked()
            written += await engine.do(
                Commit(*(Pause(State(f"{len(written)}-{n}", labels={"n": f"{n}"})) for n in "ab"))
            )
    assert driver.reads == []
    assert seen == written == [await driver.get(state.id) for state in seen]


async def test_what_others_commit_in_between_is_not_stepped_over(
    engine: Engine, other: Engine
) -> None:
    """Whatever comes from where, in whatever order, while watchers wait: each version once."""
    chance = random.Random(0)
    seen: list[int] = []

    async def watch() -> None:
        seen.extend(await take(engine.watch(), 400))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for _ in range(200):
            if chance.random() < 0.5:
                await anyio.wait_all_tasks_blocked()
            await post(chance.choice([engine, other]), 2)
    assert seen == list(range(1, 401))


async def test_the_buffer_of_the_tail_is_bounded(engine: Engine) -> None:
    tail = small_tail(engine, size=10, page_size=5)
    watcher = following(tail)
    await wait_for_one(engine, watcher)
    reach: list[int] = []
    for _ in range(50):
        await post(engine, 2)
        await take(watcher, 2)
        reach.append(sum(tail.covers(Query(), rev) for rev in range(tail.upto)))
    assert tail.size <= max(reach) <= 2 * tail.size
    assert tail.upto == 101


async def test_a_watcher_that_is_far_behind_reads_pages_at_its_own_pace(
    engine: Engine, driver: CountingDriver
) -> None:
    await post(engine, 20)
    watcher = following(small_tail(engine, size=2, page_size=2))
    watcher.page_size = 5
    assert await take(watcher, 5) == [1, 2, 3, 4, 5]
    assert driver.reads == [(0, 5)]  # not a page more than what was taken


async def test_a_slow_watcher_slows_only_itself(engine: Engine, driver: CountingDriver) -> None:
    """The fast one is fed from the buffer; the slow one, overtaken by it, reads pages."""
    tail = small_tail(engine, size=5, page_size=5)
    slow, fast = following(tail), following(tail)
    await wait_for_one(engine, fast)
    assert await take(slow, 1) == [1]
    for n in range(2, 40):
        await post(engine, 1)
        assert await take(fast, 1) == [n]
    assert tail.upto == 39
    assert not tail.covers(Query(), slow.rev)
    driver.reads.clear()
    assert await take(slow, 38) == list(range(2, 40))
    assert driver.reads == [(1, slow.page_size)]


async def test_the_tail_does_not_read_what_nobody_wants(
    engine: Engine, driver: CountingDriver
) -> None:
    """After a while without watchers it begins anew where the next one looks."""
    tail = small_tail(engine, size=10_000, page_size=1_000)
    await wait_for_one(engine, following(tail))
    await post(engine, 1_000)
    driver.reads.clear()
    await wait_for_one(engine, following(tail, Query(from_now=True)))
    assert [after for after, _ in driver.reads] == [1_001]
    assert [rev for rev in range(1_002) if tail.covers(Query(), rev)] == [1_001]


# ---------------------------------------------------------------- what a watcher holds


async def test_a_loop_that_is_left_early_leaks_nothing(
    engine: Engine, driver: CountingDriver
) -> None:
    await post(engine, 3)
    tasks_before = anyio.get_running_tasks()
    watcher = engine.watch()
    async for _ in watcher:
        break
    gone = weakref.ref(watcher)
    del watcher
    gc.collect()
    assert gone() is None
    assert tasks_before == anyio.get_running_tasks()
    assert driver.waiting == 0


async def test_a_watcher_that_is_cancelled_while_it_waits_leaks_nothing(
    engine: Engine, driver: CountingDriver
) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.watch().__anext__)
            await anyio.wait_all_tasks_blocked()
            assert driver.waiting == 1
            scope.cancel()
    assert driver.waiting == 0
    await post(engine, 1)
    assert await take(engine.watch(), 1) == [1]  # nor does it hold the tail's lock


async def test_a_watcher_never_ends_by_itself_and_does_not_spin(
    engine: Engine, driver: CountingDriver
) -> None:
    watcher = engine.watch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.__anext__)
        await anyio.wait_all_tasks_blocked()
        driver.reads.clear()
        await anyio.wait_all_tasks_blocked()
        assert driver.reads == []
        tasks.cancel_scope.cancel()


async def test_a_watcher_lets_other_tasks_have_their_turn(engine: Engine) -> None:
    await post(engine, 100)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    watcher = engine.watch()
    watcher.page_size = 10
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await take(watcher, 100)
        tasks.cancel_scope.cancel()
    assert turns >= 5


# ---------------------------------------------------------------- what matches


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), ["a1", "b1", "a2"]),
        (Query(labels={"x": "1"}), ["a1", "a2"]),
        (Query(labels={"x": "1", "y": "1"}), ["a1"]),
        (Query(labels=[{"x": "2"}, {"y": "1"}]), ["a1", "b1"]),
        (Query(labels=[{"x": "2"}, {}]), ["a1", "b1", "a2"]),
        (Query(id="a1"), ["a1"]),
        (Query(id_prefix="a"), ["a1", "a2"]),
        (Query(id_prefix="a", labels={"y": "1"}), ["a1"]),
        (Query(status=Status.RUNNING), ["b1"]),
        (Query(status=[Status.RUNNING, Status.PAUSED]), ["a1", "b1", "a2"]),
    ],
)
async def test_what_matches_is_the_same_from_the_store_and_from_the_buffer(
    engine: Engine, driver: CountingDriver, query: Query, expected: list[str]
) -> None:
    """Conditions are joined by *and*; several label sets by *or*; an empty set matches all."""
    rider = engine.watch()
    await wait_for_one(engine, rider)
    await engine.do(
        Commit(
            Pause(State("a1", labels={"x": "1", "y": "1"})),
            Transit(State("b1", labels={"x": "2"}), "run"),
            Pause(State("a2", labels={"x": "1"})),
        )
    )
    await take(rider, 3)
    driver.reads.clear()
    from_buffer = engine.watch(query, after=1)
    assert expected == [(await anext(from_buffer)).id for _ in expected]
    assert driver.reads == []
    assert expected == [state.id async for state in engine.states(replace(query, after=1))]


CONDITIONS: dict[str, Query] = {
    "labels": Query(labels={"x": "2"}),
    "id": Query(id="b"),
    "id_prefix": Query(id_prefix="b"),
    "status": Query(status=Status.RUNNING),
    "flow": Query(flow="run"),
    "leaving": Query(flow="run", leaving=True),
    "since": Query(since=NOW + 1),
}


def test_a_condition_is_every_field_of_a_query_that_does_not_say_where_to_start() -> None:
    assert {*CONDITIONS, "after", "from_now", "latest"} == set(Query.__struct_fields__)


@pytest.mark.parametrize("query", CONDITIONS.values(), ids=CONDITIONS)
async def test_each_condition_counts_wherever_versions_come_from(query: Query) -> None:
    """Read, or watched: from pages, from the buffer, after the current ones, and live."""
    clock = FixedClock()
    async with MemoryDriver(clock=clock) as driver, Engine(driver) as engine:
        await wait_for_one(engine, engine.watch())
        a, b = State("a", labels={"x": "1"}), State("b", labels={"x": "2"})
        (a,) = await engine.do(Commit(Pause(a)))
        clock.ms += 1
        (b,) = await engine.do(Commit(Transit(b, "run")))
        watchers = [
            following(small_tail(engine, size=1, page_size=1), query),
            engine.watch(query, after=1),
            engine.watch(replace(query, latest=True)),
        ]
        assert [b] * 3 == [await anext(watcher) for watcher in watchers]
        await engine.do(Commit(Pause(a), Transit(b, "run")))
        expected = [state async for state in engine.states() if query.matches(state)][1:]
        assert 1 <= len(expected) <= 2
        for watcher in watchers:
            assert expected == [await anext(watcher) for _ in expected]
        assert expected == [state async for state in engine.states(replace(query, after=b.rev))]


async def test_a_query_sees_versions_as_they_were_when_committed(engine: Engine) -> None:
    (first,) = await engine.do(Commit(Pause(State("a", labels={"queue": "mail"}))))
    await engine.do(Commit(Pause(first.without_labels("queue"))))
    watcher = engine.watch({"queue": "mail"})
    assert await anext(watcher) == first
