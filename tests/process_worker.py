"""One of several real processes on one store: ``process_worker.py ROLE SEED``.

An executor begins cases that nobody has begun yet, in an order of its own, and runs them. A worker
takes what is ready; a recoverer does so too, and goes on with what others left; "defaults" is a
recoverer with the policies that everybody has who names none. Every call of a
flow leaves a line in ``effects``, in the file system: this is what cannot be undone and is not in
the store.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import anyio
from permits import KINDS, next_task

from flowstate import (
    Commit,
    End,
    Engine,
    Flows,
    RetryPolicy,
    RevMismatchError,
    State,
    Transit,
    connect,
)
from flowstate.recovery import Recoverer, Worker

LEASE_S = 1.0
POLICY = RetryPolicy(lease=LEASE_S, max_attempts=1_000, backoff=0.1, max_backoff=0.5)
SLOTS = 10
STEP_S = float(os.environ.get("STEP_S", "0.05"))

flows = Flows()
chance = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)


def leave_effect(state: State) -> None:
    step = state.annotations.get("done", "0")
    line = f"{state.id} {step} {state.rev} {os.getpid()}\n"
    effects = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(effects, line.encode())
    finally:
        os.close(effects)


async def work(state: State, engine: Engine) -> Commit:
    """The next task of the case, which takes a while."""
    leave_effect(state)
    await anyio.sleep(chance.uniform(0, 2 * STEP_S))
    return await next_task(state, engine)


for name in ("receive", *KINDS):
    flows.add(name, work)


def ended_here(state: State) -> Commit:
    return Commit(End(state.with_labels(by=str(os.getpid()))))


@flows.flow
async def wait_for_go(state: State, engine: Engine) -> Commit:
    leave_effect(state)
    while not Path("go").exists():  # noqa: ASYNC110  (another process makes it)
        await anyio.sleep(0.005)
    return ended_here(state)


@flows.flow(inline=True)
def hold_up_the_loop(state: State, engine: Engine) -> Commit:
    """The first attempt lets nothing else of its process run until it is told to."""
    leave_effect(state)
    while not state.transition.attempt and not Path("go").exists():
        time.sleep(0.005)
    return ended_here(state)


async def execute(engine: Engine) -> None:
    cases = [json.loads(line) for line in Path("cases.jsonl").read_text().splitlines()]
    chance.shuffle(cases)
    for case in cases:
        state = State(case["id"]).attach("tasks", case["data"]["tasks"])
        try:
            # half of them it runs itself, the others are for whoever works
            begin = engine.start if chance.random() < 0.5 else engine.do
            await begin(Commit(Transit(state, "receive")))
        except RevMismatchError:
            continue  # begun before, here or by another
    await engine.idle()


async def execute_one(engine: Engine, id: str) -> None:
    """Run one state, and say how it was found in the end."""
    state = await engine.execute(await engine.get(id))
    print(state.rev, state.transition.status.value, state.labels.get("by"), flush=True)  # noqa: T201


async def main(role: str) -> None:
    policy, lease = (RetryPolicy(), 10.0) if role == "defaults" else (POLICY, LEASE_S)
    async with (
        connect(os.environ["STORE"]) as driver,
        Engine(driver, flows, retry=policy, max_background=SLOTS, grace=0) as engine,
    ):
        if role == "executor":
            await execute(engine)
        elif role in {"recoverer", "worker", "defaults"}:
            service = (
                Worker(engine, concurrency=50)
                if role == "worker"
                else Recoverer(engine, lease=lease, concurrency=50, name=f"{os.getpid()}")
            )
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async with service:
                    if role == "defaults":
                        print("up", flush=True)  # noqa: T201  (its parent reads it)
                    async for _ in signals:
                        break
        else:
            await execute_one(engine, role)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
