"""Queries: every field holds, however versions are read."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field, frozen
from msgspec.structs import replace

from ...commands import Commit, Pause, Transit
from ...driver import Driver
from ...engine import Engine
from ...query import Query
from ...state import State, Status
from ...watch import Watcher
from .base import Laws, put, read_all

IDS = ("a/0", "b/0", "a/1", "b/1", "a/2", "b/2", "a/3")
LABELS: tuple[dict[str, str], ...] = (
    {"queue": "mail"},
    {"queue": "post"},
    {"queue": "mail", "urgent": "yes"},
    {},
)


@frozen
class Example:
    """A query with one field, and what it asks for, said without it.

    Both are given the version that was the newest when the query was made; what is asked for, also
    the version of the same state before.
    """

    query: Callable[[State], Query]
    is_wanted: Callable[[State, State, State | None], bool]
    is_for_drivers: bool = True
    """False for what is the engine's business: where reading starts."""


EXAMPLES: dict[str, Example] = {
    "labels": Example(
        lambda _: Query(labels={"queue": "mail"}),
        lambda _newest, state, _previous: state.labels.get("queue") == "mail",
    ),
    "id": Example(lambda _: Query(id="a/1"), lambda _newest, state, _previous: state.id == "a/1"),
    "id_prefix": Example(
        lambda _: Query(id_prefix="a/"), lambda _newest, state, _previous: state.id[0] == "a"
    ),
    "status": Example(
        lambda _: Query(status=Status.PAUSED),
        lambda _newest, state, _previous: state.transition.status is Status.PAUSED,
    ),
    "flow": Example(
        lambda _: Query(flow=["rest", "none"]),
        lambda _newest, state, _previous: state.transition.to == "rest",
    ),
    "since": Example(
        lambda newest: Query(since=newest.committed_at + 2),
        lambda newest, state, _previous: state.committed_at >= newest.committed_at + 2,
    ),
    "after": Example(
        lambda newest: Query(after=newest.rev - 3),
        lambda newest, state, _previous: state.rev > newest.rev - 3,
        is_for_drivers=False,
    ),
    "from_now": Example(
        lambda _: Query(from_now=True),
        lambda newest, state, _previous: state.rev > newest.rev,
        is_for_drivers=False,
    ),
    "latest": Example(lambda _: Query(latest=True), lambda _newest, _state, _previous: True),
    "leaving": Example(
        lambda _: Query(labels={"queue": "mail"}, leaving=True),
        lambda _newest, state, previous: (
            "mail" in {each.labels.get("queue") for each in (state, previous) if each is not None}
        ),
    ),
}
"""field of ``Query`` -> an example of it."""


@define
class Log:
    """What was written to a store, and writing more: by the engine itself, or past it, as another
    engine would."""

    engine: Engine
    versions: list[State] = field(factory=list[State])

    @property
    def current(self) -> list[State]:
        """The current versions, in revision order."""
        latest = {state.id: state for state in self.versions}
        return sorted(latest.values(), key=lambda state: state.rev)

    def previous(self, state: State) -> State | None:
        """The version of a state before this one."""
        before = (other for other in reversed(self.versions) if other.rev < state.rev)
        return next((other for other in before if other.id == state.id), None)

    async def write(self, *, own: bool) -> None:
        """One more version. Ids, labels and statuses come round, each in turns of its own."""
        turn = len(self.versions)
        id = IDS[turn % len(IDS)]
        state = next((state for state in reversed(self.versions) if state.id == id), State(id))
        state = replace(state, labels=LABELS[turn % len(LABELS)])
        flow = "rest" if turn % 3 else "work"
        command = Pause(state, to=flow) if turn % 5 < 2 else Transit(state, flow)
        written = await (
            self.engine.do(Commit(command)) if own else put(self.engine.driver, command)
        )
        self.versions.extend(written)


class QueryLaws(Laws):
    def test_every_field_of_a_query_has_an_example(self) -> None:
        """Each field of a query is taken through every way to read: none can be forgotten."""
        assert set(EXAMPLES) == set(Query.__struct_fields__)

    @pytest.mark.parametrize("field", EXAMPLES)
    async def test_every_field_holds_however_versions_are_read(
        self, driver: Driver, field: str
    ) -> None:
        """What a field of a query asks for is what is given, no less and no more: by a watcher at
        the head, by one far behind it, by ``states``, ``read`` and ``find``."""
        example = EXAMPLES[field]
        with anyio.fail_after(self.patience_s):
            async with Engine(driver) as engine:
                log = Log(engine)
                for _ in range(20):
                    await log.write(own=False)
                newest = log.versions[-1]
                query = example.query(newest)

                def wanted(versions: list[State]) -> list[State]:
                    return [
                        state
                        for state in versions
                        if example.is_wanted(newest, state, log.previous(state))
                    ]

                begin = log.current if query.latest else list(log.versions)
                seen = await _watch_at_the_head(log, query, wanted)
                assert seen == wanted([*begin, *log.versions[20:]])
                assert len(seen) >= 3

                all_of_it = log.current if query.latest else log.versions
                if not query.from_now:
                    async with engine.watch(query) as watcher:
                        assert [await anext(watcher) for _ in wanted(all_of_it)] == wanted(
                            all_of_it
                        )
                    assert [state async for state in engine.states(query)] == wanted(all_of_it)
                else:
                    assert [state async for state in engine.states(query)] == []
                if example.is_for_drivers:
                    assert await read_all(driver, query, limit=3) == wanted(all_of_it)
                    newest_first = [
                        state async for state in engine.states(query, newest_first=True)
                    ]
                    assert newest_first == wanted(all_of_it)[::-1]
                    assert await driver.find(query) == list(filter(query.matches, log.current))[-1]


async def _watch_at_the_head(
    log: Log, query: Query, wanted: Callable[[list[State]], list[State]]
) -> list[State]:
    """What a watcher is given that waits while versions are written, by others and by its own
    engine, until at least three of each are wanted."""
    seen: list[State] = []

    async def follow(watcher: Watcher) -> None:
        async for state in watcher:
            seen.append(state)  # noqa: PERF401  (it never ends)

    async with log.engine.watch(query) as watcher, anyio.create_task_group() as tasks:
        tasks.start_soon(follow, watcher)
        for own in (False, True):
            begun = len(log.versions)
            await anyio.wait_all_tasks_blocked()
            while len(wanted(log.versions[begun:])) < 3 or len(log.versions) < begun + 7:
                await log.write(own=own)
                await anyio.lowlevel.checkpoint()
        last = wanted(log.versions)[-1]
        while not seen or seen[-1].rev < last.rev:  # noqa: ASYNC110  (who follows sets no event)
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    return seen
