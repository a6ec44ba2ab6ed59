"""Who is there: what the dead had goes on at once, and a store that is wrong costs little."""

from __future__ import annotations

import pytest

from flowstate import Cause, Query
from flowstate.recovery.roll_call import LOOK_MS, MISSING_MS
from flowstate.testing.cluster import Duty, Process
from flowstate.testing.scenario import LEASE_S

from .conftest import Cluster
from .test_workers import holding, ready

pytestmark = pytest.mark.anyio

SOON_MS = MISSING_MS + 3 * LOOK_MS
"""Within this what the dead had runs elsewhere, also if one of them led."""


@pytest.fixture
async def first(cluster: Cluster) -> Process:
    """A process that leads and runs s0, on a store that can tell who is there; b stands by."""
    cluster.world.presence = True
    flows, running = holding(cluster, "work", seconds=3600)
    process = cluster.begin("a", flows)
    await ready(cluster, "s0")
    await cluster.sleep(1)
    assert running
    cluster.begin("b")
    await cluster.sleep(1)
    return process


async def causes(cluster: Cluster) -> list[Cause]:
    return [state.transition.cause for state in await cluster.world.log(Query(id="s0"))]


async def test_what_a_dead_leader_ran_runs_elsewhere_at_once(
    cluster: Cluster, first: Process
) -> None:
    """It is missed for a while first."""
    first.kill()
    killed = cluster.now
    await cluster.heard("runs s0 at work (lost)")
    assert MISSING_MS <= cluster.now - killed <= SOON_MS


async def test_who_is_missed_for_a_moment_is_not_dead(cluster: Cluster, first: Process) -> None:
    first.missed_until = cluster.now + MISSING_MS
    await cluster.sleep(2 * LEASE_S)
    assert await causes(cluster) == [Cause.COMMAND]
    assert "b: won" not in cluster.world.transcript.text()


async def test_who_lives_and_seems_dead_loses_an_attempt(cluster: Cluster, first: Process) -> None:
    """One, however long it is taken for dead, and also if it takes up again what it has lost."""
    first.missed_until = cluster.now + 60_000
    await cluster.sleep(50)
    assert (await causes(cluster))[:2] == [Cause.COMMAND, Cause.LOST]
    assert (await causes(cluster)).count(Cause.LOST) == 1


async def test_who_is_dead_and_seems_to_live_is_found_by_its_leases(
    cluster: Cluster, first: Process
) -> None:
    first.seems_there = True
    first.kill()
    killed = cluster.now
    await cluster.heard("runs s0 at work (lost)")
    assert LEASE_S / 2 <= (cluster.now - killed) / 1000 <= LEASE_S + 1


async def test_nobody_looks_where_nobody_else_has_anything(cluster: Cluster) -> None:
    cluster.world.presence = True
    cluster.begin("a", duty=Duty.LEAD)
    await cluster.sleep(2)
    looks = cluster.world.calls["owners"]
    await cluster.sleep(60)
    assert cluster.world.calls["owners"] == looks
