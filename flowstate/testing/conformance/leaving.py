"""Leaving: with which version a state no longer is what was asked for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ...commands import End, Pause, Transit
from ...driver import Driver
from ...query import Left, Query
from ...state import State, Status
from .base import Laws, create, put, read_all
from .read import QUERIES, write_varied
from .runs import WITH_ENDED, compact

LEAVING = {name: replace(query, leaving=True) for name, query in QUERIES.items()}


class LeavingLaws(Laws):
    @pytest.mark.parametrize("query", LEAVING.values(), ids=LEAVING)
    async def test_what_leaves_is_given_with_what_matches(
        self, driver: Driver, query: Query
    ) -> None:
        """With ``leaving``, for every kind of query: exactly the versions that match, and those
        whose state matched with its version before; and of each of them, what the state was
        before."""
        log = await write_varied(driver)
        for limit in (3, 1_000):
            assert await _told(driver, query, limit) == _expected(log, query)

    @pytest.mark.parametrize("query", LEAVING.values(), ids=LEAVING)
    async def test_what_leaves_is_known_after_compaction(
        self, driver: Driver, query: Query
    ) -> None:
        """What a version leaves is known though the version before it was removed; that a state is
        removed is no leaving."""
        log = await write_varied(driver)
        expected = _expected(log, query)
        await compact(driver, WITH_ENDED)
        left = {state.rev for state in await read_all(driver)}
        assert 0 < len(left) < len(log)
        assert await _told(driver, query, 7) == [each for each in expected if each[0].rev in left]

    async def test_a_state_leaves_by_whatever_is_asked_of_it(self, driver: Driver) -> None:
        """A state leaves by its status, its flow or its labels, and comes back; a version that
        changes something else is no leaving."""
        (state,) = await put(driver, Pause(State("a", labels={"queue": "mail"}), to="read"))
        moves = (
            (Transit(state.with_annotations(note="x"), "read"), Query(status=Status.PAUSED)),
            (Transit(state, "write"), Query(flow="read")),
            (Pause(state, to="read"), Query(flow="write", status=Status.RUNNING)),
            (Pause(state.with_labels(queue="post"), to="read"), Query(labels={"queue": "mail"})),
            (Pause(state.without_labels("queue"), to="read"), Query(labels={"queue": "post"})),
        )
        others = (Query(labels={"queue": "none"}), Query(status=Status.FAILED), Query(flow="none"))
        for command, left in moves:
            moved = replace(command, state=replace(command.state, rev=state.rev))
            (state,) = await put(driver, moved)
            for query, expected in ((left, [state]), *((other, []) for other in others)):
                page = await driver.read(replace(query, leaving=True), state.rev - 1, 10)
                assert list(page.versions) == expected
                page = await driver.read(query, state.rev - 1, 10)
                assert page.versions == ()
                assert page.left == {}

    async def test_among_current_versions_nothing_leaves(self, driver: Driver) -> None:
        """With ``latest``, ``leaving`` makes no difference, and neither does it to ``find`` and
        ``count``."""
        log = await write_varied(driver)
        current = {state.id: state for state in log}
        for query in LEAVING.values():
            expected = [state for state in log if current[state.id] is state]
            expected = [state for state in expected if query.matches(state)]
            latest = replace(query, latest=True)
            assert await read_all(driver, latest, limit=3) == expected
            assert await driver.find(query) == (expected[-1] if expected else None)
            assert sum((await driver.count(query, "flow")).values()) == len(expected)

    async def test_a_new_state_has_left_nothing(self, driver: Driver) -> None:
        """A new state with the id of one that was removed whole was nothing before."""
        (state,) = await put(driver, Pause(State("a", labels={"queue": "mail"})))
        await put(driver, End(state))
        await create(driver, "b")
        await compact(driver, WITH_ENDED)
        await create(driver, "a")
        query = Query(labels={"queue": "mail"}, leaving=True)
        assert await _told(driver, query, 10) == []
        assert await _told(driver, Query(status=Status.ENDED, leaving=True), 10) == []


async def _told(driver: Driver, query: Query, limit: int) -> list[tuple[State, Left | None]]:
    """What pages give, each version with what its state was before."""
    found: list[tuple[State, Left | None]] = []
    after = 0
    while after < await driver.head():
        page = await driver.read(query, after, limit)
        assert len(page.versions) <= limit
        assert after < page.upto
        found.extend((state, page.left.get(state.rev)) for state in page.versions)
        after = page.upto
    downwards: list[State] = []
    before = after + 1
    while before > 1:
        page = await driver.read(query, before, limit, newest_first=True)
        downwards.extend(page.versions)
        before = page.upto
    assert downwards == [state for state, _ in found][::-1]
    return found


def _expected(log: list[State], query: Query) -> list[tuple[State, Left | None]]:
    """The same, of a log in which nothing is missing."""
    current: dict[str, State] = {}
    found: list[tuple[State, Left | None]] = []
    for state in log:
        previous = current.get(state.id)
        current[state.id] = state
        left = None if previous is None else Left.of(previous).before(state)
        if query.matches(state) or (previous is not None and query.matches(previous)):
            found.append((state, left))
    return found
