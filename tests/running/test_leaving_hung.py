"""Leaving an engine, a worker and a recoverer while the store does not answer: within a bound, and
what could not be given back goes on once its lease has run out."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from attrs import define, field

from flowstate import (
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    Query,
    RetryPolicy,
    State,
    Status,
    Transit,
    connect,
)
from flowstate.recovery import LEADER_ID, Recoverer, Worker
from flowstate.testing.virtual import TimedDriver, VirtualClock
from flowstate.testing.wrapper import WrapperDriver

pytestmark = pytest.mark.anyio

R = TypeVar("R")

LEASE = RetryPolicy(lease=10, max_attempts=2)
METHODS = ("commit", "claim", "take", "renew", "release", "holdings", "due", "get", "head", "wait")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is five seconds of this machine's time otherwise."""
    for name in (
        "background.COMMIT_TIMEOUT_S",
        "timers.COMMIT_TIMEOUT_S",
        "executions.RELEASE_TIMEOUT_S",
        "recovery.elector.RESIGN_TIMEOUT_S",
    ):
        monkeypatch.setattr(f"flowstate.{name}", 0.02)


@define(eq=False)
class Hanging(WrapperDriver):
    """Answers no call of these methods any more, once it is told so."""

    methods: frozenset[str]
    hangs: bool = field(default=False, init=False)

    async def around(self, name: str, call: Callable[[], Awaitable[R]]) -> R:
        if self.hangs and name in self.methods:
            await anyio.sleep_forever()
        return await call()


@asynccontextmanager
async def working(engine: Engine, service: str) -> AsyncIterator[None]:
    """The engine, and perhaps who finds it more to do."""
    async with engine, AsyncExitStack() as services:
        if service == "worker":
            await services.enter_async_context(Worker(engine, look=0.5))
        elif service == "recoverer":
            await services.enter_async_context(Recoverer(engine, lease=3))
        yield


def flows_of(clock: VirtualClock) -> Flows:
    """One that commits again and again, and one that takes long."""
    flows = Flows()

    @flows.flow
    async def hop(state: State, engine: Engine) -> Command:
        await sleep(clock, 50)
        return Commit(Transit(state, "hop"))

    @flows.flow
    async def rest(state: State, engine: Engine) -> Command:
        await sleep(clock, 3_600_000)
        return Commit(End(state))

    return flows


async def sleep(clock: VirtualClock, ms: int) -> None:
    end = clock.now() + ms
    while clock.now() < end:
        await clock.wait_until(end)


async def all_go_on(store: Driver, clock: VirtualClock, count: int) -> None:
    """Everything is run to its end by others, and none has used up an attempt but by its lease."""
    flows = Flows()

    async def ends(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    flows.add("hop", ends)
    flows.add("rest", ends)
    async with Engine(store, flows, clock=clock, retry=LEASE) as engine, Recoverer(engine, lease=3):
        began, ended = clock.now(), set[str]()
        async for state in engine.watch(Query(status=Status.ENDED)):
            ended.add(state.id)
            if len(ended) == count:
                break
        assert clock.now() - began < 25_000


@pytest.mark.parametrize(
    ("service", "methods"),
    [
        *(("recoverer", (method,)) for method in METHODS),
        *((service, METHODS) for service in ("engine", "worker", "recoverer")),
    ],
)
async def test_leaving_ends_whatever_does_not_answer(
    store: Driver, clock: VirtualClock, service: str, methods: tuple[str, ...]
) -> None:
    """Executions, claims, leases, the election: none of them holds it up for ever."""
    driver = Hanging(store, frozenset(methods))
    engine = Engine(driver, flows_of(clock), clock=clock, retry=LEASE, grace=1)
    async with working(engine, service):
        hop, rest, *_ = await engine.do(
            Commit(
                Transit(State("hop"), "hop"),
                Transit(State("rest"), "rest"),
                *(Delay(State(f"{n}"), "hop", after=0.3 * n) for n in range(20)),
            )
        )
        await engine.start(hop)
        await engine.start(rest)
        await sleep(clock, 2_000)
        driver.hangs = True
        await sleep(clock, 4_000)
    if not {"commit", "claim", "take", "release"} & {*methods}:
        held = {holding.id for holding in await store.holdings()}
        assert {LEADER_ID} >= held
    await all_go_on(store, clock, 22)


@pytest.mark.parametrize("service", ["engine", "worker", "recoverer"])
async def test_leaving_ends_while_another_process_holds_the_store(
    tmp_path: Path, clock: VirtualClock, service: str
) -> None:
    """SQLite: also the driver, although each write that is left would wait for the lock."""
    path = tmp_path / "store.db"
    url = f"sqlite:///{path}?busy_timeout=100"
    async with clock.running():
        async with TimedDriver(connect(url), clock) as driver:
            await driver.head()
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                engine = Engine(driver, flows_of(clock), clock=clock, retry=LEASE, grace=0)
                async with working(engine, service):
                    states = [Transit(State(f"{n}"), "hop") for n in range(20)]
                    for state in await engine.do(Commit(*states)):
                        await engine.start(state)
                    await sleep(clock, 2_000)
                    other.execute("BEGIN IMMEDIATE")
                await driver.driver.close()
        async with TimedDriver(connect(url), clock) as store:
            await all_go_on(store, clock, 20)
