"""Who led, what fired, in which order: each story is a file, and happens again exactly so.

``UPDATE_STORIES=1 pytest tests/recovery/test_stories.py`` writes the files anew.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flowstate import Commit, Delay, State, Transit

from .conftest import Cluster

pytestmark = pytest.mark.anyio

STORIES = Path(__file__).parent / "stories"


async def delay(cluster: Cluster, *ids: str, to: str = "work", after: float = 1) -> None:
    """States that are due soon."""
    for n, id in enumerate(ids, 1):
        await cluster.engine.do(Commit(Delay(State(id), to, after=n * after)))


async def stand(cluster: Cluster, *names: str) -> None:
    """Processes that begin one after the other."""
    for name in names:
        cluster.begin(name)
        await cluster.sleep(0.5)


async def election_of_three(cluster: Cluster) -> None:
    await stand(cluster, "a", "b", "c")
    await delay(cluster, "s1", "s2")
    await cluster.heard("runs s2")
    await cluster.sleep(6)


async def clean_hand_over(cluster: Cluster) -> None:
    first = cluster.begin("a")
    await cluster.sleep(0.5)
    cluster.begin("b")
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    first.told_to_leave.set()
    await cluster.heard("runs s2")


async def killed_leader(cluster: Cluster) -> None:
    first = cluster.begin("a")
    await cluster.sleep(0.5)
    cluster.begin("b")
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    first.kill()
    cluster.world.transcript.note("a", "is killed")
    await cluster.heard("runs s2")


async def frozen_leader(cluster: Cluster) -> None:
    first = cluster.begin("a")
    await cluster.sleep(0.5)
    cluster.begin("b")
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    first.frozen_until = cluster.now + 12_000
    cluster.world.transcript.note("a", "is frozen")
    await cluster.heard("runs s2")
    await cluster.sleep(12)


async def store_outage(cluster: Cluster) -> None:
    await stand(cluster, "a", "b")
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    await cluster.sleep(0.1)  # its end is stored
    cluster.world.outage_until = cluster.now + 8_000
    cluster.world.transcript.note("store", "is out for 8 s")
    await cluster.heard("runs s2")
    await cluster.sleep(3)


async def two_groups(cluster: Cluster) -> None:
    """Each does its own flows, whoever leads the other."""
    cluster.begin("a", cluster.flows("a", "mail"), group="mail")
    await cluster.sleep(0.5)
    cluster.begin("b", cluster.flows("b", "bill"), group="bill")
    await cluster.sleep(0.5)
    await delay(cluster, "m1", to="mail", after=1)
    cluster.begin("c", cluster.flows("c", "mail"), group="mail")
    await cluster.sleep(0.5)
    await cluster.engine.do(Commit(Transit(State("b1"), "bill")))
    await cluster.heard("runs b1")


TALES: list[Callable[[Cluster], Awaitable[None]]] = [
    election_of_three, clean_hand_over, killed_leader, frozen_leader, store_outage, two_groups,
]  # fmt: skip


@pytest.mark.parametrize("tale", TALES, ids=lambda tale: tale.__name__)
async def test_the_story_happens_again(
    tale: Callable[[Cluster], Awaitable[None]], cluster: Cluster
) -> None:
    """On virtual time, to the millisecond, on both event loops."""
    await tale(cluster)
    told = cluster.world.transcript.text()
    file = STORIES / f"{tale.__name__}.txt"
    if os.environ.get("UPDATE_STORIES"):
        file.write_text(told)
    assert file.read_text() == told
