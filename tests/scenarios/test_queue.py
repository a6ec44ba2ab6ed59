"""A queue: paused states with a label, and a worker that takes them in the order of the log."""

from __future__ import annotations

import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    End,
    Engine,
    Flows,
    Noop,
    Pause,
    Query,
    RevMismatchError,
    State,
    Status,
    Transit,
)

pytestmark = pytest.mark.anyio


async def put(engine: Engine, id: str) -> State:
    (item,) = await engine.do(Commit(Pause(State(id, labels={"queue": "mail"}), to="send")))
    return item


def make_flows(sent: list[tuple[str, str]]) -> Flows:
    flows = Flows()

    @flows.flow
    async def worker(state: State, engine: Engine) -> Command:
        queue = Query(labels={"queue": "mail"}, status=Status.PAUSED, latest=True)
        async for item in engine.watch(queue):
            taken = item.without_labels("queue").with_labels(worker=state.id)
            try:
                (taken,) = await engine.do(Commit(Transit(taken, "send")))
            except RevMismatchError:
                continue  # another worker has it
            await engine.execute(taken)
        return Noop()

    @flows.flow
    async def send(state: State, engine: Engine) -> Command:
        sent.append((state.id, state.labels["worker"]))
        return Commit(End(state))

    return flows


async def test_a_worker_takes_what_is_queued_and_what_comes_later_in_order(
    driver: Driver,
) -> None:
    sent: list[tuple[str, str]] = []

    async with Engine(driver, make_flows(sent)) as engine:
        for n in (1, 2):
            await put(engine, f"mail-{n}")
        (worker,) = await engine.do(Commit(Transit(State("ann"), "worker")))
        await engine.start(worker)
        await engine.wait("mail-2", Status.ENDED)
        await put(engine, "mail-3")
        await engine.wait("mail-3", Status.ENDED)

        assert sent == [("mail-1", "ann"), ("mail-2", "ann"), ("mail-3", "ann")]
        await engine.do(Commit(End(worker)))  # ending its state stops the worker


async def test_several_workers_send_each_item_once(driver: Driver) -> None:
    sent: list[tuple[str, str]] = []
    names = [f"mail-{n}" for n in range(10)]

    async with Engine(driver, make_flows(sent)) as engine:
        workers = await engine.do(Commit(*(Transit(State(name), "worker") for name in "ab")))
        for worker in workers:
            await engine.start(worker)
        for name in names:
            await put(engine, name)
        for name in names:
            await engine.wait(name, Status.ENDED)

        assert sorted(id for id, _ in sent) == names
        await engine.do(Commit(*(End(worker) for worker in workers)))


async def test_two_workers_that_want_one_item_get_it_once(driver: Driver) -> None:
    async with Engine(driver) as engine:
        item = await put(engine, "mail-1")

        await engine.do(Commit(Transit(item.with_labels(worker="ann"), "send")))
        with pytest.raises(RevMismatchError):
            await engine.do(Commit(Transit(item.with_labels(worker="bob"), "send")))

        assert (await engine.get("mail-1")).labels["worker"] == "ann"
