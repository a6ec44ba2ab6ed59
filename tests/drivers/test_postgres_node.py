"""PostgreSQL with two standbys, one of which has to have a commit before it is acknowledged:
whatever happens in the middle of commits, what is acknowledged is on a standby."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from attrs import define, field

from flowstate import Commit, Durability, Engine, Pause, State, StoreUnreachableError, connect

from ..helpers import until
from ..postgres import Server, with_options

pytestmark = pytest.mark.anyio

PATIENCE_S = 60
REPLAYED = "SELECT pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()"
LOCKED = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
QUORUM = "ANY 1 (a, b)"
KEEP = ("wal_keep_size=1GB", "wal_receiver_status_interval=1s", "wal_retrieve_retry_interval=100ms")
"""Settings: a standby that was away finds what it has missed, and soon."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@define
class Cluster:
    """A primary and its standbys, each on its own."""

    primary: Server
    standbys: tuple[Server, Server]

    @classmethod
    def start(cls) -> Cluster:
        primary = Server(KEEP)
        names = [f"cluster_name={name}" for name in "ab"]
        settings = [(*KEEP, name, f"synchronous_standby_names={QUORUM}") for name in names]
        a, b = [Server(given, copy_of=primary) for given in settings]
        cluster = cls(primary, (a, b))
        cluster.join()
        cluster.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{QUORUM}'")
        cluster.ask("SELECT pg_reload_conf()")
        wait_until(lambda: cluster.ask("SHOW synchronous_standby_names") == [(QUORUM,)])
        return cluster

    def close(self) -> None:
        for server in (self.primary, *self.standbys):
            server.close()

    def ask(self, statement: str, server: Server | None = None) -> list[Any]:
        """What the primary, or another one, says."""
        with psycopg.connect((server or self.primary).url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def join(self) -> None:
        """Wait until both standbys follow."""
        follow = "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: len(self.ask(follow)) == 2)

    def restart(self) -> None:
        """The primary, as after a power cut."""
        self.crash()
        self.primary.start()

    def crash(self, server: Server | None = None) -> None:
        """The primary, or another one, is gone, without a word to anybody."""
        server = server or self.primary
        first, *_ = processes(server)
        os.kill(first, signal.SIGSTOP)  # so that it starts no more
        gone = processes(server)
        send(signal.SIGKILL, server)
        wait_until(lambda: not any(is_alive(pid) for pid in gone))
        for lock in ("data/postmaster.pid", ".s.PGSQL.5432.lock"):
            (server.folder / lock).unlink()  # as far as a lock can tell, who is not reaped lives

    @contextmanager
    def nothing_replicated(self) -> Iterator[None]:
        """Nothing reaches a standby; what was sent on its way before does."""
        senders = [pid for (pid,) in self.ask("SELECT pid FROM pg_stat_replication")]
        for pid in senders:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in senders:
                if is_alive(pid):
                    os.kill(pid, signal.SIGCONT)

    def waiting(self) -> list[int]:
        """The sessions whose COMMIT waits for a standby."""
        rows = self.ask("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return [pid for (pid,) in rows]

    def others_waiting(self, before: list[int]) -> set[int]:
        return set(self.waiting()) - set(before)

    def has_replayed(self, server: Server) -> bool:
        """All that it has received."""
        return self.ask(REPLAYED, server) == [(True,)]

    def replicated(self, schema: str, servers: tuple[Server, ...]) -> set[tuple[str, int]]:
        """Every version that one of these has, with all that it has received."""
        found: set[tuple[str, int]] = set()
        for server in servers:
            wait_until(partial(self.has_replayed, server))
            found.update(self.ask(f"SELECT id, rev FROM {schema}.versions", server))  # noqa: S608
        return found


def processes(server: Server) -> list[int]:
    """A server's processes, the one that started the others first."""
    first = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    return [first, *[pid for pid, parent in parents() if parent == first]]


def parents() -> Iterator[tuple[int, int]]:
    """Every process of this machine, with the one that started it."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            yield int(status.parent.name), int(status.read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def send(number: signal.Signals, server: Server) -> None:
    for pid in processes(server):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once it is so; for what servers do, who give no signal."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster.start()
    yield cluster
    cluster.close()


@define
class Load:
    """Tasks that commit at full speed, each moving a state of its own; and for each one another,
    with another driver, that does the same commits under the same ids."""

    acknowledged: set[tuple[str, int]] = field(factory=set[tuple[str, int]])
    """Every version that somebody was told is stored."""
    is_over: bool = False

    async def commit(self, engine: Engine, name: str) -> None:
        state = State(name)
        while not self.is_over:
            (state,) = await engine.do(Commit(Pause(state)), commit_id=f"{name} {state.rev}")
            self.acknowledged.add((state.id, state.rev))

    async def progress(self, versions: int = 20) -> None:
        aim = len(self.acknowledged) + versions
        await until(lambda: len(self.acknowledged) >= aim, PATIENCE_S)


@asynccontextmanager
async def load(url: str, tasks: int = 4) -> AsyncGenerator[Load]:
    """In the end all that was acknowledged is stored, with no gap."""
    load = Load()
    async with (
        connect(url) as one,
        connect(url) as two,
        Engine(one) as first,
        Engine(two) as second,
    ):
        assert Durability.NODE is one.durability
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as committers:
                for number in range(tasks):
                    for engine in (first, second):
                        committers.start_soon(load.commit, engine, f"{number}")
                yield load
                load.is_over = True
            stored = [(state.id, state.rev) async for state in first.states()]
    assert list(range(1, len(stored) + 1)) == [rev for _, rev in stored]
    assert load.acknowledged == set(stored)


async def lose_primary(cluster: Cluster, load: Load, schema: str) -> None:
    """Now, and see what the standbys have of what was acknowledged."""
    await anyio.to_thread.run_sync(cluster.crash)
    acknowledged = set(load.acknowledged)  # nobody is told anything any more
    for standby in cluster.standbys:
        send(signal.SIGCONT, standby)
    on_a_standby = await anyio.to_thread.run_sync(cluster.replicated, schema, cluster.standbys)
    assert set() == acknowledged - on_a_standby
    await anyio.to_thread.run_sync(cluster.primary.start)
    await anyio.to_thread.run_sync(cluster.join)


END = {"cancelled": "pg_cancel_backend", "terminated": "pg_terminate_backend"}


@pytest.mark.parametrize("how", END)
async def test_a_wait_that_somebody_ends_is_no_acknowledgement(cluster: Cluster, how: str) -> None:
    """The commit is in the primary then, for all to see; it has to wait for a standby again,
    whoever does it again."""
    async with load(with_options(cluster.primary.url(), schema=how)) as committing:
        await committing.progress()
        with cluster.nothing_replicated():
            for _ in range(3):
                await until(cluster.waiting, PATIENCE_S)
                ended = cluster.waiting()
                for pid in ended:
                    cluster.ask(f"SELECT {END[how]}({pid})")
                await until(partial(cluster.others_waiting, ended), PATIENCE_S)
            await lose_primary(cluster, committing, how)
        await committing.progress()


async def test_who_does_a_commit_again_is_not_told_before_a_standby_has_it(
    cluster: Cluster,
) -> None:
    """Although its id is looked up where no COMMIT waits."""
    url = with_options(cluster.primary.url(), schema="again")
    told: list[str] = []

    async def commit(engine: Engine, name: str) -> None:
        await engine.do(Commit(Pause(State("a"))), commit_id="once")
        told.append(name)

    async with (
        connect(url) as one,
        connect(url) as two,
        Engine(one) as first,
        Engine(two) as second,
    ):
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                with cluster.nothing_replicated():
                    tasks.start_soon(commit, first, "first")
                    await until(cluster.waiting, PATIENCE_S)
                    ended = cluster.waiting()
                    cluster.ask(f"SELECT pg_cancel_backend({ended[0]})")
                    await until(partial(cluster.others_waiting, ended), PATIENCE_S)
                    assert await two.get("a")
                    tasks.start_soon(commit, second, "second")
                    await until(lambda: told or cluster.ask(LOCKED), PATIENCE_S)
                    assert [] == told
        assert {"first", "second"} == set(told)


async def test_what_a_primary_recovers_is_not_acknowledged_before_a_standby_has_it(
    cluster: Cluster,
) -> None:
    """It was committed, but not answered, when the power went; no standby is there afterwards."""
    async with load(with_options(cluster.primary.url(), schema="recovered")) as committing:
        await committing.progress()
        with cluster.nothing_replicated():
            await until(cluster.waiting, PATIENCE_S)
            for standby in cluster.standbys:
                send(signal.SIGSTOP, standby)
            await anyio.to_thread.run_sync(cluster.restart)
        await until(cluster.waiting, PATIENCE_S)
        await lose_primary(cluster, committing, "recovered")
        await committing.progress()


async def test_a_standby_that_hangs_is_not_waited_for(cluster: Cluster) -> None:
    """The other one is enough, and has it all."""
    async with load(with_options(cluster.primary.url(), schema="hangs")) as committing:
        await committing.progress()
        for standby in cluster.standbys:
            send(signal.SIGSTOP, standby)
            await committing.progress()
            send(signal.SIGCONT, standby)
        send(signal.SIGSTOP, cluster.standbys[0])
        await committing.progress()
        await lose_primary(cluster, committing, "hangs")
        await committing.progress()


async def test_a_server_that_is_starting_is_waited_for(cluster: Cluster) -> None:
    """By whoever opens a store; here it stays so until it is promoted."""
    async with connect(with_options(cluster.primary.url(), schema="starting")) as driver:
        await driver.head()
    server = await anyio.to_thread.run_sync(lambda: Server(("hot_standby=off",), cluster.primary))
    try:
        url = with_options(server.url(), schema="starting")
        with pytest.raises(StoreUnreachableError, match="does not answer"):
            await connect(with_options(url, reconnect="0")).open()
        driver = connect(url)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.open)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(server.promote)
        assert 0 == await driver.head()
        await driver.close()
    finally:
        await anyio.to_thread.run_sync(server.close)


async def test_a_standby_takes_over(cluster: Cluster) -> None:
    """The one that has received most; the other one follows it. This is last here: the primary is
    gone then."""
    hosts = ",".join(str(server.folder) for server in (cluster.primary, *cluster.standbys))
    url = with_options(cluster.primary.url(), host=hosts, target_session_attrs="read-write")
    async with load(with_options(url, schema="over")) as committing:
        await committing.progress()
        await anyio.to_thread.run_sync(cluster.crash)
        received = "SELECT pg_last_wal_receive_lsn() - '0/0'"
        new, other = sorted(
            cluster.standbys, key=lambda server: cluster.ask(received, server)[0], reverse=True
        )
        await anyio.to_thread.run_sync(new.promote)
        where = f"host={new.folder} user=postgres"
        cluster.ask(f"ALTER SYSTEM SET primary_conninfo = '{where}'", other)
        cluster.ask("SELECT pg_reload_conf()", other)
        await committing.progress()
        await anyio.to_thread.run_sync(cluster.crash, new)
        acknowledged = set(committing.acknowledged)
        on_other = await anyio.to_thread.run_sync(cluster.replicated, "over", (other,))
        assert set() == acknowledged - on_other
        await anyio.to_thread.run_sync(new.start)
