"""A process that works on a store, notes all that it does, and leaves its notes in a file.

    python -m tests.cluster.member URL NAME DIRECTORY

It adds states, counts, moves amounts between accounts that it shares with others, and watches, all
at once, until its standard input ends. It appends when each acknowledged commit began and ended to
``NAME.times``, and writes ``NAME.notes`` in the end.
"""

from __future__ import annotations

import pickle
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
from attrs import define, field

from flowstate import (
    Commit,
    Engine,
    Pause,
    Query,
    Require,
    RevMismatchError,
    State,
    StateNotFoundError,
    connect,
)
from flowstate.testing.history import RecordingDriver, Seen

from .notes import ACCOUNTS, TIMES, Notes

PACE_S = 0.01
"""Between two commits of a task: what makes it a load, and not all that the machine can do."""


@define
class Member:
    engine: Engine
    name: str
    directory: Path
    stopping: bool = False
    errors: list[str] = field(factory=list)

    async def work(self) -> None:
        with (self.directory / f"{self.name}.times").open("ab", buffering=0) as times:

            async def repeat(step: Callable[[int], Awaitable[object]]) -> None:
                turn = 0
                while not self.stopping:
                    turn += 1
                    began = time.monotonic()
                    try:
                        await step(turn)
                    except RevMismatchError:
                        continue  # somebody else was first
                    except Exception as error:  # noqa: BLE001  (what a user would have seen)
                        self.errors.append(f"{type(error).__name__}: {error}")
                    else:
                        times.write(TIMES.pack(began, time.monotonic()))
                    await anyio.sleep(PACE_S)

            async with anyio.create_task_group() as tasks:
                for step in (self.add, self.count, self.move, self.move):
                    tasks.start_soon(repeat, step)
                await anyio.to_thread.run_sync(sys.stdin.read)
                self.stopping = True

    async def add(self, turn: int) -> None:
        await self.engine.do(Commit(Pause(State(f"{self.name}/added/{turn}"))))

    async def count(self, _turn: int) -> None:
        """From what is stored, not from what it remembers."""
        try:
            state = await self.engine.get(f"{self.name}/count")
        except StateNotFoundError:
            state = State(f"{self.name}/count", annotations={"count": "0"})
        count = str(int(state.annotations["count"]) + 1)
        await self.engine.do(Commit(Pause(state.with_annotations(count=count))))

    async def move(self, turn: int) -> None:
        """Move an amount from one account to another, if a third has not changed."""
        ids = random.sample(ACCOUNTS, 3)
        source, target, third = [await self.engine.get(id) for id in ids]
        amount = random.randint(1, 10)
        move = f"{self.name}/{turn}/{random.getrandbits(32)}"

        def changed(state: State, by: int) -> Pause:
            has = str(int(state.annotations["has"]) + by)
            return Pause(state.with_annotations(has=has, by=str(by), move=move))

        await self.engine.do(
            Commit(changed(source, -amount), changed(target, amount), Require(third))
        )

    async def watch(self) -> Seen:
        """Everything, until this process says that it is done."""
        revs: list[int] = []
        async for state in self.engine.watch():
            revs.append(state.rev)
            if state.id == f"{self.name}/done":
                break
        return Seen(self.name, Query(), 0, revs[-1], tuple(revs))


async def main(url: str, name: str, directory: Path) -> None:
    async with connect(url) as driver:
        recording = RecordingDriver(driver)
        async with Engine(recording) as engine, anyio.create_task_group() as tasks:
            member = Member(engine, name, directory)
            seen: list[Seen] = []

            async def watch() -> None:
                seen.append(await member.watch())

            tasks.start_soon(watch)
            await member.work()
            await engine.do(Commit(Pause(State(f"{name}/done"))))
    notes = Notes(recording.plans, recording.acknowledged, seen[0], member.errors)
    (directory / f"{name}.notes").write_bytes(pickle.dumps(notes))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], Path(sys.argv[3]))
