"""Processes on one store that are killed and stopped, and a store that is hurt, for a while."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread
from attrs import define, field

from flowstate import (
    Commit,
    CompactedError,
    Driver,
    End,
    Engine,
    Query,
    State,
    Status,
    StoreError,
    connect,
)
from flowstate.clock import SystemClock
from flowstate.recovery import Recoverer

from . import client, notes
from .judge import Evidence, judge
from .notes import Given, Missed, Refused, Saw, Told, Unknown, Watching
from .stores import Target

ROOT = Path(__file__).parents[2]
CREW = ("client", "client", "worker", "worker", "claimer", "claimer", "compactor")
STOPS_S = (0.3, 3.0, 13.0)
"""How long a process is stopped: also for longer than every lease and every wait for a lock."""
CALM_S = 0.3
"""Between two blows, on average; and so long that something happens,"""
CALM_VERSIONS = 20
"""fewer than so many new versions,"""
STALLED_S = 20.0
"""but no longer than this."""
PATIENCE_S = 180.0
"""How long what is left may take to come to rest."""
LEAVING_S = 30.0
"""How long a process may take to leave, also while its store is held up."""
SEEN_BEHIND_MS = 500
"""The newest of the log that is not compacted."""


@define
class Crew:
    """The processes of an attack."""

    urls: Sequence[str]
    folder: Path
    wild: bool
    """Whether their clocks jump."""
    _members: dict[str, subprocess.Popen[bytes]] = field(factory=dict, init=False)
    _started: int = field(default=0, init=False)
    problems: list[str] = field(factory=list[str], init=False)

    def start(self, role: str) -> None:
        url = self.urls[self._started % len(self.urls)]
        self._started += 1
        name = f"{role}{self._started}"
        with (self.folder / f"{name}.log").open("wb") as log:
            self._members[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.jepsen.client", role, name, url, str(self.folder)]
                + ["wild"] * self.wild,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def kill(self, name: str) -> None:
        """Kill -9, and another one of the same role."""
        process = self._members.pop(name)
        process.kill()
        process.wait()
        self.start(_role(name))

    def leave(self, name: str) -> None:
        """Ask a process to end, and start another one of the same role when it has."""
        self._leave(name, self._members.pop(name))
        self.start(_role(name))

    def send(self, name: str, number: signal.Signals) -> None:
        if (process := self._members.get(name)) is not None:
            process.send_signal(number)

    def end(self) -> None:
        """Ask all to end."""
        for process in self._members.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for name, process in self._members.items():
            self._leave(name, process)
        self._members.clear()

    def _leave(self, name: str, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            code = process.wait(LEAVING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.problems.append(f"{name} did not end within {LEAVING_S:g} s")
        else:
            if code not in {0, -signal.SIGTERM}:  # that, if it was still being started
                self.problems.append(f"{name} ended with {code}")


def _role(name: str) -> str:
    return name.rstrip("0123456789")


@define
class Observer:
    """Reads the log while it is made, and says what may be compacted of it."""

    url: str
    folder: Path
    log: list[State] = field(factory=list[State], init=False)
    problems: list[str] = field(factory=list[str], init=False)
    longest_s: float = field(default=0.0, init=False)
    """The longest that nothing new was seen."""

    async def watch(self) -> None:
        last = time.monotonic()
        while True:
            after = self.log[-1].rev if self.log else 0
            try:
                async with connect(self.url) as driver, Engine(driver) as engine:
                    async for state in engine.watch(after=after):
                        self.log.append(state)
                        self.longest_s = max(self.longest_s, time.monotonic() - last)
                        last = time.monotonic()
                        self._allow(state.committed_at - SEEN_BEHIND_MS)
            except CompactedError as error:
                self.problems.append(f"what was not seen yet was compacted: {error}")
                return
            except StoreError:
                await anyio.sleep(client.PATIENCE_S)

    async def seen(self, versions: int) -> None:
        """Return when so many versions were seen, or nothing seems to happen."""
        with anyio.move_on_after(STALLED_S):
            while len(self.log) < versions:  # noqa: ASYNC110  (nobody else needs to be told)
                await anyio.sleep(0.02)

    def _allow(self, before: int) -> None:
        path = self.folder / client.OBSERVED
        new = path.with_suffix(".new")
        new.write_text(f"{max(0, before)}")
        new.replace(path)


@define(frozen=True)
class Result:
    """What an attack came to."""

    figures: Mapping[str, float]
    problems: Sequence[str]
    evidence: Evidence = field(repr=False)


@define
class Attack:
    """One attack on a store, for so many seconds, and until so many versions were seen."""

    target: Target
    folder: Path
    seconds: float
    versions: int = 0
    seed: int = 0
    wild: bool = True
    tell: Callable[[str], None] = lambda _: None
    blows: Counter[str] = field(factory=Counter[str], init=False)
    _notebook: notes.Notebook = field(init=False)

    async def run(self) -> Result:
        chance = random.Random(self.seed)
        self._notebook = notes.Notebook(self.folder / "attack.notes")
        (self.folder / client.OBSERVED).write_text("0")
        async with connect(self.target.urls[0]) as driver, Engine(driver) as engine:
            await client.begin(engine)
        observer = Observer(self.target.urls[0], self.folder)
        crew = Crew(self.target.urls, self.folder, self.wild)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(observer.watch)
                for role in CREW:
                    crew.start(role)
                await self._strike(crew, observer, chance)
                self.tell("calm")
                await anyio.to_thread.run_sync(self.target.calm)
                await anyio.to_thread.run_sync(crew.end)
                left, restless = await self._rest(observer)
                tasks.cancel_scope.cancel()
        finally:
            crew.end()
        files = sorted(self.folder.glob("*.notes"))
        written = {path.stem: list(notes.read(path)) for path in files}
        evidence = Evidence(tuple(observer.log), left, written)
        problems = [*crew.problems, *observer.problems, *restless, *judge(evidence)]
        return Result(self._figures(evidence, observer), problems, evidence)

    async def _strike(self, crew: Crew, observer: Observer, chance: random.Random) -> None:
        """One blow after the other, each at a moment that nobody chose."""
        async with anyio.create_task_group() as tasks:

            async def stop(name: str, seconds: float) -> None:
                crew.send(name, signal.SIGSTOP)
                await anyio.sleep(seconds)
                crew.send(name, signal.SIGCONT)

            end = time.monotonic() + self.seconds
            while time.monotonic() < end or len(observer.log) < self.versions:
                await anyio.sleep(chance.expovariate(1 / CALM_S))
                await observer.seen(len(observer.log) + chance.randrange(CALM_VERSIONS))
                blow = chance.choice(["kill -9", "SIGSTOP", "SIGTERM", *self.target.faults])
                self.tell(blow)
                name = chance.choice(crew.names)
                if blow == "kill -9":
                    crew.kill(name)
                elif blow == "SIGTERM":
                    await anyio.to_thread.run_sync(crew.leave, name)
                elif blow == "SIGSTOP":
                    tasks.start_soon(stop, name, chance.choice(STOPS_S))
                else:
                    await anyio.to_thread.run_sync(self._hurt, blow, chance)
                self.blows[blow] += 1
            tasks.cancel_scope.cancel()

    def _hurt(self, blow: str, chance: random.Random) -> None:
        """Do something to the store. What it forgets by that it forgets before this is over."""
        if blow in self.target.crashes:
            self._notebook.write(notes.Crashed(is_over=False))
            self.target.faults[blow](chance)
            self._notebook.write(notes.Crashed(is_over=True))
        else:
            self.target.faults[blow](chance)

    async def _rest(self, observer: Observer) -> tuple[tuple[State, ...], list[str]]:
        """Work off what is left, and read what is stored then. The clock of who does it is ahead of
        all others, since what one of those set is due by its own time."""
        flows = client.job_flows(0)
        flows.add(client.TICKET, _end)
        async with connect(self.target.urls[0]) as driver:
            async with Engine(
                driver, flows, retry=client.POLICY, clock=_Ahead(), owner="healer"
            ) as engine:
                with anyio.move_on_after(PATIENCE_S) as patience:
                    async with Recoverer(engine, lease=client.LEADER_LEASE_S):
                        while not await _rests(driver):  # noqa: ASYNC110
                            await anyio.sleep(0.1)
            head = await driver.head()
            while observer.log[-1].rev < head and not observer.problems:  # noqa: ASYNC110
                await anyio.sleep(0.05)
            left = await _all(driver)
        restless = [f"not at rest after {PATIENCE_S:g} s"] if patience.cancelled_caught else []
        return left, restless

    def _figures(self, evidence: Evidence, observer: Observer) -> Mapping[str, float]:
        counts = Counter(type(note) for note in evidence.every)
        return {
            "versions": len(evidence.log),
            "compacted": len(evidence.log) - len(evidence.left),
            "acknowledged": counts[Told],
            "refused": counts[Refused],
            "unknown": counts[Unknown],
            "claims": sum(1 for note in evidence.every if isinstance(note, Given)),
            "watched": counts[Saw],
            "watchers came back": counts[Watching],
            "watchers too late": counts[Missed],
            **self.blows,
            "longest silence (s)": round(observer.longest_s, 1),
        }


class _Ahead(SystemClock):
    def now(self) -> int:
        return super().now() + 2 * 3_600_000


async def _end(ticket: State, _: Engine) -> Commit:
    return Commit(End(ticket))


async def _rests(driver: Driver) -> bool:
    """Whether no job and no ticket is still to be moved."""
    moving = (Status.RUNNING, Status.DELAYED)
    queries = [Query(status=moving, id_prefix=prefix) for prefix in client.JOBS]
    return all([await driver.find(query) is None for query in queries])


async def _all(driver: Driver) -> tuple[State, ...]:
    left: list[State] = []
    upto, head = 0, await driver.head()
    while upto < head:
        page = await driver.read(Query(), upto, 1_000)
        left += page.versions
        upto = page.upto
    return tuple(left)
