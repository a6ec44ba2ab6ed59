"""What laws are proved with: the store, the driver, plans, and several kinds of writers."""

from __future__ import annotations

import itertools
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import ClassVar, NamedTuple

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define, field
from msgspec.structs import replace

from ... import transitions
from ...commands import Command, Commit, Transit
from ...driver import Driver, Durability
from ...leases import Claimed, Due, Place, ready
from ...plan import CommitKey, Plan
from ...query import Query, Unreadable
from ...state import RetryPolicy, State
from ..committer import commit_many
from ..store import Store

POLICY = RetryPolicy(enabled=False)
"""Plans are made without leases, unless a law is about them."""
LEASED = RetryPolicy(lease=30)
LEASE_MS = 30_000
"""That of ``LEASED``."""


class Laws(ABC):
    """The fixtures of all laws. Every test gets an empty store of its own."""

    pytestmark = pytest.mark.anyio

    patience_s: ClassVar[float] = 30.0
    """How long a test waits for what must happen before it fails (s)."""

    @abstractmethod
    def new_store(self, tmp_path: Path) -> Store:
        """An empty store; its files, if any, go under *tmp_path*."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return self.new_store(tmp_path)

    @pytest.fixture
    async def driver(self, store: Store) -> AsyncIterator[Driver]:
        async with store.driver() as driver:
            yield driver

    @pytest.fixture
    def shared_store(self, store: Store) -> Store:
        """The store, for a test that needs several drivers at once; else the test is skipped."""
        if not store.shared:
            pytest.skip("the store does not declare that drivers may share it")
        return store

    @pytest.fixture
    def process_store(self, store: Store) -> Store:
        """The store, for a test that needs several processes; else the test is skipped."""
        if not store.processes:
            pytest.skip("the store does not declare that processes may share it")
        return store

    @pytest.fixture
    def persistent_store(self, store: Store) -> Store:
        """The store, for a test that needs one that outlives its driver; else the test is
        skipped."""
        if not store.persistent:
            pytest.skip("the store does not declare that it outlives its driver")
        return store


# ---------------------------------------------------------------- plans


def plan(
    *commands: Command[State],
    now: int = 0,
    policy: RetryPolicy = POLICY,
    place: transitions.PlaceOf = ready,
) -> Plan:
    """The plan of a commit of these commands, with a commit id of its own. What it leaves RUNNING
    is ready since *now*, unless it is told another *place*."""
    return transitions.plan(
        Commit(*commands),
        commit_id=secrets.token_hex(8),
        now=now,
        policy=policy,
        place_of=place,
    )


def keyed(id: str, *commands: Command[State]) -> Plan:
    """The plan of a commit of these commands that its caller gave an id."""
    return replace(plan(*commands), key=CommitKey(id, f"of {id}"))


async def put(driver: Driver, *commands: Command[State]) -> tuple[State, ...]:
    """Commit these commands, and give the versions that were written."""
    return await driver.commit(plan(*commands))


async def create(driver: Driver, *ids: str) -> tuple[State, ...]:
    """Commit new states, all in one commit."""
    return await put(driver, *(Transit(State(id), "work") for id in ids))


async def move(driver: Driver, state: State) -> State:
    """Commit another version of a state."""
    (moved,) = await put(driver, Transit(state, "work"))
    return moved


async def read_all(
    driver: Driver, query: Query | None = None, after: int = 0, limit: int = 1_000
) -> list[State]:
    """All matching versions after a revision, read page by page."""
    versions: list[State] = []
    while after < await driver.head():
        page = await driver.read(query or Query(), after, limit)
        assert page.upto > after, "a page must look further than where it began"
        versions.extend(page.versions)
        after = page.upto
    return versions


def revs(states: Iterable[State]) -> list[int]:
    return [state.rev for state in states]


# ---------------------------------------------------------------- lines and leases


def due_at(state: State, at: int, policy: RetryPolicy | None = POLICY) -> Due:
    """A version that is due, as it is given."""
    return Due(state, at, policy)


def standing(*places: Place) -> transitions.PlaceOf:
    """Has what a commit leaves RUNNING stand there, one after the other; the last place is that of
    all the rest."""
    turns = itertools.chain(places, itertools.repeat(places[-1]))

    def place_of(state: State, now: int, lease: int) -> Place:
        return next(turns)

    return place_of


async def line_up(
    driver: Driver,
    *ids: str,
    since: int = 0,
    flow: str = "work",
    policy: RetryPolicy = LEASED,
    timeout_at: int | None = None,
) -> tuple[State, ...]:
    """Commit new states that are ready since then (ms), all in one commit; with *timeout_at*, an
    alarm comes for each then."""
    timeout = None if timeout_at is None else timeout_at / 1000
    on_timeout = "" if timeout_at is None else "late"
    moves = (Transit(State(id), flow, timeout=timeout, on_timeout=on_timeout) for id in ids)
    placed = plan(*moves, policy=policy, place=standing(Place(since)))
    return await driver.commit(placed)


async def hand_out(
    driver: Driver, *ids: str, owner: str, claim: str = "", until: int | None = None
) -> tuple[State, ...]:
    """Commit new states that are taken by an owner from the first, all in one commit."""
    moves = (Transit(State(id), "work") for id in ids)
    taken = Place(None, owner, claim, until)
    return await driver.commit(plan(*moves, policy=LEASED, place=standing(taken)))


def given(claimed: Iterable[Claimed | Unreadable]) -> list[str]:
    """The ids that a claim was given."""
    return [each.state.id if isinstance(each, Claimed) else each.id for each in claimed]


# ---------------------------------------------------------------- concurrent writers


class Writers(Enum):
    """The kind of those who commit at the same time."""

    TASKS = "tasks"
    DRIVERS = "drivers"
    PROCESSES = "processes"


class Ack(NamedTuple):
    """An acknowledged commit, and its first revision."""

    commit_id: str
    first_rev: int


@define(eq=False)
class Crowd:
    """Several writers, each committing at full speed."""

    store: Store
    driver: Driver
    kind: Writers
    writers: int = 3
    commits: int = 40
    """How often each writer commits."""
    size: int = 3
    """How many states are in a commit."""
    acks: list[Ack] = field(factory=list[Ack], init=False)
    is_done: bool = field(default=False, init=False)

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[Crowd]:
        """The writers commit while the body runs; leaving it waits until all are done."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.work)
            yield self

    async def work(self) -> None:
        write = {
            Writers.TASKS: self._task,
            Writers.DRIVERS: self._driver,
            Writers.PROCESSES: self._process,
        }[self.kind]
        async with anyio.create_task_group() as tasks:
            for writer in range(self.writers):
                tasks.start_soon(write, f"w{writer}")
        self.is_done = True

    def _acknowledge(self, commit_id: str, states: tuple[State, ...]) -> None:
        self.acks.append(Ack(commit_id, states[0].rev))

    async def _task(self, writer: str) -> None:
        await commit_many(self.driver, writer, self.commits, self.size, self._acknowledge)

    async def _driver(self, writer: str) -> None:
        async with self.store.driver() as driver:
            await commit_many(driver, writer, self.commits, self.size, self._acknowledge)

    async def _process(self, writer: str) -> None:
        command = committer(self.store, writer, self.commits, self.size)
        finished = await anyio.run_process(command, check=False)
        assert finished.returncode == 0, finished.stderr.decode()
        self.acks.extend(read_acks(finished.stdout))


def committer(
    store: Store, writer: str, commits: int, size: int, *, in_step: bool = False
) -> list[str]:
    """The command that starts a process which commits to the store; with *in_step*, once for each
    line that it reads."""
    module = "flowstate.testing.committer"
    step = ["--in-step"] if in_step else []
    return [sys.executable, "-m", module, store.url, writer, str(commits), str(size), *step]


async def kill_after(command: Sequence[str], lines: int) -> bytes:
    """Start a process, kill it once it has printed so many lines, and give all that it printed."""
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdout is not None
        out = BufferedByteReceiveStream(process.stdout)
        printed = b""
        for _ in range(lines):
            printed += await out.receive_until(b"\n", 1_000) + b"\n"
        process.kill()
        with suppress(anyio.EndOfStream):
            while True:  # what it printed before it died counts too
                printed += await out.receive()
    return printed


async def kill_writers(store: Store, size: int) -> list[Ack]:
    """Have processes commit *size* states at a time, kill each after some commits, and give what
    was acknowledged. Skips the test if commits need not survive that."""
    async with store.driver() as driver:  # makes the store, so that the processes need not
        if driver.durability < Durability.PROCESS:
            pytest.skip("the driver does not declare that commits survive the process")
    acks: list[Ack] = []

    async def work(writer: str, commits: int) -> None:
        acks.extend(read_acks(await kill_after(committer(store, writer, 0, size), commits)))

    async with anyio.create_task_group() as tasks:
        for n, commits in enumerate((1, 10, 40)):
            tasks.start_soon(work, f"w{n}", commits)
    assert len(acks) >= 51
    return acks


def read_acks(printed: bytes) -> list[Ack]:
    """The commits that a process printed; a line that its death cut short does not count."""
    lines = printed.decode().split("\n")[:-1]
    return [Ack(commit_id, int(rev)) for commit_id, rev in (line.split(" ") for line in lines)]


class CrowdLaws(Laws):
    """Laws that hold whoever writes: a test runs once for each kind of writers."""

    @pytest.fixture(params=list(Writers), ids=lambda kind: str(kind.value))
    def crowd(self, request: pytest.FixtureRequest, store: Store, driver: Driver) -> Crowd:
        kind: Writers = request.param
        if (kind is Writers.DRIVERS and not store.shared) or (
            kind is Writers.PROCESSES and not store.processes
        ):
            pytest.skip(f"the store does not declare that {kind.value} may share it")
        return Crowd(store, driver, kind)
