"""The stores that are attacked, and what can happen to each besides its clients' deaths."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attrs import define, field

Fault = Callable[[random.Random], None]
NO_FAULTS: Mapping[str, Fault] = {}


@define
class Target:
    """A store that is attacked."""

    urls: Sequence[str]
    """What its clients are given, in turn."""
    faults: Mapping[str, Fault] = field(default=NO_FAULTS)
    """What can be done to it -> how."""
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
        yield Target(urls, {"sessions ended": end_sessions, "server crashed": crash})
    finally:
        server.close()


STORES: Mapping[str, Callable[[Path], AbstractContextManager[Target]]] = {
    "sqlite": sqlite,
    "postgres": postgres,
}
"""name -> what makes such a store in a folder"""
