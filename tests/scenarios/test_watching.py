"""Watching: the versions that match, those that are there and those to come, in order."""

from __future__ import annotations

import anyio
import pytest

from flowstate import Commit, Driver, End, Engine, Pause, Query, State, Status, Watcher
from tests.helpers import to_datetime

from . import next_millisecond

pytestmark = pytest.mark.anyio


async def post(engine: Engine, id: str, **labels: str) -> State:
    (state,) = await engine.do(Commit(Pause(State(id, labels=labels))))
    return state


async def take(watcher: Watcher, count: int) -> list[State]:
    """The next *count* versions, waiting for them if need be."""
    return [await anext(watcher) for _ in range(count)]


async def test_watch_gives_what_is_there_and_then_what_comes(driver: Driver) -> None:
    async with Engine(driver) as engine:
        early = await post(engine, "mail-1")

        async with engine.watch() as mails:
            assert await anext(mails) == early
            late = await post(engine, "mail-2")
            assert await anext(mails) == late


async def test_a_watcher_waits_until_something_comes(driver: Driver) -> None:
    async with Engine(driver) as engine:
        seen: list[State] = []

        async def watch() -> None:
            seen.append(await anext(engine.watch()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await anyio.wait_all_tasks_blocked()
            assert seen == []
            mail = await post(engine, "mail-1")
        assert seen == [mail]


async def test_watch_by_labels(driver: Driver) -> None:
    async with Engine(driver) as engine:
        ann = await post(engine, "mail-1", queue="mail", to="ann")
        await post(engine, "mail-2", queue="mail", to="bob")
        again = await post(engine, "mail-3", queue="mail", to="ann")

        watcher = engine.watch({"queue": "mail", "to": "ann"})
        assert await take(watcher, 2) == [ann, again]


async def test_watch_by_any_of_several_label_sets(driver: Driver) -> None:
    async with Engine(driver) as engine:
        ann = await post(engine, "mail-1", to="ann")
        await post(engine, "mail-2", to="bob")
        eve = await post(engine, "mail-3", to="eve")

        watcher = engine.watch(Query(labels=[{"to": "ann"}, {"to": "eve"}]))
        assert await take(watcher, 2) == [ann, eve]


async def test_watch_since_a_revision(driver: Driver) -> None:
    async with Engine(driver) as engine:
        first = await post(engine, "mail-1")
        second = await post(engine, "mail-2")

        assert await take(engine.watch(after=first.rev), 1) == [second]


async def test_watch_since_a_time(driver: Driver) -> None:
    async with Engine(driver) as engine:
        await post(engine, "mail-1")
        late = await next_millisecond(engine)

        watcher = engine.watch(Query(since=to_datetime(late.committed_at)))
        assert await take(watcher, 1) == [late]


async def test_watch_from_now_skips_what_is_there(driver: Driver) -> None:
    async with Engine(driver) as engine:
        await post(engine, "mail-1")

        async with engine.watch(Query(from_now=True)) as watcher:
            late = await post(engine, "mail-2")
            assert await take(watcher, 1) == [late]


async def test_watch_latest_begins_with_the_current_versions_and_goes_on_with_every_change(
    driver: Driver,
) -> None:
    async with Engine(driver) as engine:
        first = await post(engine, "mail-1")
        second = await post(engine, "mail-2")
        (moved,) = await engine.do(Commit(Pause(first, reason="checked")))

        async with engine.watch(Query(latest=True)) as watcher:
            assert await take(watcher, 2) == [second, moved]
            (checked,) = await engine.do(Commit(Pause(second, reason="checked")))
            (ended,) = await engine.do(Commit(End(checked)))
            assert await take(watcher, 2) == [checked, ended]


async def test_watch_by_status_tells_when_a_state_ends(driver: Driver) -> None:
    async with Engine(driver) as engine:
        mail = await post(engine, "mail-1")
        (ended,) = await engine.do(Commit(End(mail)))

        assert await take(engine.watch(Query(status=Status.ENDED)), 1) == [ended]


async def test_a_watcher_that_is_closed_goes_on_where_it_was(driver: Driver) -> None:
    async with Engine(driver) as engine:
        first = await post(engine, "mail-1")
        second = await post(engine, "mail-2")

        async with engine.watch() as watcher:
            assert await take(watcher, 1) == [first]
            token = watcher.rev
        third = await post(engine, "mail-3")
        async with engine.watch(after=token) as watcher:
            assert await take(watcher, 2) == [second, third]
