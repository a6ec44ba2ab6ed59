"""PostgreSQL: how near to the server, how group commit grows with load, how soon others know."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from flowstate import Commit, State, connect
from flowstate.commands import Transit
from flowstate.drivers.plans import Group
from flowstate.drivers.postgres import rows
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.url import StoreUrl
from flowstate.state import RetryPolicy
from flowstate.transitions import plan
from tests.postgres import Database

from .conftest import timed
from .flows import together


def target(url: str) -> Target:
    return Target.from_url(StoreUrl.parse(url))


def bare_inserts(url: str, rows_: int, a_commit: int) -> float:
    """Seconds for inserts of rows like ours into the same tables, so many in a transaction, without
    any of the checks: two statements with a few arrays, and the head."""
    anyio.run(make, url)
    store = target(url)
    states = [State(f"order-{number}") for number in range(a_commit)]
    policy = RetryPolicy()
    with store.connect() as connection:

        def insert() -> None:
            for first in range(1, rows_ + 1, a_commit):
                group: Group[rows.Keys] = Group(first, 1_700_000_000_000, {})
                for state in states:
                    commit = plan(
                        Commit(Transit(state, "there")), commit_id="raw", now=0, policy=policy
                    )
                    group.decide(commit, lambda plan: None)
                    group.latest.clear()
                with connection.pipeline():
                    connection.execute("BEGIN")
                    for text, parameters in rows.statements(group):
                        connection.execute(store.sql(text), parameters, binary=True)
                    connection.execute("COMMIT")

        return timed(insert)


async def make(url: str) -> None:
    async with connect(url):
        pass


@pytest.mark.parametrize(
    ("flows", "asked", "transitions"),
    [(1, "–", 1_000), (100, "15,000/s", 200), (1_000, "20,000/s", 40)],
)
def test_committed_transitions(
    rate: Callable[..., None],
    tiny: bool,
    postgres: Database,
    flows: int,
    asked: str,
    transitions: int,
) -> None:
    """Committed transitions a second of concurrent flows."""
    if tiny:
        flows, transitions = min(flows, 10), 5
    count = 100 if tiny else (1_000 if flows == 1 else 20_000)
    rate(
        f"PostgreSQL, {flows:,} concurrent flow{'s' if flows > 1 else ''}",
        asked,
        flows * transitions,
        lambda: anyio.run(together, connect(postgres.new_store()), flows, transitions),
        raw=lambda: bare_inserts(postgres.new_store(), count, flows),
        raw_n=count,
        raw_what=f"bare inserts, {flows:,} a commit",
    )
