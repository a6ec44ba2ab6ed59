"""The stores that are attacked, and what can happen to each besides its clients' deaths."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attrs import define, field

Fault = Callable[[random.Random], None]
CRASH = "server crashed"
NO_FAULTS: Mapping[str, Fault] = {}


class CannotBeMadeError(Exception):
    """Something is not installed."""


@define
class Target:
    """A store that is attacked."""

    urls: Sequence[str]
    """What its clients are given, in turn."""
    faults: Mapping[str, Fault] = field(default=NO_FAULTS)
    """What can be done to it -> how."""
    crashes: Collection[str] = ()
    """Those after which the last claims may be forgotten."""
    calm: Callable[[], None] = lambda: None
    """Undo what faults have left, so that the store can be judged."""


@contextmanager
def sqlite(folder: Path) -> Iterator[Target]:
    yield Target([f"sqlite:///{folder / 'store.db'}"])


@contextmanager
def postgres(folder: Path) -> Iterator[Target]:
    """A server of its own, which crashes and ends sessions."""
    import psycopg  # noqa: PLC0415  (only where it is used)

    from tests.postgres import Server, with_options  # noqa: PLC0415  (only where it is used)

    server = Server()

    def end_sessions(chance: random.Random) -> None:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
                "WHERE application_name = 'flowstate' AND pg_catalog.random() < %s",
                (chance.uniform(0, 0.5),),
            )

    def crash(_: random.Random) -> None:
        server.restart("immediate")

    # half of the clients give up so soon that they are left with an unknown outcome
    urls = [with_options(server.url()), with_options(server.url(), reconnect="0.1")]
    try:
        yield Target(urls, {"sessions ended": end_sessions, CRASH: crash}, {CRASH})
    finally:
        server.close()


@contextmanager
def cluster(folder: Path) -> Iterator[Target]:
    """Three nodes, each of which may die, hang, or lose its PostgreSQL."""
    from tests.cluster import TTL_S, Cluster, missing  # noqa: PLC0415  (only where it is used)

    if problem := missing():
        raise CannotBeMadeError(problem)

    with Cluster() as nodes:

        def primary_dies(_: random.Random) -> None:
            nodes.wait_healthy()
            primary = nodes.primary()
            nodes.kill(primary)
            nodes.start(primary)

        def standby_dies(chance: random.Random) -> None:
            nodes.wait_healthy()
            standby = chance.choice(nodes.standbys())
            nodes.kill(standby)
            nodes.start(standby)

        def postgres_dies(chance: random.Random) -> None:
            nodes.wait_healthy()
            nodes.kill_postgres(chance.choice(nodes.nodes))

        def node_hangs(chance: random.Random) -> None:
            nodes.wait_healthy()
            node = chance.choice(nodes.nodes)
            nodes.stop(node)
            time.sleep(chance.choice([1, TTL_S + 10]))  # how long it hangs, not a wait
            nodes.cont(node)

        def switch_over(_: random.Random) -> None:
            nodes.wait_healthy()
            nodes.switch_over()

        faults = {
            "primary died": primary_dies,
            "standby died": standby_dies,
            "a PostgreSQL died": postgres_dies,
            "node hung": node_hangs,
            "switch-over": switch_over,
        }
        yield Target([nodes.url], faults, set(faults), nodes.wait_healthy)


STORES: Mapping[str, Callable[[Path], AbstractContextManager[Target]]] = {
    "sqlite": sqlite,
    "postgres": postgres,
    "cluster": cluster,
}
"""name -> what makes such a store in a folder"""
