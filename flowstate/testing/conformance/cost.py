"""Law 6, cost: no operation costs more in a long history, or among many states."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any, ClassVar, TypeAlias

import anyio
import pytest
from attrs import define, field

from ...clock import MAX_INSTANT_MS
from ...commands import Delay, End, Pause, Require
from ...driver import Driver
from ...leases import Claimed
from ...plan import RecordedError
from ...query import Query
from ...retention import Retention
from ...state import State, Status
from .base import Laws, hand_out, keyed, line_up, plan

SHORT, LONG = 2_000, 200_000
"""How many versions the two stores have that are compared."""
VERSIONS_PER_STATE = 4
STATES_PER_RECORD = 10
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
FEW_READY, MANY_READY = 200, 20_000
"""How many versions are ready, and how many are taken, in the two stores whose claims are
compared."""
CLAIMED = 10
"""How many versions are claimed, taken, renewed and released at a time."""
FEW_FLOWS, MANY_FLOWS = 3, 1_500
"""How many flows there is something ready for, and how many there may be room for."""
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
        async with self._two(tmp_path) as (short_driver, long_driver):
            short = await _Filled.fill(short_driver, SHORT)
            long = await _Filled.fill(long_driver, LONG)
            growth = {
                name: await _growth(partial(cost, short), partial(cost, long), self.max_growth)
                for name, cost in _COSTS.items()
            }
        self._check(growth, f"with {LONG // SHORT} times the history")

    def test_the_cost_of_every_condition_is_measured(self) -> None:
        """Each field of a query has an example whose cost is measured, but for those that only say
        where reading starts."""
        assert set(_CONDITIONS) | {"after", "from_now"} == set(Query.__struct_fields__)

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_cost_does_not_grow_with_what_has_lost_a_label(self, tmp_path: Path) -> None:
        """What has a label now is found as fast whether few or many states had it and have lost it;
        and a page of what leaves costs what a page of the same without it does."""
        async with self._two(tmp_path) as (few_driver, many_driver):
            few = await _Phases.fill(few_driver, FEW_SHARING)
            many = await _Phases.fill(many_driver, MANY_SHARING)
            growth = {
                name: await _growth(partial(cost, few), partial(cost, many), self.max_growth)
                for name, cost in _PHASE_COSTS.items()
            }
            growth["read a page of what leaves, beside one without"] = await _growth(
                partial(_page_with_label, many),
                partial(_page_of_what_leaves, many),
                self.max_growth,
            )
        self._check(growth, f"with {MANY_SHARING // FEW_SHARING} times as many that had a label")

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_cost_does_not_grow_with_what_is_ready_and_taken(self, tmp_path: Path) -> None:
        """Claiming, taking, renewing, releasing, and looking at lines and places take as long
        whether few or many versions are ready, of the same flow or another one, and whether
        another owner has taken few or many."""
        async with self._two(tmp_path) as (few_driver, many_driver):
            few = await _Line.fill(few_driver, FEW_READY)
            many = await _Line.fill(many_driver, MANY_READY)
            growth = {
                name: await _growth(partial(cost, few), partial(cost, many), self.max_growth)
                for name, cost in _LINE_COSTS.items()
            }
        self._check(growth, f"with {MANY_READY // FEW_READY} times as much ready and taken")

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_cost_of_a_claim_does_not_grow_with_flows_that_nothing_is_ready_for(
        self, tmp_path: Path
    ) -> None:
        """Whoever has many flows claims as fast as who has only those that something is ready
        for."""
        async with self.new_store(tmp_path).driver() as driver:
            flows = [f"flow {n}" for n in range(MANY_FLOWS)]
            for flow in flows[:: MANY_FLOWS // FEW_FLOWS]:
                await line_up(driver, *(f"{flow}/{n}" for n in range(BATCH)), flow=flow)
            line = _Line(driver)
            few = partial(_claim, line, dict.fromkeys(await driver.line(), CLAIMED))
            many = partial(_claim, line, dict.fromkeys(flows, CLAIMED))
            growth = {"claim": await _growth(few, many, self.max_growth)}
        self._check(growth, f"with room for {MANY_FLOWS // FEW_FLOWS} times as many flows")

    @asynccontextmanager
    async def _two(self, tmp_path: Path) -> AsyncGenerator[tuple[Driver, Driver]]:
        """Two empty stores, open; what the drivers do in threads of their own, on one processor."""
        stores: list[Driver] = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            stores.append(self.new_store(tmp_path / name).driver())
        with _one_processor():
            async with stores[0] as one, stores[1] as other:
                yield one, other

    def _check(self, growth: Mapping[str, float], what: str) -> None:
        too_much = {name: times for name, times in growth.items() if times > self.max_growth}
        assert not too_much, f"times slower {what}: {too_much}"

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize("dry_run", [False, True], ids=["wet", "dry"])
    async def test_cost_of_a_batch_does_not_grow_with_what_shares_a_payload(
        self,
        tmp_path: Path,
        dry_run: bool,  # noqa: FBT001  (a parameter of the test)
    ) -> None:
        """Whether few or many versions refer to a payload, each batch of compaction takes as long:
        it does not look at all of them."""
        async with self._two(tmp_path) as (few, many):
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


@contextmanager
def _one_processor() -> Generator[None]:
    """Keep this thread, and the threads that it starts, on one processor, where the system can.

    What a driver does in a thread of its own takes 25 us or 90, for as long as the thread lives,
    by nothing but the processor that the system puts it on. Two drivers are compared, so they are
    put on the same one.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


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
        async with anyio.create_task_group() as tasks:
            for n in range(len(states) // STATES_PER_RECORD):
                tasks.start_soon(driver.commit, keyed(f"{n}", Require(states[0])))
        return cls(driver, states)

    def next(self) -> int:
        """The index of the next state to look at, far from the previous one. There are few such
        states, so that the work of the driver is compared, and not the caches of the machine."""
        return next(self._turns) % PLACES * (len(self.states) // PLACES)

    def state(self) -> State:
        return self.states[self.next()]

    def recorded(self) -> str:
        """The id of a caller that a commit is recorded under."""
        return f"{self.next() // STATES_PER_RECORD}"


@define
class _Phases:
    """A store in which nearly all states have lost the label that they began with."""

    driver: Driver

    @classmethod
    async def fill(cls, driver: Driver, states: int) -> _Phases:
        for start in range(0, states, COMMIT_SIZE):
            ids = range(start, min(start + COMMIT_SIZE, states))
            new = (State(f"{n}", labels={"phase": "waiting"}) for n in ids)
            waiting = await driver.commit(plan(*(Pause(state) for state in new)))
            done = (state.with_labels(phase="done") for state in waiting)
            await driver.commit(plan(*(End(state) for state in done)))
        now = (State(f"now/{n}", labels={"phase": "waiting"}) for n in range(3))
        await driver.commit(plan(*(Pause(state) for state in now)))
        return cls(driver)


@define
class _Line:
    """A store with versions that are ready, and with as many that another owner has taken."""

    driver: Driver
    states: list[State] = field(factory=list[State])
    """Those that are ready, besides what is claimed meanwhile."""
    _turns: Iterator[int] = field(factory=itertools.count, init=False)

    @classmethod
    async def fill(cls, driver: Driver, versions: int) -> _Line:
        await line_up(driver, *(f"again/{n}" for n in range(CLAIMED)), flow="again")
        again = await driver.claim({"again": CLAIMED}, CLAIMED, "worker", "again", 0)
        assert len(again) == CLAIMED
        states: list[State] = []
        for start in range(0, versions, FEW_READY):
            numbers = range(start, start + FEW_READY)
            ids = (f"ready/{n}" for n in numbers)
            states += await line_up(driver, *ids, since=start, flow="busy")
            taken = (f"taken/{n}" for n in numbers)
            await hand_out(driver, *taken, owner="another", claim=f"{start}", until=start)
        return cls(driver, states)

    def next(self) -> int:
        return next(self._turns)


_Operation: TypeAlias = Callable[[], Awaitable[Any]]


async def _measure(operation: _Operation) -> list[int]:
    """How many nanoseconds each operation of one round takes."""
    times: list[int] = []
    for _ in range(REPEAT):
        began = perf_counter_ns()
        await operation()
        times.append(perf_counter_ns() - began)
    return times


async def _growth(short: _Operation, long: _Operation, allowed: float) -> float:
    """How many times as long an operation takes in the long store."""
    short_times: list[int] = []
    long_times: list[int] = []
    growth = float("inf")
    for turn in range(MAX_ROUNDS):
        short_times += await _measure(short)
        long_times += await _measure(long)
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


async def _record(store: _Filled) -> None:
    assert await store.driver.record(store.recorded())


async def _commit_what_is_recorded(store: _Filled) -> None:
    state = store.state()
    with pytest.raises(RecordedError):
        await store.driver.commit(keyed(store.recorded(), Pause(state)))


async def _forget_nothing(store: _Filled) -> None:
    assert await store.driver.forget_records(1, BATCH) == 0


async def _find_by_two(store: _Filled) -> None:
    assert await store.driver.find(Query(labels=store.state().labels))


async def _find_nothing(store: _Filled) -> None:
    assert await store.driver.find(Query(labels={"queue": "none"})) is None


async def _find_by(store: _Filled, query: Callable[[_Filled], Query]) -> None:
    assert await store.driver.find(query(store))


async def _page(
    store: _Filled, query: Callable[[_Filled], Query], *, newest_first: bool = False
) -> None:
    start = store.states[-1].rev - 200 if newest_first else store.states[0].rev - 1
    page = await store.driver.read(query(store), start, 20, newest_first=newest_first)
    assert page.versions


async def _page_at_the_head(store: _Filled) -> None:
    head = await store.driver.head()
    query = Query(labels={"queue": str(store.next() % QUEUES)})
    assert (await store.driver.read(query, head - 100, 20)).upto > head - 100


async def _due(store: _Filled) -> None:
    assert len((await store.driver.due(2_000_000, 10)).due) == 10


async def _nothing_due(store: _Filled) -> None:
    assert (await store.driver.due(1_000, 10)).due == ()


async def _count_old(store: _Filled) -> None:
    # there all is superseded; few places, since each has many versions (see `_Filled.next`)
    place = store.next() % (PLACES // BATCH) * (len(store.states) // BATCH)
    after = store.states[place].rev - len(store.states) - BATCH
    batch = await store.driver.compact(EVERYTHING, after, BATCH, dry_run=True)
    assert batch.versions == BATCH


_CONDITIONS: Mapping[str, Callable[[_Filled], Query]] = {
    "labels": lambda store: Query(labels={"queue": str(store.next() % QUEUES)}),
    "id": lambda store: Query(id=store.state().id),
    "id_prefix": lambda _: Query(id_prefix="state/"),
    "status": lambda _: Query(status=Status.DELAYED),
    "flow": lambda _: Query(flow="wake"),
    "since": lambda store: Query(since=store.states[0].committed_at),
    "latest": lambda _: Query(latest=True),
    "leaving": lambda store: Query(labels={"queue": str(store.next() % QUEUES)}, leaving=True),
}
"""field of ``Query`` -> a query whose matches grow with the store, but for one state's."""

_COSTS: Mapping[str, Callable[[_Filled], Awaitable[Any]]] = {
    "get": _get,
    "get a version": _get_version,
    "look for a record": _record,
    "commit what is recorded": _commit_what_is_recorded,
    "forget no record": _forget_nothing,
    "find by two labels": _find_by_two,
    "find nothing": _find_nothing,
    **{f"find by {name}": partial(_find_by, query=query) for name, query in _CONDITIONS.items()},
    **{f"read by {name}": partial(_page, query=query) for name, query in _CONDITIONS.items()},
    **{
        f"read by {name}, the newest first": partial(_page, query=query, newest_first=True)
        for name, query in _CONDITIONS.items()
    },
    "read a page at the head": _page_at_the_head,
    "what is due": _due,
    "nothing is due": _nothing_due,
    "count what may go": _count_old,
    "commit": _commit,
}


async def _claim(line: _Line, room: Mapping[str, int]) -> None:
    """Claim what is first in line, and release it to the end of the line."""
    turn = line.next()
    claimed = await line.driver.claim(room, CLAIMED, "worker", f"{turn}", MANY_READY + turn)
    assert len(claimed) == CLAIMED
    states = [each.state for each in claimed if isinstance(each, Claimed)]
    held = [(state.id, state.rev, f"{turn}") for state in states]
    await line.driver.release(held, "worker", MANY_READY + turn)


async def _claim_nothing(line: _Line) -> None:
    assert await line.driver.claim({"idle": CLAIMED}, CLAIMED, "worker", "none", 0) == ()


async def _claim_again(line: _Line) -> None:
    assert len(await line.driver.claim({"busy": 1}, 1, "worker", "again", 0)) == CLAIMED


async def _take(line: _Line) -> None:
    turn = line.next()
    middle = len(line.states) // 2
    versions = [(state.id, state.rev) for state in line.states[middle : middle + CLAIMED]]
    taken = await line.driver.take(versions, "worker", f"{turn}", MANY_READY)
    assert len(taken) == CLAIMED
    await line.driver.release([(*each, f"{turn}") for each in versions], "worker", MANY_READY)


async def _renew(line: _Line) -> None:
    held = [holding.held for holding in await line.driver.holdings("worker")]
    assert len(held) == CLAIMED
    renewal = await line.driver.renew(held, "worker", line.next())
    assert not renewal.moved | renewal.lost


async def _look_at_the_line(line: _Line) -> None:
    assert list(await line.driver.line()) == ["busy"]


async def _look_at_a_place(line: _Line) -> None:
    assert await line.driver.place("ready/0")
    assert await line.driver.place("taken/0")


async def _page_with_label(store: _Phases) -> None:
    """In the middle of the log, where all have the label and lose it."""
    middle = await store.driver.head() // 2
    await store.driver.read(Query(labels={"phase": "waiting"}), middle, 20)


async def _page_of_what_leaves(store: _Phases) -> None:
    middle = await store.driver.head() // 2
    query = Query(labels={"phase": "waiting"}, leaving=True)
    assert (await store.driver.read(query, middle, 20)).versions


async def _page_of_those_left(store: _Phases, *, newest_first: bool = False) -> None:
    query = Query(labels={"phase": "waiting"}, latest=True)
    start = await store.driver.head() + 1 if newest_first else 0
    page = await store.driver.read(query, start, 20, newest_first=newest_first)
    assert len(page.versions) == 3


async def _count_those_left(store: _Phases) -> None:
    assert await store.driver.count(Query(labels={"phase": "waiting"}), "status") == {"paused": 3}


async def _find_one_left(store: _Phases) -> None:
    assert await store.driver.find(Query(labels={"phase": "waiting"}))


_PHASE_COSTS: Mapping[str, Callable[[_Phases], Awaitable[Any]]] = {
    "find by a label": _find_one_left,
    "read current versions by a label": _page_of_those_left,
    "read current versions by a label, the newest first": partial(
        _page_of_those_left, newest_first=True
    ),
    "count by a label": _count_those_left,
}

_LINE_COSTS: Mapping[str, Callable[[_Line], Awaitable[Any]]] = {
    "claim and release": partial(_claim, room={"busy": CLAIMED}),
    "claim where all that is ready is another's": _claim_nothing,
    "claim again": _claim_again,
    "take and release": _take,
    "renew what an owner holds": _renew,
    "look at the line": _look_at_the_line,
    "look at a place": _look_at_a_place,
}
