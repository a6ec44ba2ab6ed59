"""What type checkers must infer. Nobody runs this file: ``test_typing.py`` has it checked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, assert_type

from msgspec import Meta, Struct

from flowstate import (
    Commit,
    Compaction,
    CompactionRun,
    Delay,
    End,
    Engine,
    Execute,
    Flows,
    Noop,
    Pause,
    Query,
    Require,
    Resume,
    State,
    Status,
    Transit,
    Versions,
    Watcher,
    connect,
)

flows = Flows()


class Order(Struct, frozen=True):
    item: str


async def doing(state: State, engine: Engine) -> None:
    assert_type(await engine.do(Transit(state, "next")), State)
    assert_type(await engine.do(Pause(state)), State)
    assert_type(await engine.do(Resume(state)), State)
    assert_type(await engine.do(Delay(state, after=1)), State)
    assert_type(await engine.do(End(state)), State)
    assert_type(await engine.do(Commit(Transit(state, "next"))), tuple[State, ...])
    assert_type(await engine.do(Commit(End(state), Require(state))), tuple[State, ...])
    await engine.do(Execute(state))
    await engine.do(Noop())

    (one,) = await engine.do(Commit(End(state)))
    assert_type(one, State)
    assert_type(await engine.execute(state), State)


async def reading(state: State, engine: Engine) -> None:
    assert_type(await engine.data(state, "order", type=Order), Order)
    assert_type(await engine.data(state, "order", type=dict[str, int]), dict[str, int])
    assert_type(await engine.data(state, "order", type=bytes), bytes)
    assert_type(await engine.data(state, "order", type=Order | None), Order | None)
    assert_type(await engine.data(state, "order", int | str), int | str)
    assert_type(await engine.data(state, "order", type=list[int] | None), list[int] | None)
    assert_type(await engine.data(state, "order", type=Literal["a", "b"]), Literal["a", "b"])
    assert_type(await engine.data(state, "order", type=Annotated[int, Meta(ge=0)]), int)
    await engine.data(state, "order", type=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    assert_type(await engine.data(state, "order"), Any)
    assert_type(await engine.get("a"), State)
    assert_type(await engine.get("a", rev=3), State)
    assert_type(await engine.find({"queue": "mail"}), State)
    assert_type(await engine.wait("a", Status.ENDED), State)
    assert_type(await engine.wait("a", [Status.ENDED, Status.PAUSED]), State)
    assert_type(await engine.wait("a", lambda state: state.rev > 3), State)
    assert_type(engine.states(Query(latest=True)), Versions)
    assert_type(engine.watch({"queue": "mail"}, after=3), Watcher)
    async for version in engine.watch():
        assert_type(version, State)
    async with engine.watch() as watcher:
        assert_type(watcher, Watcher)
        assert_type(await anext(watcher), State)
    assert_type(engine.compact(3600, keep=3), CompactionRun)
    async for total in engine.compact(timedelta(days=30), ended=True, dry_run=True):
        assert_type(total, Compaction)
    assert_type(await engine.compact(datetime.now(UTC)).finish(), Compaction)
    engine.compact("30d")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def values(state: State) -> None:
    assert_type(state.with_labels(a="b").without_labels("a"), State)
    assert_type(state.attach("order", Order("tea")).stack("caller", state), State)
    assert_type(state.labels, Mapping[str, str])
    state.labels["a"] = "b"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    state.rev = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Commit(Execute(state))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Commit(Commit(End(state)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Commit(Noop())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def opening() -> None:
    async with connect("memory:") as driver, Engine(driver, flows, grace=3) as engine:
        assert_type(engine, Engine)
