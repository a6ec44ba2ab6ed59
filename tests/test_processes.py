"""Executors and recoverers as real processes on one file: killed, stopped, and held up.

The cases are those of ``test_permits``; without them the ten that come with the example are run, in
fewer rounds.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from attrs import define, field

from flowstate import (
    Cause,
    Commit,
    Delay,
    Engine,
    Query,
    RetryPolicy,
    State,
    Status,
    Transit,
    connect,
)
from flowstate.recovery import LEADER_ID
from flowstate.testing.history import History, check

from .cli.shell import wait_for
from .postgres import Database, target, with_options
from .test_permits import ALL, ROOT, SHIPPED, read_cases

WORKER = ROOT / "tests" / "process_worker.py"
LEASE_S = 1.0
POLICY = RetryPolicy(lease=LEASE_S, max_attempts=1_000, backoff=0.1, max_backoff=0.5)
TRIED_AGAIN = frozenset({Cause.RETRY, Cause.LOST})
PROMPT_S = LEASE_S + 1.0
"""Within this, what was left goes on."""
TIMEOUT_S = 60.0
"""Longer than anything here takes on a slow machine: to fail, not to wait."""
SEED = 20111011
ROLES = ("executor", "recoverer", "recoverer", "recoverer", "worker")
FILE = "store.db"


@define
class Crew:
    """Processes on one store, in one directory."""

    directory: Path
    url: str
    steps: str = "0.05"
    members: list[subprocess.Popen[str]] = field(factory=list)

    def start(self, role: str, seed: int = 0) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", WORKER, role, str(seed)],
            cwd=self.directory,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "docs/examples"))),
                "STEP_S": self.steps,
                "STORE": self.url,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        self.members.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        self.members.remove(process)
        process.kill()
        assert process.wait(TIMEOUT_S) == -signal.SIGKILL, "it ended before it could be killed"
        if process.stdout:
            process.stdout.close()

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Stop it outside a transaction: inside, it would hold up all who write. PostgreSQL ends
        such a session after a while; SQLite's file stays locked for as long as it is stopped."""
        process.send_signal(signal.SIGSTOP)
        while self._is_locked():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGSTOP)

    def _is_locked(self) -> bool:
        if self.url.startswith("sqlite:"):
            with closing(sqlite3.connect(self.directory / FILE, timeout=1)) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return True
                return False
        store = target(self.url)
        with store.connect() as connection:
            free = connection.execute(store.sql("SELECT 1 FROM {s}.head FOR UPDATE SKIP LOCKED"))
            return not free.fetchall()

    def end(self) -> None:
        for process in list(self.members):
            process.kill()
            process.send_signal(signal.SIGCONT)
            process.wait(TIMEOUT_S)
            if process.stdout:
                process.stdout.close()

    def effects(self) -> list[list[str]]:
        """id, step, revision and process of each call of a flow."""
        path = self.directory / "effects"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Engine]:
        async with (
            connect(self.url) as driver,
            Engine(driver, retry=POLICY) as engine,
        ):
            with anyio.fail_after(TIMEOUT_S):
                yield engine


@pytest.fixture(params=["sqlite", "postgres"])
def crew(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crew]:
    url = f"sqlite:///{tmp_path / FILE}"
    if request.param == "postgres":
        database: Database = request.getfixturevalue("postgres")
        url = database.new_store()
    crew = Crew(tmp_path, url)
    yield crew
    crew.end()


def now() -> int:
    return time.time_ns() // 1_000_000


async def leader(engine: Engine, after: int = 0) -> State:
    """The state of the election once somebody leads in a term later than *after*."""
    async for state in engine.watch(Query(id=LEADER_ID), after=after):
        if state.transition.status is Status.RUNNING:
            return state
    raise AssertionError("a watcher does not end")


async def effect(crew: Crew, pid: int) -> None:
    """Return once that process has called a flow."""
    while not any(line[3] == str(pid) for line in crew.effects()):  # noqa: ASYNC110
        await anyio.sleep(0.005)


async def all_ended(engine: Engine, count: int) -> None:
    ended: set[str] = set()
    async for state in engine.watch(Query(status=Status.ENDED)):
        ended.add(state.id)
        if len(ended) == count:
            return


# ---------------------------------------------------------------- killed at random


@pytest.mark.skipif(not ALL.exists(), reason=f"the real cases are not in {ALL.parent}")
def test_all_cases_end_with_their_exact_history_through_sixty_kills(crew: Crew) -> None:
    survive(crew, ALL, rounds=60)


def test_the_shipped_cases_end_with_their_exact_history_through_six_kills(crew: Crew) -> None:
    crew.steps = "0.3"
    survive(crew, SHIPPED, rounds=6)


def survive(crew: Crew, source: Path, rounds: int) -> None:
    """Every round kills one of an executor, three that recover and one that only works, and starts
    another."""
    cases = read_cases(source)
    (crew.directory / "cases.jsonl").write_bytes(source.read_bytes())
    chance = random.Random(SEED)
    roles = {crew.start(role, seed): role for seed, role in enumerate(ROLES)}
    wait_for(crew.effects)
    for kill in range(rounds):
        time.sleep(chance.uniform(0, 0.5))  # the moment of the kill, not a wait for anything
        victim = chance.choice([process for process in roles if process.poll() is None])
        if kill == 0:  # one that is in the middle of something, for certain
            busy = crew.effects()[0][3]
            victim = next(process for process in roles if str(process.pid) == busy)
        role = roles.pop(victim)
        crew.kill(victim)
        roles[crew.start(role, seed=kill + 100)] = role
    steps = sum(len(tasks) + 1 for tasks in cases.values())
    assert len({(id, step) for id, step, _, _ in crew.effects()}) < steps, "there was work to kill"

    async def look() -> None:
        async with crew.store() as engine:
            await all_ended(engine, len(cases))
            histories: dict[str, list[State]] = defaultdict(list)
            async for version in engine.states():
                if version.id != LEADER_ID:
                    histories[version.id].append(version)
            assert check(await History.read(engine.driver, POLICY)) == []
        assert histories.keys() == cases.keys()
        for id, tasks in cases.items():
            assert_exact(histories[id], tasks)
        assert_effects(crew, histories)

    anyio.run(look)


def assert_exact(history: list[State], tasks: list[Any]) -> None:
    """Begun, each task once and in order, ended; and between them only retries of the same."""
    for before, after in pairwise(history):
        if after.transition.cause in TRIED_AGAIN:
            assert (before.transition.to, before.annotations) == (
                after.transition.to,
                after.annotations,
            )
            is_begun = before.transition.status is Status.RUNNING  # or it waited for its backoff
            assert after.transition.attempt == before.transition.attempt + is_begun
    first = [version for version in history if version.transition.cause not in TRIED_AGAIN]
    begun, *done, ended = first
    assert begun.transition.to == "receive"
    assert ended.transition.status is Status.ENDED
    assert [
        (
            version.labels["task"],
            version.labels["resource"],
            version.transition.annotations["group"],
            version.transition.annotations["at"],
        )
        for version in done
    ] == tasks


def assert_effects(crew: Crew, histories: dict[str, list[State]]) -> None:
    """Every step had its effect at least once, and some more than once: that is the price."""
    effects = Counter((id, int(step)) for id, step, _, _ in crew.effects())
    steps = {(id, step) for id, versions in histories.items() for step in range(steps_of(versions))}
    assert effects.keys() == steps
    assert max(effects.values()) > 1


def steps_of(versions: list[State]) -> int:
    """How many flows were called to make this history: each that did not end in a retry."""
    return sum(version.transition.cause not in TRIED_AGAIN for version in versions) - 1


# ---------------------------------------------------------------- how soon it goes on


def test_what_a_killed_executor_ran_goes_on_within_its_lease_and_a_second(crew: Crew) -> None:
    (crew.directory / "cases.jsonl").write_bytes(SHIPPED.read_bytes())
    crew.steps = "0.2"

    async def check() -> None:
        async with crew.store() as engine:
            crew.start("recoverer")
            await leader(engine)
            executor = crew.start("executor")
            await effect(crew, executor.pid)
            crew.kill(executor)
            killed = now()
            left = [
                holding
                for holding in await engine.timers.holdings()
                if f"/{executor.pid}/" in holding.place.owner
            ]
            assert left
            for holding in left:
                again = await anext(engine.watch(Query(id=holding.id), after=holding.rev))
                assert again.transition.cause is Cause.LOST
                assert again.committed_at <= killed + PROMPT_S * 1000

    anyio.run(check)


def test_a_killed_leader_is_replaced_within_its_lease_and_a_second(crew: Crew) -> None:
    async def check() -> None:
        async with crew.store() as engine:
            (crew.directory / "go").touch()
            recoverers = [crew.start("recoverer") for _ in range(2)]
            term = await leader(engine)
            first = next(one for one in recoverers if str(one.pid) == term.labels["leader"])
            await engine.do(Commit(Delay(State("a"), "hold_up_the_loop", after=0)))
            await engine.wait("a", Status.ENDED)
            crew.kill(first)
            killed = now()
            second = await leader(engine, after=term.rev)
            assert second.labels["leader"] != term.labels["leader"]
            assert second.committed_at <= killed + PROMPT_S * 1000
            await engine.do(Commit(Delay(State("b"), "hold_up_the_loop", after=0)))
            await engine.wait("b", Status.ENDED)

    anyio.run(check)


def test_a_process_that_dies_of_the_last_attempt_leaves_its_state_failed(crew: Crew) -> None:
    async def check() -> None:
        async with crew.store() as engine:
            once = State("a", retry=RetryPolicy(lease=LEASE_S, max_attempts=1))
            await engine.do(Commit(Transit(once, "wait_for_go")))
            executor = crew.start("a")
            await effect(crew, executor.pid)
            crew.kill(executor)
            crew.start("recoverer")
            failed = await engine.wait("a", Status.FAILED)
            reason = "gave up after 1 attempt: the lease ran out: its executor died or hung"
            assert (Cause.GAVE_UP, reason) == (failed.transition.cause, failed.transition.reason)
            assert [str(executor.pid)] == [line[3] for line in crew.effects()]

    anyio.run(check)


# ---------------------------------------------------------------- who is there


@pytest.fixture
def present(crew: Crew) -> Crew:
    """On PostgreSQL, a store that knows soon who does not come back."""
    if crew.url.startswith("postgresql:"):
        crew.url = with_options(crew.url, reconnect="1")
    return crew


async def default_recoverer(crew: Crew) -> subprocess.Popen[str]:
    """A process that works and stands for election, with the policies that everybody has."""
    process = crew.start("defaults")
    assert process.stdout
    assert await anyio.to_thread.run_sync(process.stdout.readline) == "up\n"
    return process


def test_what_a_killed_process_led_and_ran_goes_on_without_waiting_for_its_leases(
    present: Crew,
) -> None:
    """By the clock of the log, and the leases that it had just renewed."""

    async def check() -> None:
        async with present.store() as engine:
            first = await default_recoverer(present)
            term = await leader(engine)
            leased = State("a", retry=RetryPolicy())  # not that of this test's own engine
            (begun,) = await engine.do(Commit(Transit(leased, "wait_for_go")))
            await effect(present, first.pid)
            second = await default_recoverer(present)
            places = [await engine.timers.place(id) for id in ("a", LEADER_ID)]
            present.kill(first)
            lost = await anext(engine.watch(Query(id="a"), after=begun.rev))
            assert (lost.transition.cause, lost.transition.attempt) == (Cause.LOST, 1)
            new = await leader(engine, after=term.rev)
            leaders = [each.labels["leader"] for each in (term, new)]
            assert leaders == [str(first.pid), str(second.pid)]
            for place, state, spare_ms in zip(places, (lost, new), (10_000, 0), strict=True):
                assert place is not None
                assert place.until is not None
                assert state.committed_at < place.until - spare_ms
            await effect(present, second.pid)

    anyio.run(check)


def test_a_process_that_was_stopped_is_not_taken_for_dead(present: Crew) -> None:
    """It has its lease, as long as that is: others look, lead and fire, and leave it alone."""

    async def check() -> None:
        async with present.store() as engine:
            leased = State("a", retry=RetryPolicy())
            await engine.do(Commit(Transit(leased, "wait_for_go")))
            executor = present.start("a")
            await effect(present, executor.pid)
            await default_recoverer(present)
            await leader(engine)
            present.stop(executor)
            place = await engine.timers.place("a")
            assert place is not None
            assert (await engine.driver.owners())[place.owner] is True
            await engine.do(Commit(Delay(State("b"), "nobody", after=1)))
            await engine.wait("b", Status.RUNNING)  # it has looked around since
            assert await engine.timers.place("a") == place
            (present.directory / "go").touch()
            executor.send_signal(signal.SIGCONT)
            ended = await engine.wait("a", Status.ENDED)
            assert ended.labels["by"] == str(executor.pid)
            assert [line[3] for line in present.effects()] == [str(executor.pid)]

    anyio.run(check)


# ---------------------------------------------------------------- alive, but not in time


@pytest.mark.parametrize("kind", ["stopped", "held up"])
def test_an_executor_that_was_out_for_longer_than_its_lease_loses(crew: Crew, kind: str) -> None:
    """One winner and no transition twice: whoever recovered it has the newer revision."""
    flow = {"stopped": "wait_for_go", "held up": "hold_up_the_loop"}[kind]

    async def check() -> None:
        async with crew.store() as engine:
            (begun,) = await engine.do(Commit(Transit(State("a"), flow)))
            executor = crew.start("a")
            await effect(crew, executor.pid)
            if kind == "stopped":
                crew.stop(executor)
            recoverer = crew.start("recoverer")
            await effect(crew, recoverer.pid)
            (crew.directory / "go").touch()
            executor.send_signal(signal.SIGCONT)
            ended = await engine.wait("a", Status.ENDED)

            assert executor.stdout
            found = await anyio.to_thread.run_sync(executor.stdout.readline)
            assert executor.wait(TIMEOUT_S) == 0
            history = [one async for one in engine.states(Query(id="a"))]
            assert [one.transition.status.value for one in history] == [
                *("running", "running", "ended"),
            ]
            assert history[0] == begun
            assert history[1].transition.cause is Cause.LOST
            assert ended.labels["by"] == str(recoverer.pid)
            assert found.split()[1] in {"running", "ended"}, "it found the newest and left quietly"
            assert {line[3] for line in crew.effects()} == {str(executor.pid), str(recoverer.pid)}

    anyio.run(check)


def test_a_leader_that_was_stopped_for_longer_than_its_lease_fires_nothing_twice(
    crew: Crew,
) -> None:
    (crew.directory / "go").touch()
    count = 200

    async def check() -> None:
        async with crew.store() as engine:
            first = crew.start("recoverer")
            term = await leader(engine)
            crew.start("recoverer")
            crew.stop(first)
            second = await leader(engine, after=term.rev)
            for n in range(count):
                if n == count // 2:
                    first.send_signal(signal.SIGCONT)
                await engine.do(Commit(Delay(State(f"s{n}"), "wait_for_go", after=0)))
            for n in range(count):
                await engine.wait(f"s{n}", Status.ENDED)
                history = [one async for one in engine.states(Query(id=f"s{n}"))]
                assert [one.transition.cause.value for one in history] == [
                    *("command", "alarm", "command"),
                ]
            newest = await engine.get(LEADER_ID)
            assert (newest.rev, newest.labels) == (second.rev, second.labels)
        assert Counter(line[0] for line in crew.effects()) == {f"s{n}": 1 for n in range(count)}

    anyio.run(check)
