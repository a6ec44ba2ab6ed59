"""What a cluster survives, and how long it takes: `make cluster`.

While processes commit (``load.py``), nodes are killed, and hang. Nothing that was acknowledged is
lost, nothing happens twice, no process is shown an error; and commits go on within ``BOUND_S``.
The name of this file keeps it out of `make test`: it takes some ten minutes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import anyio
import anyio.to_thread
import psycopg
import pytest

from flowstate import Commit, Engine, Pause, State, StateNotFoundError, connect
from flowstate.drivers.postgres.session import DEADLINE_S

from ..cli.shell import wait_for
from ..postgres import with_options
from .cluster import LOOP_WAIT_S, TTL_S, Cluster, missing
from .load import Load

ROUNDS = int(os.environ.get("ROUNDS", "3"))
"""How often each fault is tried whose duration is measured."""
REST_S = 10
"""For the election among those who are left, the promotion, and the drivers' next attempt."""
BOUND_S = TTL_S + LOOP_WAIT_S + REST_S
"""For how long commits wait at most when a node fails."""
LONG_S = 15
"""Longer than any single wait of a driver, as for the lock that orders commits."""

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
rounds = pytest.mark.parametrize("load", range(ROUNDS), indirect=True)
Pauses = dict[str, list[float]]
stores = count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def load(cluster: Cluster, tmp_path: Path) -> Iterator[Load]:
    url = with_options(cluster.url, schema=f"store_{next(stores)}")
    cluster.restore()  # the test before may have failed
    with Load(url, tmp_path) as load:
        yield load


@pytest.fixture(scope="module")
def pauses(request: pytest.FixtureRequest) -> Iterator[Pauses]:
    """What failed -> for how long no commit was acknowledged, in s. Printed in the end."""
    found: Pauses = defaultdict(list)
    yield found
    manager = request.config.pluginmanager
    reporter, capture = map(manager.get_plugin, ("terminalreporter", "capturemanager"))
    assert reporter
    assert capture
    with capture.global_and_fixture_disabled():
        reporter.write_line("\n\nNo commit was acknowledged for … s:     times  median    max")
        for name, each in found.items():
            numbers = f"{len(each):>5}  {statistics.median(each):>6.1f}  {max(each):>5.1f}"
            reporter.write_line(f"{name:<40}{numbers}")
        reporter.write_line(
            f"The bound: ttl {TTL_S} + loop_wait {LOOP_WAIT_S} + {REST_S} = {BOUND_S} s"
        )


@rounds
def test_the_node_of_the_primary_dies(cluster: Cluster, load: Load, pauses: Pauses) -> None:
    victim, at = cluster.primary(), time.monotonic()
    cluster.kill(victim)
    load.wait_until_all_commit()
    pauses["the primary's node is killed"].append(load.longest_pause(at))
    cluster.start(victim)
    cluster.wait_healthy()
    assert load.finish() == []
    assert load.longest_pause(at) < BOUND_S


@rounds
def test_the_postgresql_of_the_primary_dies(cluster: Cluster, load: Load, pauses: Pauses) -> None:
    """Patroni starts it again, where it was."""
    at = time.monotonic()
    cluster.kill_postgres(cluster.primary())
    load.wait_until_all_commit()
    pauses["the primary's PostgreSQL is killed"].append(load.longest_pause(at))
    cluster.wait_healthy()
    assert load.finish() == []
    assert load.longest_pause(at) < BOUND_S


@rounds
def test_the_node_of_the_primary_hangs_and_wakes_up(
    cluster: Cluster, load: Load, pauses: Pauses
) -> None:
    """It takes itself for the primary then, with all its connections; nobody takes its word."""
    victim, at = cluster.primary(), time.monotonic()
    cluster.stop(victim)
    assert cluster.primary() != victim
    cluster.cont(victim)
    load.wait_until_all_commit()
    pauses["the primary's node hangs, and wakes up"].append(load.longest_pause(at))
    cluster.wait_healthy()
    assert load.finish() == []
    assert load.longest_pause(at) < BOUND_S


def test_the_node_of_the_primary_hangs_for_good(
    cluster: Cluster, load: Load, pauses: Pauses
) -> None:
    """Its connections stay open; each is given up when it has been silent for too long."""
    at = time.monotonic()
    cluster.stop(cluster.primary())
    load.wait_until_all_commit()
    pauses["the primary's node hangs for good"].append(load.longest_pause(at))
    cluster.restore()
    assert load.finish() == []
    assert load.longest_pause(at) < DEADLINE_S + REST_S


@rounds
def test_the_primary_is_another_by_request(cluster: Cluster, load: Load, pauses: Pauses) -> None:
    """As for maintenance."""
    before, at = cluster.timeline(), time.monotonic()
    cluster.switch_over()
    load.wait_until_all_commit()
    cluster.wait_healthy()
    assert cluster.timeline() > before
    pauses["the primary is switched over"].append(load.longest_pause(at))
    assert load.finish() == []
    assert load.longest_pause(at) < BOUND_S


def test_each_node_dies_in_turn(cluster: Cluster, load: Load, pauses: Pauses) -> None:
    began = time.monotonic()
    for victim in cluster.nodes:
        role = "the primary" if victim == cluster.primary() else "a standby"
        at = time.monotonic()
        cluster.kill(victim)
        load.wait_until_all_commit()
        pauses[f"{role}'s node is killed"].append(load.longest_pause(at))
        cluster.start(victim)
        cluster.wait_healthy()
    assert load.finish() == []
    assert load.longest_pause(began) < BOUND_S


def test_a_standby_hangs(cluster: Cluster, load: Load, pauses: Pauses) -> None:
    """Commits go on by way of the other."""
    victim, at = cluster.standbys()[0], time.monotonic()
    cluster.stop(victim)
    load.wait_until_all_commit()
    pauses["a standby's node hangs"].append(load.longest_pause(at))
    cluster.cont(victim)
    cluster.wait_healthy()
    assert load.finish() == []
    assert load.longest_pause(at) < BOUND_S


def test_both_standbys_die(cluster: Cluster, load: Load, pauses: Pauses) -> None:
    """The primary alone acknowledges nothing; commits wait, and go on with the first standby that
    is back."""
    first, second = cluster.standbys()
    cluster.kill(first, second)
    killed = time.monotonic()
    time.sleep(LONG_S)  # how long the fault takes, not a wait for anything
    assert [each for each in load.times() if each.began > killed] == []
    started = time.monotonic()
    cluster.start(first)
    load.wait_until_all_commit()
    pauses["a standby of none is back"].append(_first_after(load, started))
    cluster.start(second)
    cluster.wait_healthy()
    assert load.finish() == []
    assert _first_after(load, started) < BOUND_S


@pytest.mark.parametrize("back", ["the primary", "the standby"])
def test_the_primary_and_a_standby_die(
    cluster: Cluster, load: Load, pauses: Pauses, back: str
) -> None:
    """Who is left cannot know what the others have acknowledged; commits wait for one of them."""
    victims = {"the primary": cluster.primary(), "the standby": cluster.standbys()[0]}
    cluster.kill(*victims.values())
    killed = time.monotonic()
    cluster.wait_leaderless()
    assert [each for each in load.times() if each.began > killed] == []
    started = time.monotonic()
    cluster.start(victims.pop(back))
    load.wait_until_all_commit()
    pauses[f"of both, {back} is back"].append(_first_after(load, started))
    cluster.start(*victims.values())
    cluster.wait_healthy()
    assert load.finish() == []
    assert _first_after(load, started) < BOUND_S


def test_after_a_restart_readers_may_see_what_is_not_acknowledged_yet(cluster: Cluster) -> None:
    """The server has it on its own disk, and knows no more of whom it waited for."""
    cluster.restore()
    primary, standbys = cluster.primary(), cluster.standbys()
    acknowledged = anyio.Event()

    async def commit(engine: Engine) -> None:
        await engine.do(Commit(Pause(State("b"))))
        acknowledged.set()

    async def tell() -> None:
        url = with_options(cluster.url, schema="seen")
        async with connect(url) as driver, Engine(driver) as engine:
            await engine.do(Commit(Pause(State("a"))))
            await anyio.to_thread.run_sync(cluster.kill, *standbys)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit, engine)
                await anyio.to_thread.run_sync(wait_for, partial(_waits_for_standby, cluster))
                with pytest.raises(StateNotFoundError):
                    await engine.get("b")
                await anyio.to_thread.run_sync(cluster.kill_postgres, primary)
                assert (await engine.get("b")).id == "b"
                assert not acknowledged.is_set()
                await anyio.to_thread.run_sync(cluster.restore)
            assert acknowledged.is_set()

    anyio.run(tell)


def _waits_for_standby(cluster: Cluster) -> bool:
    """Whether a commit does."""
    with psycopg.connect(cluster.url_of(cluster.primary())) as connection:
        found = connection.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return found.rowcount > 0


def _first_after(load: Load, instant: float) -> float:
    """How long it took from then until a commit was acknowledged."""
    return min(each.ended for each in load.times() if each.ended > instant) - instant
