"""The example above the code that decides a batch of compaction happens as it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flowstate import (
    Commit,
    Compaction,
    DataNotFoundError,
    DataRef,
    Driver,
    End,
    Engine,
    Query,
    Retention,
    State,
    Transit,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS

pytestmark = pytest.mark.anyio

CONTENT = b"P"


@pytest.fixture(params=["memory", "sqlite"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    kind: str = request.param
    url = "memory:" if kind == "memory" else f"sqlite:///{tmp_path}/example.db"
    async with connect(url) as driver:
        yield driver


@pytest.fixture
async def payload(driver: Driver) -> DataRef:
    """The log of the example; gives the payload."""
    async with Engine(driver) as engine:

        async def commit(command: Transit | End) -> State:
            (state,) = await engine.do(Commit(command))
            return state

        a = await commit(Transit(State("a").attach("p", CONTENT), "x"))
        payload = a.data["p"]
        assert isinstance(payload, DataRef)
        b = await commit(Transit(State("b").attach("p", payload), "x"))
        await commit(Transit(State("a", rev=a.rev, transition=a.transition), "x"))
        await commit(End(State("b", rev=b.rev, transition=b.transition)))
        await commit(Transit(State("c"), "x"))
    return payload


async def left(driver: Driver) -> list[tuple[int, str]]:
    """What is in the log: revisions and ids."""
    page = await driver.read(Query(), 0, 100)
    return [(state.rev, state.id) for state in page.versions]


async def batch(driver: Driver, after: int, keep: int = 1) -> Compaction:
    return await driver.compact(Retention(MAX_INSTANT_MS, keep, ended=True), after, 2)


async def test_a_run_goes_as_the_example_says(driver: Driver, payload: DataRef) -> None:
    first = await batch(driver, 0)
    assert (first.upto, first.versions, first.states, first.payloads) == (2, 2, 0, 1)
    assert await left(driver) == [(3, "a"), (4, "b"), (5, "c")]
    with pytest.raises(DataNotFoundError):
        await driver.load(payload)
    second = await batch(driver, 2)
    assert (second.upto, second.versions, second.states) == (4, 1, 1)
    third = await batch(driver, 4)
    assert (third.upto, third.versions, third.done) == (5, 0, True)
    assert await left(driver) == [(3, "a"), (5, "c")]


async def test_two_versions_that_are_kept_keep_their_payload(
    driver: Driver, payload: DataRef
) -> None:
    await batch(driver, 0, keep=2)
    await batch(driver, 2, keep=2)
    assert await left(driver) == [(1, "a"), (3, "a"), (5, "c")]
    assert await driver.load(payload) == CONTENT


async def test_what_is_current_goes_last(driver: Driver, payload: DataRef) -> None:
    await batch(driver, 2)
    assert await left(driver) == [(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "c")]
