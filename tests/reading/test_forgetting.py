"""Forgetting what users gave: all of it, nothing else, and who else has lost it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Commit,
    DataForgottenError,
    DataNotFoundError,
    DataRef,
    Driver,
    End,
    Engine,
    Forgotten,
    InvalidValueError,
    Pause,
    State,
    StateNotFoundError,
    StoreUnreachableError,
)
from flowstate.testing import WrapperDriver

from ..helpers import FixedClock

pytestmark = pytest.mark.anyio


async def ordered(engine: Engine, id: str) -> State:
    """A state with a card and an address, which has ended with another address."""
    state = State(id).attach("card", {"card": id}).attach("address", {"of": id})
    (state,) = await engine.do(Commit(Pause(state)))
    (state,) = await engine.do(Commit(Pause(state.attach("address", {"new": id}))))
    (state,) = await engine.do(Commit(End(state.detach("card"))))
    return state


async def test_what_was_forgotten_is_gone_from_every_version(engine: Engine) -> None:
    one = await ordered(engine, "1")
    two = await ordered(engine, "2")
    assert Forgotten(payloads=2, states=0) == await engine.forget("1", "address")
    for rev in (1, 2, 3):
        state = await engine.get("1", rev)
        with pytest.raises(DataForgottenError, match="was forgotten"):
            await engine.data(state, "address")
    assert {"card": "1"} == await engine.data(await engine.get("1", 2), "card")
    assert Forgotten(payloads=3, states=0) == await engine.forget("1", "card", "address")
    assert {"new": "2"} == await engine.data(two, "address")
    assert {"card": "2"} == await engine.data(await engine.get("2", 4), "card")
    assert [one, two] == [await engine.get("1"), await engine.get("2")]
    assert list(range(1, 7)) == [state.rev async for state in engine.states()]


async def test_what_others_refer_to_is_gone_for_them_too(engine: Engine) -> None:
    """By a copied reference, or by a copy of the state that they carry; it is told how many."""
    (a,) = await engine.do(Commit(Pause(State("a").attach("card", {"n": 1}))))
    b, c = await engine.do(
        Commit(
            Pause(State("b").attach("payment", a.data["card"])),
            Pause(State("c").stack("caller", a)),
        )
    )
    assert Forgotten(payloads=1, states=2) == await engine.forget("a", "card")
    for state, name in ((b, "payment"), (c.stacked["caller"], "card")):
        with pytest.raises(DataForgottenError):
            await engine.data(state, name)


async def test_what_is_stacked_in_a_state_is_forgotten_with_it(engine: Engine) -> None:
    inner = State("inner").attach("card", {"n": 1})
    (a,) = await engine.do(Commit(Pause(State("a").stack("deep", State("x").stack("er", inner)))))
    assert Forgotten(payloads=1, states=0) == await engine.forget("a", "card")
    with pytest.raises(DataForgottenError):
        await engine.data(a.stacked["deep"].stacked["er"], "card")


async def test_what_cannot_be_forgotten_leaves_all_as_it_was(engine: Engine) -> None:
    state = await ordered(engine, "1")
    with pytest.raises(StateNotFoundError, match="no state '2'"):
        await engine.forget("2", "card")
    with pytest.raises(DataNotFoundError, match="no data 'cards' in any version of state '1'"):
        await engine.forget("1", "card", "cards")
    with pytest.raises(InvalidValueError, match="names of the data"):
        await engine.forget("1")
    assert {"card": "1"} == await engine.data(await engine.get("1", 1), "card")
    assert {"new": "1"} == await engine.data(state, "address")


@pytest.fixture
async def other(driver: Driver, clock: FixedClock) -> AsyncIterator[Engine]:
    async with Engine(driver, clock=clock) as other:
        yield other


async def test_another_engine_gives_it_for_a_minute_at_most(
    engine: Engine, other: Engine, clock: FixedClock
) -> None:
    """From what it remembers; the one that was asked to forget does at once."""
    (a,) = await engine.do(Commit(Pause(State("a").attach("card", {"n": 1}))))
    assert {"n": 1} == await other.data(a, "card")
    await engine.forget("a", "card")
    with pytest.raises(DataForgottenError):
        await engine.data(a, "card")
    clock.ms += 59_999
    assert {"n": 1} == await other.data(a, "card")
    clock.ms += 1
    with pytest.raises(DataForgottenError):
        await other.data(a, "card")


@define(eq=False)
class Slow(WrapperDriver):
    """Gives a payload only once ``go`` is set, and tells by ``found`` that it has it; forgets, and
    does not come back from it, if ``is_lost``."""

    found: anyio.Event = field(factory=anyio.Event)
    go: anyio.Event = field(factory=anyio.Event)
    is_lost: bool = False

    async def load(self, ref: DataRef) -> bytes:
        content = await super().load(ref)
        self.found.set()
        await self.go.wait()
        return content

    async def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        states = await super().forget(id, payloads)
        if self.is_lost:
            raise StoreUnreachableError("store", "is gone")
        return states


async def test_what_is_loaded_meanwhile_is_not_remembered(engine: Engine, driver: Driver) -> None:
    (a,) = await engine.do(Commit(Pause(State("a").attach("card", {"n": 1}))))
    slow = Slow(driver)
    async with Engine(slow) as forgetting:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forgetting.data, a, "card")
            await slow.found.wait()
            await forgetting.forget("a", "card")
            slow.go.set()
        with pytest.raises(DataForgottenError):
            await forgetting.data(a, "card")


async def test_what_may_have_been_forgotten_is_not_remembered(
    engine: Engine, driver: Driver
) -> None:
    (a,) = await engine.do(Commit(Pause(State("a").attach("card", {"n": 1}))))
    slow = Slow(driver, is_lost=True)
    slow.go.set()
    async with Engine(slow) as forgetting:
        assert {"n": 1} == await forgetting.data(a, "card")
        with pytest.raises(StoreUnreachableError):
            await forgetting.forget("a", "card")
        with pytest.raises(DataForgottenError):
            await forgetting.data(a, "card")


async def test_what_was_forgotten_can_be_attached_again(engine: Engine) -> None:
    """It is another payload then; the old versions have still lost it."""
    (old,) = await engine.do(Commit(Pause(State("a").attach("card", {"n": 1}))))
    await engine.forget("a", "card")
    (new,) = await engine.do(Commit(Pause(old.attach("card", {"n": 1}))))
    assert {"n": 1} == await engine.data(new, "card")
    with pytest.raises(DataForgottenError):
        await engine.data(old, "card")
