"""Watchers of what leaves: a page of somebody's own is right at every moment."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Commit,
    Driver,
    End,
    Engine,
    Page,
    Pause,
    Query,
    Retention,
    State,
    Status,
    Transit,
    Watcher,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.memory import MemoryDriver

pytestmark = pytest.mark.anyio

MAIL = Query(labels={"queue": "mail"}, status=Status.PAUSED, leaving=True)


@define(eq=False)
class CountingDriver(MemoryDriver):
    """Counts the pages that it was asked for."""

    reads: int = field(default=0, init=False)

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        self.reads += 1
        return await super().read(query, after, limit, newest_first=newest_first)


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with CountingDriver() as driver:
        yield driver


async def steps(engine: Engine) -> list[tuple[str, bool]]:
    """A state comes, changes, leaves by its status, comes back, leaves by its label, and ends;
    another one comes and ends. Gives what a watcher of MAIL is to be told: the id, and whether it
    matches."""
    (a,) = await engine.do(Commit(Pause(State("a", labels={"queue": "mail"}))))
    (a,) = await engine.do(Commit(Pause(a, reason="still")))
    (a,) = await engine.do(Commit(Transit(a, "send")))
    (a,) = await engine.do(Commit(Transit(a, "send")))
    (b,) = await engine.do(Commit(Pause(State("b", labels={"queue": "mail"}))))
    (a,) = await engine.do(Commit(Pause(a)))
    (a,) = await engine.do(Commit(Pause(a.with_labels(queue="post"))))
    await engine.do(Commit(End(a)))
    await engine.do(Commit(End(b)))
    return [
        ("a", True),
        ("a", True),
        ("a", False),
        ("b", True),
        ("a", True),
        ("a", False),
        ("b", False),
    ]


async def told(watcher: Watcher, count: int) -> list[tuple[str, bool]]:
    with anyio.fail_after(10):
        states = [await anext(watcher) for _ in range(count)]
    return [(state.id, watcher.query.matches(state)) for state in states]


async def test_a_watcher_is_told_what_leaves_from_wherever_it_goes_on(engine: Engine) -> None:
    """From every revision on, by its own engine's buffer and by another engine."""
    head = await engine.driver.head()
    expected = await steps(engine)
    revs = [state.rev async for state in engine.states(MAIL)]
    async with Engine(engine.driver) as other:
        for each in (engine, other):
            for after in range(head, await engine.driver.head()):
                rest = [told for told, rev in zip(expected, revs, strict=True) if rev > after]
                assert rest == await told(each.watch(MAIL, after=after), len(rest))


@pytest.mark.parametrize("own", [True, False], ids=["own", "others"])
async def test_a_watcher_at_the_head_is_told_what_leaves(engine: Engine, own: bool) -> None:
    """Whoever commits, also beside a watcher that does not ask for it."""
    seen: list[tuple[str, bool]] = []
    plain: list[int] = []

    async def follow(watcher: Watcher) -> None:
        async for state in watcher:
            seen.append((state.id, MAIL.matches(state)))  # noqa: PERF401  (it never ends)

    async def follow_all(watcher: Watcher) -> None:
        async for state in watcher:
            plain.append(state.rev)  # noqa: PERF401  (it never ends)

    async with (
        Engine(engine.driver) as other,
        engine.watch() as everything,
        engine.watch(MAIL) as watcher,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(follow_all, everything)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(follow, watcher)
        await anyio.wait_all_tasks_blocked()
        expected = await steps(engine if own else other)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert expected == seen
    assert list(range(1, 10)) == plain


async def test_what_its_own_engine_commits_is_not_read_again(
    engine: Engine, driver: CountingDriver
) -> None:
    """A watcher that asks for what leaves costs no read more than one that does not, as long as its
    engine has seen what was before."""
    async with engine.watch(MAIL) as watcher, anyio.create_task_group() as tasks:
        tasks.start_soon(told, watcher, 7)
        await anyio.wait_all_tasks_blocked()
        driver.reads = 0
        await steps(engine)
    assert driver.reads <= 1


async def test_what_was_before_is_read_if_nobody_here_has_seen_it(engine: Engine) -> None:
    (a,) = await engine.do(Commit(Pause(State("a", labels={"queue": "mail"}))))
    async with engine.watch(MAIL, after=a.rev) as watcher, anyio.create_task_group() as tasks:
        seen: list[tuple[str, bool]] = []

        async def follow() -> None:
            seen.extend(await told(watcher, 2))

        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        (a,) = await engine.do(Commit(Transit(a, "send")))
        await engine.do(Commit(Pause(a)))
    assert [("a", False), ("a", True)] == seen


async def test_a_watcher_that_begins_with_what_is_current(engine: Engine) -> None:
    """It is given what matches now, and then also what leaves."""
    (a,) = await engine.do(Commit(Pause(State("a", labels={"queue": "mail"}))))
    (b,) = await engine.do(Commit(Pause(State("b", labels={"queue": "mail"}))))
    await engine.do(Commit(End(b)))
    query = Query(labels={"queue": "mail"}, status=Status.PAUSED, latest=True, leaving=True)
    async with engine.watch(query) as watcher:
        assert [("a", True)] == await told(watcher, 1)
        await engine.do(Commit(End(a)))
        assert [("a", False)] == await told(watcher, 1)


async def test_what_compaction_left_is_told(engine: Engine) -> None:
    """A version that is left says what its state was before, though that was removed."""
    (a,) = await engine.do(Commit(Pause(State("a", labels={"queue": "mail"}))))
    (a,) = await engine.do(Commit(End(a)))
    await engine.do(Commit(Pause(State("b"))))
    await engine.driver.compact(Retention(MAX_INSTANT_MS), 0, 10)
    assert [a] == [state async for state in engine.states(MAIL)]
