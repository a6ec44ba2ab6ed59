"""Listings: the order that is asked for, no more than asked for, and no state missed."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from flowstate import (
    Commit,
    Driver,
    End,
    Engine,
    InvalidValueError,
    Page,
    Pause,
    Query,
    Retention,
    State,
    StateNotFoundError,
    Status,
    Transit,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.memory import MemoryDriver
from flowstate.testing.wrapper import WrapperDriver
from flowstate.watch import Current

pytestmark = pytest.mark.anyio

COUNT = 12
EVERYTHING = Retention(MAX_INSTANT_MS)
"""Removes all that is superseded, however young."""


@define(eq=False)
class MovesBetweenPages(WrapperDriver):
    """After each page moves some of the states, with a label or without; and then compacts."""

    moves: Mapping[int, Mapping[str, bool]] = field(factory=dict[int, dict[str, bool]])
    """page -> the ids of what moves, and whether it keeps the label"""
    compacts: bool = False
    pages: int = field(default=0, init=False)

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        page = await self.driver.read(query, after, limit, newest_first=newest_first)
        self.pages += 1
        async with Engine(self.driver) as engine:
            for id, keeps in self.moves.get(self.pages, {}).items():
                state = await engine.get(id)
                labels = {"queue": "mail"} if keeps else {"queue": "post"}
                await engine.do(Commit(Pause(state.with_labels(**labels))))
        if self.compacts:
            await self.driver.compact(EVERYTHING, 0, 1_000)
        return page


MOVES = st.dictionaries(
    st.integers(1, 9),
    st.dictionaries(st.sampled_from([f"{n}" for n in range(COUNT)]), st.booleans(), max_size=6),
    max_size=9,
)


@given(moves=MOVES, newest_first=st.booleans(), compacts=st.booleans(), size=st.integers(1, 5))
def test_a_listing_of_current_versions_misses_no_state(
    moves: Mapping[int, Mapping[str, bool]],
    newest_first: bool,
    compacts: bool,
    size: int,
) -> None:
    """Whatever moves between its pages: each state that matched all the time is given, and no state
    twice; a state that left what matches may be given or not."""

    async def listed() -> list[str]:
        async with MemoryDriver() as inner, Engine(inner) as engine:
            new = [State(f"{n}", labels={"queue": "mail"}) for n in range(COUNT)]
            await engine.do(Commit(*(Pause(state) for state in new)))
            driver = MovesBetweenPages(inner, moves, compacts=compacts)
            query = Query(labels={"queue": "mail"}, latest=True)
            return [
                state.id async for state in Current(driver, query, size, newest_first=newest_first)
            ]

    ids = anyio.run(listed)
    left = {id for moved in moves.values() for id, keeps in moved.items() if not keeps}
    assert len(ids) == len(set(ids))
    assert {f"{n}" for n in range(COUNT)} - left <= set(ids)


async def listed(engine: Engine, query: Query, **options: object) -> list[int]:
    return [state.rev async for state in engine.states(query, **options)]  # type: ignore[arg-type]


async def varied(engine: Engine) -> None:
    """Revisions 1 to 12, of six states."""
    for _ in range(2):
        for n in range(6):
            state = await engine.peek(f"{n}") or State(f"{n}")
            state = state.with_labels(even="yes" if n % 2 == 0 else "no")
            await engine.do(Commit(Pause(state) if n < 3 else Transit(state, "work")))


async def test_a_limit_and_an_order(engine: Engine) -> None:
    await varied(engine)
    assert [1, 2, 3] == await listed(engine, Query(), limit=3)
    assert [12, 11, 10] == await listed(engine, Query(), limit=3, newest_first=True)
    assert [12, 11, 10, 9, 8, 7] == await listed(engine, Query(latest=True), newest_first=True)
    assert [11, 9] == await listed(
        engine, Query(labels={"even": "yes"}, latest=True), newest_first=True, limit=2
    )
    assert [12, 11] == await listed(engine, Query(after=10), newest_first=True)
    assert [] == await listed(engine, Query(from_now=True), newest_first=True)
    assert [] == await listed(engine, Query(), limit=0)


async def test_bad_limits_are_refused(engine: Engine) -> None:
    for limit in (-1, 1.5, True):
        with pytest.raises(InvalidValueError, match="limit"):
            engine.states(limit=limit)  # type: ignore[arg-type]
    for size in (0, None):
        with pytest.raises(InvalidValueError, match="limit"):
            await engine.page(limit=size)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="newest_first"):
        engine.states(newest_first=1)  # type: ignore[arg-type]


async def test_a_page_is_as_full_as_it_can_be(engine: Engine) -> None:
    """However far apart matches are, up to the head; the next one goes on after it."""
    await varied(engine)
    query = Query(labels={"even": "yes"})
    first = await engine.page(query, limit=4)
    assert [1, 3, 5, 7] == [state.rev for state in first.versions]
    second = await engine.page(query, first.upto, 4)
    assert [9, 11] == [state.rev for state in second.versions]
    assert 12 == second.upto
    assert () == (await engine.page(query, second.upto, 4)).versions


async def test_pages_go_down_to_the_first_revision(engine: Engine) -> None:
    await varied(engine)
    pages: list[list[int]] = []
    after: int | None = None
    while after != 1:
        page = await engine.page(Query(latest=True), after, 4, newest_first=True)
        assert page.newest_first
        pages.append([state.rev for state in page.versions])
        after = page.upto
    assert [[12, 11, 10, 9], [8, 7]] == pages


async def test_peek_gives_none_where_get_raises(engine: Engine) -> None:
    await varied(engine)
    for id, rev in (("none", None), ("1", 99), ("1", 1)):
        assert await engine.peek(id, rev) is None
        with pytest.raises(StateNotFoundError):
            await engine.get(id, rev)
    assert await engine.get("1", 2) == await engine.peek("1", 2)


async def test_counts_are_by_status_or_by_flow(engine: Engine, driver: Driver) -> None:
    await varied(engine)
    (state,) = await engine.do(Commit(End(await engine.get("3"))))
    assert {"paused": 3, "running": 2, "ended": 1} == await engine.count()
    assert {"paused": 2, "running": 1} == await engine.count({"even": "yes"})
    assert {"work": 2, "": 4} == await engine.count(by="flow")
    assert {"work": 2} == await engine.count(Query(status=Status.RUNNING), by="flow")
    assert {} == await engine.count(Query(id_prefix="none"))
    with pytest.raises(KeyError):  # no store gives more than another
        (await engine.count())["failed"]
    with pytest.raises(InvalidValueError, match="'status' or 'flow', not 'label'"):
        await engine.count(by="label")  # type: ignore[arg-type]
    assert await driver.head() == state.rev
