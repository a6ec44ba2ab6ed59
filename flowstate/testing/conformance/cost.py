"""Law 6, cost: no operation costs more in a long history, or among many states."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import Any, ClassVar

import pytest
from attrs import define, field

from ...clock import MAX_INSTANT_MS
from ...commands import Delay, Pause
from ...driver import Driver
from ...query import Query
from ...retention import Retention
from ...state import State
from .base import Laws, plan

SHORT, LONG = 2_000, 200_000
"""How many versions the two stores have that are compared."""
VERSIONS_PER_STATE = 4
EVERYTHING = Retention(MAX_INSTANT_MS)
QUEUES = 20
"""How many values the label has that states are found by; so matches grow with the store."""
COMMIT_SIZE = 500
PLACES = 61
"""How many states operations look at; they are spread over the store."""
REPEAT = 20
"""How many operations are measured in one round."""
MIN_ROUNDS, MAX_ROUNDS = 3, 60
"""Bounds of the rounds in which each store is measured."""
FEW_SHARING, MANY_SHARING = 400, 20_000
"""How many states share a payload in the two stores whose compaction is compared."""
BATCH = 20
"""How many versions a batch of compaction looks at."""
BEYOND_NOISE = 4
"""A growth that is so many times what is allowed is no noise: measuring ends early."""


class CostLaws(Laws):
    max_growth: ClassVar[float] = 2.0
    """How many times as long an operation may take with a hundred times the history."""

    # the driver's cost is the same on every event loop, and filling a store takes a while
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_cost_does_not_grow_with_the_history(self, tmp_path: Path) -> None:
        """No operation takes more than twice as long in a store of 200,000 versions as in one of
        2,000.

        The two are measured in turn and the fastest tenth of each counts: what else a machine
        does slows down some operations, not all. Measuring goes on only for as long as the law
        does not seem to hold.
        """
        stores: list[Driver] = []
        for name in ("short", "long"):
            (tmp_path / name).mkdir()
            stores.append(self.new_store(tmp_path / name).driver())
        async with stores[0] as short_driver, stores[1] as long_driver:
            short = await _Filled.fill(short_driver, SHORT)
            long = await _Filled.fill(long_driver, LONG)
            growth = {name: await _growth(short, long, name, self.max_growth) for name in _COSTS}
        too_much = {name: times for name, times in growth.items() if times > self.max_growth}
        assert not too_much, f"times slower with {LONG // SHORT} times the history: {too_much}"

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize("dry_run", [False, True], ids=["wet", "dry"])
    async def test_cost_of_a_batch_does_not_grow_with_what_shares_a_payload(
        self,
        tmp_path: Path,
        dry_run: bool,  # noqa: FBT001  (a parameter of the test)
    ) -> None:
        """Whether few or many versions refer to a payload, each batch of compaction takes as long:
        it does not look at all of them."""
        stores: list[Driver] = []
        for name in ("few", "many"):
            (tmp_path / name).mkdir()
            stores.append(self.new_store(tmp_path / name).driver())
        async with stores[0] as few, stores[1] as many:
            await _share(few, FEW_SHARING)
            await _share(many, MANY_SHARING)
            places = [0, 0]
            times: list[list[int]] = [[], []]
            for _ in range((FEW_SHARING - 2) // BATCH):
                for each, driver in enumerate((few, many)):
                    began = perf_counter_ns()
                    batch = await driver.compact(EVERYTHING, places[each], BATCH, dry_run=dry_run)
                    times[each].append(perf_counter_ns() - began)
                    places[each] = batch.upto
                    assert batch.versions
        growth = _undisturbed(times[1]) / _undisturbed(times[0])
        assert growth <= 2 * self.max_growth


async def _share(driver: Driver, states: int) -> None:
    """Commit states that refer to one payload, each moved once."""
    (first,) = await driver.commit(plan(Pause(State("first").attach("order", b"pears"))))
    shared = [State(f"{n}").attach("order", first.data["order"]) for n in range(states)]
    for _ in range(2):
        for start in range(0, states, COMMIT_SIZE):
            part = slice(start, start + COMMIT_SIZE)
            shared[part] = await driver.commit(plan(*(Pause(state) for state in shared[part])))
    await driver.commit(plan(Pause(State("first", rev=first.rev))))


@define
class _Filled:
    """A store with a history, and the states in it that are looked at in turn."""

    driver: Driver
    states: list[State]
    """The current versions, in the order of their ids' numbers."""
    _turns: Iterator[int] = field(factory=itertools.count, init=False)

    @classmethod
    async def fill(cls, driver: Driver, versions: int) -> _Filled:
        states = [
            State(f"state/{n}", labels={"queue": str(n % QUEUES), "number": str(n)})
            for n in range(versions // VERSIONS_PER_STATE)
        ]
        for _ in range(VERSIONS_PER_STATE):
            for start in range(0, len(states), COMMIT_SIZE):
                part = slice(start, start + COMMIT_SIZE)
                moves = (Delay(state, to="wake", at=_due_at(state)) for state in states[part])
                states[part] = await driver.commit(plan(*moves))
        return cls(driver, states)

    def next(self) -> int:
        """The index of the next state to look at, far from the previous one. There are few such
        states, so that the work of the driver is compared, and not the caches of the machine."""
        return next(self._turns) % PLACES * (len(self.states) // PLACES)

    def state(self) -> State:
        return self.states[self.next()]

    async def measure(self, name: str) -> list[int]:
        """How many nanoseconds each operation of one round takes."""
        operation = _COSTS[name]
        times: list[int] = []
        for _ in range(REPEAT):
            began = perf_counter_ns()
            await operation(self)
            times.append(perf_counter_ns() - began)
        return times


async def _growth(short: _Filled, long: _Filled, name: str, allowed: float) -> float:
    """How many times as long an operation takes in the long store."""
    short_times: list[int] = []
    long_times: list[int] = []
    growth = float("inf")
    for turn in range(MAX_ROUNDS):
        short_times += await short.measure(name)
        long_times += await long.measure(name)
        growth = _undisturbed(long_times) / _undisturbed(short_times)
        if turn >= MIN_ROUNDS and not allowed < growth < BEYOND_NOISE * allowed:
            break
    return growth


def _undisturbed(times: list[int]) -> int:
    """The time that an operation takes when nothing disturbs it: the end of the fastest tenth."""
    return sorted(times)[len(times) // 10]


# ---------------------------------------------------------------- what is measured


def _due_at(state: State) -> int:
    return 1_000_000 + int(state.labels["number"])


async def _commit(store: _Filled) -> None:
    index = store.next()
    state = store.states[index]
    (store.states[index],) = await store.driver.commit(
        plan(Delay(state, to="wake", at=_due_at(state)))
    )


async def _get(store: _Filled) -> None:
    assert await store.driver.get(store.state().id)


async def _get_version(store: _Filled) -> None:
    state = store.state()
    assert await store.driver.get(state.id, state.rev)


async def _find(store: _Filled) -> None:
    assert await store.driver.find(Query(labels={"queue": str(store.next() % QUEUES)}))


async def _find_by_two(store: _Filled) -> None:
    assert await store.driver.find(Query(labels=store.state().labels))


async def _find_nothing(store: _Filled) -> None:
    assert await store.driver.find(Query(labels={"queue": "none"})) is None


async def _page(store: _Filled) -> None:
    query = Query(labels={"queue": str(store.next() % QUEUES)})
    assert (await store.driver.read(query, 100, 20)).versions


async def _page_of_state(store: _Filled) -> None:
    assert (await store.driver.read(Query(id=store.state().id), 0, 20)).versions


async def _page_of_latest(store: _Filled) -> None:
    after = store.states[0].rev
    assert (await store.driver.read(Query(latest=True), after, 20)).versions


async def _page_at_the_head(store: _Filled) -> None:
    head = await store.driver.head()
    query = Query(labels={"queue": str(store.next() % QUEUES)})
    assert (await store.driver.read(query, head - 100, 20)).upto > head - 100


async def _due(store: _Filled) -> None:
    assert len((await store.driver.due(2_000_000, ["wake"], 10)).due) == 10


async def _nothing_due(store: _Filled) -> None:
    assert (await store.driver.due(1_000, ["wake"], 10)).due == ()


async def _count_old(store: _Filled) -> None:
    after = store.state().rev - len(store.states) - BATCH  # there all is superseded
    batch = await store.driver.compact(EVERYTHING, after, BATCH, dry_run=True)
    assert batch.versions == BATCH


async def _renew(store: _Filled) -> None:
    state = store.state()
    assert await store.driver.renew([(state.id, state.rev)], _due_at(state)) == frozenset()


_COSTS: Mapping[str, Callable[[_Filled], Awaitable[Any]]] = {
    "get": _get,
    "get a version": _get_version,
    "find by a label": _find,
    "find by two labels": _find_by_two,
    "find nothing": _find_nothing,
    "read a page": _page,
    "read a page of one state": _page_of_state,
    "read a page of current versions": _page_of_latest,
    "read a page at the head": _page_at_the_head,
    "what is due": _due,
    "nothing is due": _nothing_due,
    "renew": _renew,
    "count what may go": _count_old,
    "commit": _commit,
}
