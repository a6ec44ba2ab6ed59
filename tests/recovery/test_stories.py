"""Who led, what fired, in which order: each story is a file, and happens again exactly so.

``UPDATE_STORIES=1 pytest tests/recovery/test_stories.py`` writes the files anew.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flowstate import Commit, Delay, State, Transit
from flowstate.testing.cluster import Duty

from .conftest import Cluster

pytestmark = pytest.mark.anyio

STORIES = Path(__file__).parent / "stories"


class Certain(random.Random):
    """No chance: trio lets tasks ask for it in an order of its own."""

    def random(self) -> float:
        return 0.0


async def delay(cluster: Cluster, *ids: str, to: str = "work", after: float = 1) -> None:
    """States that are due soon."""
    for n, id in enumerate(ids, 1):
        await cluster.engine.do(Commit(Delay(State(id), to, after=n * after)))


async def stand(cluster: Cluster, *names: str) -> None:
    """Processes that only lead, begun one after the other; and one that only works, so that it is
    certain who runs what."""
    cluster.begin("w", duty=Duty.WORK)
    for name in names:
        cluster.begin(name, duty=Duty.LEAD)
        await cluster.sleep(0.5)


async def election_of_three(cluster: Cluster) -> None:
    await stand(cluster, "a", "b", "c")
    await delay(cluster, "s1", "s2")
    await cluster.heard("runs s2")
    await cluster.sleep(6)


async def clean_hand_over(cluster: Cluster) -> None:
    first = cluster.begin("a")
    await cluster.sleep(0.5)
    cluster.begin("b", duty=Duty.LEAD)
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    first.told_to_leave.set()
    cluster.begin("w", duty=Duty.WORK)
    await cluster.heard("runs s2")


async def killed_leader(cluster: Cluster) -> None:
    first = cluster.begin("a")
    await cluster.sleep(0.5)
    cluster.begin("b", duty=Duty.LEAD)
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    first.kill()
    cluster.world.transcript.note("a", "is killed")
    cluster.begin("w", duty=Duty.WORK)
    await cluster.heard("runs s2")


async def frozen_leader(cluster: Cluster) -> None:
    first = cluster.begin("a")
    await cluster.sleep(0.5)
    cluster.begin("b", duty=Duty.LEAD)
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    first.frozen_until = cluster.now + 12_000
    cluster.world.transcript.note("a", "is frozen")
    cluster.begin("w", duty=Duty.WORK)
    await cluster.heard("runs s2")
    await cluster.sleep(12)


async def store_outage(cluster: Cluster) -> None:
    await stand(cluster, "a", "b")
    await delay(cluster, "s1", "s2", after=3)
    await cluster.heard("runs s1")
    await cluster.sleep(0.2)  # its end is stored
    cluster.world.outage_until = cluster.now + 8_000
    cluster.world.transcript.note("store", "is out for 8 s")
    await cluster.heard("runs s2")
    await cluster.sleep(3)


async def shared_work(cluster: Cluster) -> None:
    """What is ready is for whoever has its flow, whoever leads."""
    cluster.begin("a", cluster.flows("a", "mail"))
    await cluster.sleep(0.5)
    cluster.begin("b", cluster.flows("b", "bill"), Duty.WORK)
    await cluster.sleep(0.5)
    await delay(cluster, "m1", to="mail", after=1)
    await delay(cluster, "b1", to="bill", after=1.5)
    await cluster.heard("runs b1")
    await cluster.engine.do(Commit(Transit(State("b2"), "bill")))
    await cluster.engine.do(Commit(Transit(State("n1"), "news")))
    await cluster.sleep(0.5)
    cluster.begin("c", cluster.flows("c", "news"), Duty.WORK)
    await cluster.heard("runs n1")


TALES: list[Callable[[Cluster], Awaitable[None]]] = [
    election_of_three, clean_hand_over, killed_leader, frozen_leader, store_outage, shared_work,
]  # fmt: skip


@pytest.mark.parametrize("tale", TALES, ids=lambda tale: tale.__name__)
async def test_the_story_happens_again(
    tale: Callable[[Cluster], Awaitable[None]], cluster: Cluster
) -> None:
    """On virtual time, to the millisecond, on both event loops."""
    cluster.world.chance = Certain()
    await tale(cluster)
    told = cluster.world.transcript.text()
    file = STORIES / f"{tale.__name__}.txt"
    if os.environ.get("UPDATE_STORIES"):
        file.write_text(told)
    assert file.read_text() == told
