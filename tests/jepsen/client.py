"""A process of the attack: ``python -m tests.jepsen.client ROLE NAME URL FOLDER [wild]``.

It does its role until it gets SIGTERM, and notes what it did in the folder. With *wild*, its clock
jumps back and forth. What it needs is there from the start (``begin``).
"""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define, field

from flowstate import (
    Commit,
    CompactedError,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    Pause,
    Query,
    Require,
    Retention,
    RetryPolicy,
    RevMismatchError,
    State,
    StoreError,
    Transit,
    UnknownOutcomeError,
    connect,
)
from flowstate.clock import SystemClock
from flowstate.leases import Claimed
from flowstate.recovery import Recoverer

from . import notes
from .notes import Notebook

ACCOUNT = "account/"
"""What their ids begin with."""
ACCOUNTS = 8
BALANCE = 100
"""Of each account, in the beginning."""
COUNTERS = 3
POLICY = RetryPolicy(lease=2.0, max_attempts=1_000_000, backoff=0.05, max_backoff=0.2)
LEADER_LEASE_S = 2.0
STEPS: Mapping[str, str] = {"count": "rest", "rest": "finish"}
"""Flow of a job -> the next one."""
TICKET = "ticket"
"""A flow that no engine has: what is ready for it is claimed by hand."""
JOBS = ("count/", f"{TICKET}/")
"""What the ids of jobs and tickets begin with."""
QUERIES: Mapping[str, Query] = {
    "all": Query(),
    "accounts": Query(id_prefix=ACCOUNT),
    "even": Query(labels={"parity": "even"}),
    "leaving": Query(labels={"parity": "even"}, leaving=True),
    "counting": Query(flow="count"),
}
PATIENCE_S = 0.05
"""Between two tries, where the store fails."""
JUMP_EVERY_S = 3
OBSERVED = "observed"
"""The file that says up to which time (ms) the log may be compacted."""


class JumpingClock(SystemClock):
    """A clock that is wrong now and then: for some seconds, by seconds or by an hour."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._period = -1
        self._offset = 0

    def now(self) -> int:
        period = time.monotonic_ns() // (JUMP_EVERY_S * 1_000_000_000)
        if period != self._period:
            chance = random.Random(f"{self._name}/{period}")
            wrong = [0, 0, 0, 0, 0, 0, 0, 0, 3_600_000, -3_600_000, 5_000, -5_000]
            self._period, self._offset = period, chance.choice(wrong)
        return super().now() + self._offset


@define
class Client:
    """Does one role on an open engine."""

    name: str
    engine: Engine
    notebook: Notebook
    folder: Path
    chance: random.Random = field(init=False)
    _number: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.name)

    async def trade(self) -> None:
        """Move money between two accounts, if a third one stays as it was seen."""
        while True:
            await self._breathe()
            numbers = self.chance.sample(range(ACCOUNTS), 3)
            try:
                one, other, third = [await self.engine.get(f"{ACCOUNT}{n}") for n in numbers]
            except StoreError:
                await anyio.sleep(PATIENCE_S)
                continue
            amount = self.chance.randint(1, 10)
            commit_id = self._next_id()
            await self._commit(
                commit_id,
                Pause(_with_balance(one, commit_id, -amount)),
                Pause(_with_balance(other, commit_id, amount)),
                Require(third),
            )

    async def submit(self) -> None:
        """Begin jobs, and tickets for those who claim by hand; some twice under the same id."""
        while True:
            await self._breathe()
            commit_id = self._next_id()
            flow = self.chance.choice(["count", "count", TICKET])
            job = State(f"{flow}/{commit_id}").with_annotations(commit=commit_id)
            for _ in range(self.chance.randint(1, 2)):
                await self._commit(commit_id, Transit(job, flow))

    async def watch(self) -> None:
        """Follow the log, and come back to where it was left, again and again."""
        kind = self.chance.choice(sorted(QUERIES))
        watcher, after = f"{self.name}/{kind}", 0
        while True:
            self.notebook.write(notes.Watching(watcher=watcher, query=kind, after=after))
            left = self.chance.randint(1, 500)
            try:
                async for state in self.engine.watch(QUERIES[kind], after=after):
                    after = state.rev
                    self.notebook.write(notes.Saw(watcher=watcher, rev=after))
                    left -= 1
                    if not left:
                        break
            except CompactedError as error:
                after = error.oldest - 1
                self.notebook.write(notes.Missed(watcher=watcher, upto=after))
            except StoreError:
                await anyio.sleep(PATIENCE_S)

    async def claim(self) -> None:
        """Claim tickets by hand; give some back, end the others, and now and then forget about
        them, as somebody does who hangs."""
        driver, owner = self.engine.driver, self.name
        while True:
            await self._breathe()
            claim = self._next_id()
            try:
                given = await driver.claim({TICKET: 3}, 3, owner, claim, self.engine.clock.now())
            except StoreError:
                await anyio.sleep(PATIENCE_S)
                continue
            states = [each.state for each in given if isinstance(each, Claimed)]
            versions = tuple((state.id, state.rev) for state in states)
            self.notebook.write(notes.Given(claim=claim, versions=versions))
            for state in states:
                await self._end_or_release(driver, owner, claim, state)

    async def _end_or_release(self, driver: Driver, owner: str, claim: str, state: State) -> None:
        chosen = self.chance.random()
        if chosen < 0.2:
            version = state.id, state.rev
            self.notebook.write(notes.Releasing(claim=claim, version=version))
            try:
                await driver.release([(*version, claim)], owner, self.engine.clock.now())
            except StoreError:
                await anyio.sleep(PATIENCE_S)
        elif chosen < 0.95:
            commit_id = self._next_id()
            await self._commit(commit_id, End(state.with_annotations(commit=commit_id)))

    async def recover(self) -> None:
        """Work, stand for election, and lead."""
        async with Recoverer(self.engine, lease=LEADER_LEASE_S, concurrency=20, name=self.name):
            await anyio.sleep_forever()

    async def compact(self) -> None:
        """Remove what the attack has seen, all the time."""
        while True:
            await anyio.sleep(self.chance.uniform(0.1, 0.5))
            before = int((self.folder / OBSERVED).read_text() or 0)
            upto, is_done = 0, False
            try:
                while not is_done:
                    batch = await self.engine.driver.compact(Retention(before), upto, 200)
                    upto, is_done = batch.upto, batch.done
            except StoreError:
                await anyio.sleep(PATIENCE_S)

    async def _commit(self, commit_id: str, *commands: Pause | End | Transit | Require) -> None:
        """Try a commit, and note what came of it. One whose outcome is unknown is tried again under
        the same id, or left at that."""
        moved = [(each.state.id, each.state.rev) for each in commands if type(each) is not Require]
        required = [(each.state.id, each.state.rev) for each in commands if type(each) is Require]
        self.notebook.write(
            notes.Tried(commit_id=commit_id, moved=tuple(moved), required=tuple(required))
        )
        is_unknown = False
        for _ in range(3):
            try:
                written = await self.engine.do(Commit(*commands), commit_id=commit_id)
            except UnknownOutcomeError as error:
                is_unknown = True
                self.notebook.write(notes.Unknown(commit_id=commit_id, why=str(error)))
            except RevMismatchError as error:
                self.notebook.write(notes.Refused(commit_id=commit_id, why=str(error)))
                return
            except StoreError as error:
                why = str(error)
                note = notes.Unknown if is_unknown else notes.Refused
                self.notebook.write(note(commit_id=commit_id, why=why))
                await anyio.sleep(PATIENCE_S)
                return
            else:
                revs = tuple(state.rev for state in written[: len(moved)])
                self.notebook.write(notes.Told(commit_id=commit_id, revs=revs))
                return

    def _next_id(self) -> str:
        self._number += 1
        return f"{self.name}-{self._number}"

    async def _breathe(self) -> None:
        await anyio.sleep(self.chance.uniform(0, 0.05))


def _with_balance(account: State, commit_id: str, change: int) -> State:
    balance = int(account.annotations["balance"]) + change
    parity = "even" if balance % 2 == 0 else "odd"
    return account.with_annotations(balance=str(balance), commit=commit_id).with_labels(
        parity=parity
    )


def job_flows(pace_s: float = 0.05) -> Flows:
    """What a job goes through: it counts once, rests for a moment, and is finished."""
    flows, chance = Flows(), random.Random()

    @flows.flow
    async def count(job: State, engine: Engine) -> Commit:
        await anyio.sleep(chance.uniform(0, pace_s))
        counter = await engine.get(f"counter/{chance.randrange(COUNTERS)}")
        counted = str(int(counter.annotations["count"]) + 1)
        return Commit(
            Delay(job, to="rest", after=chance.uniform(0, pace_s)),
            Pause(counter.with_annotations(count=counted, commit=job.id)),
        )

    @flows.flow
    async def rest(job: State, engine: Engine) -> Transit:
        return Transit(job, "finish")  # in memory: whoever dies here does it again

    @flows.flow
    async def finish(job: State, engine: Engine) -> Commit:
        await anyio.sleep(chance.uniform(0, pace_s))
        return Commit(End(job))

    return flows


async def begin(engine: Engine) -> None:
    """Put the accounts and the counters there."""
    accounts = [
        State(f"{ACCOUNT}{n}", labels={"parity": "even"}).with_annotations(
            balance=str(BALANCE), commit="begin"
        )
        for n in range(ACCOUNTS)
    ]
    counters = [
        State(f"counter/{n}").with_annotations(count="0", commit="begin") for n in range(COUNTERS)
    ]
    await engine.do(Commit(*map(Pause, [*accounts, *counters])), commit_id="begin")


ROLES: Mapping[str, tuple[Callable[[Client], Coroutine[Any, Any, None]], ...]] = {
    "client": (Client.trade, Client.trade, Client.submit, Client.watch),
    "worker": (Client.recover, Client.watch),
    "claimer": (Client.claim,),
    "compactor": (Client.compact,),
}
"""role -> what a process that has it does at the same time"""


async def main(role: str, name: str, url: str, folder: Path, *, wild: bool) -> None:
    """Do a role until SIGTERM. Where the store cannot be opened, try again."""
    notebook = Notebook(folder / f"{name}.notes")
    flows = job_flows() if role == "worker" else Flows()
    clock = JumpingClock(name) if wild else SystemClock()

    async def work() -> None:
        while True:
            try:
                async with (
                    connect(url) as driver,
                    Engine(driver, flows, retry=POLICY, clock=clock, grace=1, owner=name) as engine,
                ):
                    client = Client(name, engine, notebook, folder)
                    async with anyio.create_task_group() as tasks:
                        for task in ROLES[role]:
                            tasks.start_soon(task, client)
            except* StoreError:
                await anyio.sleep(PATIENCE_S)

    try:
        async with anyio.create_task_group() as tasks:
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                tasks.start_soon(work)
                async for _ in signals:
                    break
            tasks.cancel_scope.cancel()
    except BaseException:
        notebook.write(notes.Trouble(what=traceback.format_exc()))
        raise


if __name__ == "__main__":
    _, role, name, url, folder, *wild = sys.argv
    anyio.run(lambda: main(role, name, url, Path(folder), wild=bool(wild)))
