"""Law 9, its own errors only: whatever its library raises, a driver raises errors of a store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from attrs import define

from ...commands import Pause
from ...driver import Driver
from ...errors import StoreError
from ...query import Query
from ...state import State, Status
from ..store import Faults, Store
from .base import Laws, hand_out, keyed, line_up, plan, put
from .runs import EVERYTHING, ref

MAX_STATEMENTS = 100
"""No method has as many."""


@define
class _Filled:
    """A store with something for each method, and a driver whose statements may fail."""

    driver: Driver
    faults: Faults
    payload: State
    """Has data called "order"."""
    _turn: int = 0

    @classmethod
    async def fill(cls, driver: Driver, faults: Faults) -> _Filled:
        (state,) = await put(driver, Pause(State("a", labels={"queue": "mail"}), to="x"))
        state = state.attach("order", b"pears")
        for _ in range(3):
            (state,) = await put(driver, Pause(state, to="x"))
        await line_up(driver, "ready")
        await hand_out(driver, "taken", owner="me", claim="c", until=1)
        await driver.commit(keyed("k", Pause(State("keyed"))))
        return cls(driver, faults, state)

    def turn(self) -> str:
        """A name that was not used yet."""
        self._turn += 1
        return f"turn {self._turn}"


_Call = Callable[[_Filled], Awaitable[Any]]


async def _load(store: _Filled) -> None:
    await store.driver.load(ref(store.payload, "order"))


async def _commit(store: _Filled) -> None:
    name = store.turn()
    new = State(name, labels={"queue": "mail"}).attach("order", name.encode())
    await store.driver.commit(keyed(name, Pause(new), Pause(State(f"{name}, too"))))


async def _repeat(store: _Filled) -> None:
    """A plan that holds no more."""
    again = plan(Pause(State(store.turn())))
    await store.driver.commit(again)
    await store.driver.commit(again)


async def _claim(store: _Filled) -> None:
    await store.driver.claim({"work": 1}, 1, "other", store.turn(), 0)


async def _take(store: _Filled) -> None:
    await store.driver.take([("ready", 5)], "other", store.turn(), 0)


async def _renew(store: _Filled) -> None:
    await store.driver.renew([("taken", 6, "c")], "me", 5)


async def _release(store: _Filled) -> None:
    await store.driver.release([("taken", 6, "c")], "me", 5)


async def _end_leases(store: _Filled) -> None:
    await store.driver.end_leases("me", 5)


async def _forget(store: _Filled) -> None:
    payload = ref(store.payload, "order")
    await store.driver.forget("a", [(payload.rev, payload.checksum)])


async def _compact(store: _Filled) -> None:
    (new,) = await put(store.driver, Pause(State(store.turn()).attach("order", b"plums")))
    await put(store.driver, Pause(State(new.id, rev=new.rev)))
    await store.driver.compact(EVERYTHING, new.rev - 1, 10)


async def _open(store: _Filled) -> None:
    await store.driver.close()
    await store.driver.open()


_LABELLED = Query(labels={"queue": "mail"}, status=Status.PAUSED, leaving=True)
_CALLS: Mapping[str, _Call] = {
    "commit": _commit,
    "commit again": _repeat,
    "record": lambda store: store.driver.record("k"),
    "forget_records": lambda store: store.driver.forget_records(1, 10),
    "get": lambda store: store.driver.get("a"),
    "find": lambda store: store.driver.find(_LABELLED),
    "read": lambda store: store.driver.read(_LABELLED, 0, 10),
    "read by time": lambda store: store.driver.read(Query(since=1), 9, 10, newest_first=True),
    "count": lambda store: store.driver.count(_LABELLED, "flow"),
    "head": lambda store: store.driver.head(),
    "due": lambda store: store.driver.due(1_000, 10),
    "claim": _claim,
    "take": _take,
    "renew": _renew,
    "release": _release,
    "end_leases": _end_leases,
    "owners": lambda store: store.driver.owners(),
    "holdings": lambda store: store.driver.holdings(),
    "place": lambda store: store.driver.place("ready"),
    "line": lambda store: store.driver.line(),
    "load": _load,
    "forget": _forget,
    "compact": _compact,
    "compact dry": lambda store: store.driver.compact(EVERYTHING, 0, 10, dry_run=True),
    "open": _open,
}
"""What is called, by the name of the method."""

_UNEXPECTED: Mapping[str, Callable[[], Exception]] = {
    "TypeError": partial(TypeError, "a page is damaged"),
    "RecursionError": RecursionError,
}


class ErrorLaws(Laws):
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize("name", _CALLS)
    @pytest.mark.parametrize("times", [1, 2], ids=["one", "two"])
    async def test_a_method_raises_only_errors_of_a_store(
        self, store: Store, name: str, times: int
    ) -> None:
        """Whatever any of its statements raises, of the store's library or anything else, and also
        the next one, with which it would clean up: a method raises a ``StoreError``, or does all
        the same what it was asked; no transaction stays open, and the next commit works."""
        async with self._faulty(store) as filled:
            makes = [*filled.faults.natives, *_UNEXPECTED.values()]
            for make in makes:
                for after in range(MAX_STATEMENTS):
                    filled.faults.begin(make, after, times)
                    try:
                        with anyio.fail_after(self.patience_s):
                            await _CALLS[name](filled)
                    except StoreError:
                        pass
                    except Exception as error:  # noqa: BLE001  (any other one is a fault)
                        pytest.fail(f"{name} raised {error!r}, which is no StoreError")
                    finally:
                        filled.faults.end()
                    if name == "open":
                        await _open(filled)
                    await self._is_usable(filled)
                    if not filled.faults.failed:
                        break
                else:
                    pytest.fail(f"{name} executes more than {MAX_STATEMENTS} statements")
                assert after or not name.startswith("commit"), "no statement came to be executed"

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_a_plan_that_fails_fails_alone(self, store: Store) -> None:
        """Of plans that are committed at the same time, those that the store cannot take fail, and
        all others are stored."""
        async with self._faulty(store) as filled:
            kinds = [*_UNEXPECTED.values(), *filled.faults.natives[-1:]]
            for kind, make in enumerate(kinds):
                failed: set[str] = set()

                async def commit(id: str, failed: set[str] = failed) -> None:
                    try:
                        await filled.driver.commit(plan(Pause(State(id))))
                    except StoreError:
                        failed.add(id)

                poison = {f"poison {kind} {n}" for n in (3, 11)}
                ids = {f"plan {kind} {n}" for n in range(20)} | poison
                filled.faults.begin(make, marker="poison")
                async with anyio.create_task_group() as tasks:
                    for id in sorted(ids):
                        tasks.start_soon(commit, id)
                filled.faults.end()
                assert failed == poison
                stored = {id for id in ids if await filled.driver.get(id) is not None}
                assert stored == ids - poison

    @asynccontextmanager
    async def _faulty(self, store: Store) -> AsyncGenerator[_Filled]:
        faults = store.faults()
        async with store.driver() as driver:
            yield await _Filled.fill(driver, faults)

    async def _is_usable(self, filled: _Filled) -> None:
        """The driver writes and reads, and so does nobody else against it."""
        id = filled.turn()
        with anyio.fail_after(self.patience_s):
            await put(filled.driver, Pause(State(id)))
            assert await filled.driver.get(id) is not None
