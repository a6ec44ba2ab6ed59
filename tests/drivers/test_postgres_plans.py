"""PostgreSQL: which indexes serve which query, among a million versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from attrs import define, field
from psycopg.sql import SQL, Identifier

from flowstate import (
    Commit,
    Pause,
    Plan,
    Query,
    RetryPolicy,
    State,
    Status,
)
from flowstate.drivers.group_commit import Take
from flowstate.drivers.postgres import schema
from flowstate.drivers.postgres.reader import Reader
from flowstate.drivers.postgres.writer import Writer
from flowstate.leases import ready
from flowstate.transitions import plan

from ..postgres import Database, target
from .wrapped import Wrapped, text_of

VERSIONS = 1_000_000
"""A tenth of them is current; of these nearly all are ready, the others taken. All have a label
that a tenth of them shares, some a rare one, which others lose; an index says of all that they have
another label. One of 2,000 is FAILED, others were before. Some have a payload, which the next
refers to as well."""

FILL: list[LiteralString] = [  # indexes last: it is quicker
    "SET flowstate.asks_version = 'on'",
    "ALTER TABLE {s}.versions SET UNLOGGED",
    "ALTER TABLE {s}.versions DROP CONSTRAINT versions_pkey",
    "DROP INDEX {s}.versions_id",
    """INSERT INTO {s}.versions
        SELECT n, id, status, n, n, 100, format(
            '{{"id": "%s", "rev": %s, "committed_at": %s, "transition": {{"status": "%s"}}, '
            '"labels": %s}}', id, n, n, status, labels
        )::jsonb, 'flow ' || n % 1000, labels,
        CASE n % 1000 WHEN 8 THEN '{{"seldom": "7"}}'::jsonb END,
        CASE n % 2000 WHEN 123 THEN 'failed' END
        FROM generate_series(1, {n}) n, LATERAL (SELECT
            'state-' || n % 100000 AS id,
            CASE n % 2000 WHEN 11 THEN 'failed' ELSE 'paused' END AS status,
            format('{{"often": "%s", "seldom": "%s"}}', n % 10, n % 1000)::jsonb AS labels
        ) l""",
    "ALTER TABLE {s}.versions ADD PRIMARY KEY (rev)",
    "CREATE INDEX versions_id ON {s}.versions (id, rev)",
    """INSERT INTO {s}.states (id, rev, alarm, lease, flow, since)
        SELECT 'state-' || n % 100000, n, 2 * n, 30000, 'flow ' || n % 10, n
        FROM generate_series({n} - 99999, {n} - 1000) n""",
    """INSERT INTO {s}.states (id, rev, lease, flow, owner, claim, until)
        SELECT 'state-' || n % 100000, n, 30000, 'work', 'worker ' || n % 10, 'claim ' || n % 100, n
        FROM generate_series({n} - 999, {n}) n""",
    """UPDATE {s}.states s SET resting = v.status
        FROM {s}.versions v WHERE v.rev > {n} - 100000 AND v.rev = s.rev""",
    "ALTER TABLE {s}.labels SET UNLOGGED",
    "ALTER TABLE {s}.labels DROP CONSTRAINT labels_pkey",
    "INSERT INTO {s}.labels SELECT ({often})[n % 10 + 1], n FROM generate_series(1, {n}) n",
    """INSERT INTO {s}.labels SELECT ({seldom})[n % 1000 + 1], n
        FROM generate_series(1, {n}) n WHERE n % 1000 IN (7, 123)""",
    "ALTER TABLE {s}.labels ADD PRIMARY KEY (key, rev)",
    "INSERT INTO {s}.left_labels SELECT ({seldom})[8], n FROM generate_series(8, {n}, 1000) n",
    "INSERT INTO {s}.payloads SELECT n, 'sum', 'pears' FROM generate_series(1, {n}, 100) n",
    """INSERT INTO {s}.payload_refs
        SELECT n, 'sum', n + m FROM generate_series(1, {n}, 100) n, generate_series(0, 1) m""",
    "INSERT INTO {s}.current_labels SELECT key, rev FROM {s}.labels WHERE rev > {n} - 100000",
    "INSERT INTO {s}.current_labels SELECT {frequent}, rev FROM {s}.states",
    "UPDATE {s}.head SET rev = {n}, committed_at = {n}",
]


@define(eq=False)
class Explaining(Wrapped):
    """Asks for the plan of each statement before it does it."""

    plans: list[psycopg.Cursor[Any]] = field(factory=list[psycopg.Cursor[Any]])

    def execute(self, query: Any, parameters: Any = None, **options: Any) -> Any:
        if re.match(r"\s*(SELECT (?!\s*pg_catalog)|WITH|UPDATE)", text_of(query)):
            explained = b"EXPLAIN (ANALYZE, FORMAT JSON) " + query
            self.plans.append(self.inside.execute(explained, parameters, **options))
        return super().execute(query, parameters, **options)

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Every node of every plan so far."""
        found = [row[0] for cursor in self.plans for row in cursor.fetchall()]
        self.plans.clear()
        waiting = [plan["Plan"] for (plan,) in found]
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            yield node


@define
class Million:
    """A reader of a million versions, and what the server did for it."""

    reader: Reader
    connection: Explaining


@pytest.fixture(scope="module")
def million(postgres: Database) -> Iterator[Million]:
    """A reader of a store of a million versions, without statistics as after a quick start."""
    store = target(postgres.new_store())
    with store.connect() as connection:
        schema.prepare(connection, store)
        with connection.transaction():
            for text in FILL:
                connection.execute(
                    SQL(text).format(
                        s=Identifier(store.schema),
                        n=VERSIONS,
                        frequent=schema.key("frequent", ""),
                        often=[schema.key("often", f"{n}") for n in range(10)],
                        seldom=[schema.key("seldom", f"{n}") for n in range(1_000)],
                    )
                )
        explaining: Any = Explaining(connection)
        yield Million(Reader(store, explaining), explaining)


SCANS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
"""How a table is read."""
MAX_ROWS = 15_000
"""That a statement may look at: what one page may look at, and some."""

PAGES: dict[str, Query] = {
    "all of": Query(labels={"often": "3", "seldom": "123"}),
    "any of": Query(labels=[{"seldom": "7"}, {"seldom": "123"}]),
    "all of, current": Query(labels={"often": "3", "seldom": "123"}, latest=True),
    "a label and a status": Query(labels={"often": "3"}, status=Status.PAUSED),
    "a label and a flow": Query(labels={"often": "3"}, flow="flow 503"),
    "what leaves a label": Query(labels={"seldom": "7"}, leaving=True),
    "what leaves a label and a status": Query(
        labels={"seldom": "123"}, status=Status.FAILED, leaving=True
    ),
    "what leaves a status": Query(status=Status.FAILED, leaving=True),
    "a flow": Query(flow="flow 503"),
    "current": Query(latest=True),
    "current and at rest": Query(status=Status.FAILED, latest=True),
    "current and at rest with a label": Query(
        status=Status.FAILED, labels={"often": "1"}, latest=True
    ),
    "current and at rest, of a few": Query(
        id_prefix="state-7001", status=Status.FAILED, latest=True
    ),
    "current, of a few": Query(id_prefix="state-7777", latest=True),
    "current, of a few with a label": Query(
        id_prefix="state-777", labels={"often": "3"}, latest=True
    ),
    "current, of many": Query(id_prefix="state-", latest=True),
    "of many": Query(id_prefix="state-"),
    "a state": Query(id="state-77"),
    "since": Query(since=700_000),
    "everything": Query(),
}
FAILED_WITH_A_LABEL = Query(status=Status.FAILED, labels={"frequent": ""}, latest=True)
NOBODY = Query(id_prefix="nobody", latest=True)
READS: dict[str, Callable[[Reader], object]] = {
    "any of, newest": lambda r: r.find(Query(labels=[{"often": "3"}, {"seldom": "123"}])),
    "all of, newest": lambda r: r.find(Query(labels={"often": "3", "seldom": "123"})),
    "at rest, newest": lambda r: r.find(Query(status=Status.FAILED)),
    "at rest with a label, newest": lambda r: r.find(FAILED_WITH_A_LABEL) is None,
    "at rest with a label": lambda r: (
        r.read(FAILED_WITH_A_LABEL, 0, 100, newest_first=False).upto == VERSIONS
    ),
    "of a few, newest": lambda r: r.find(Query(id_prefix="state-7777")),
    "of a few at rest, newest": lambda r: r.find(
        Query(id_prefix="state-7001", status=Status.FAILED)
    ),
    "of many, newest": lambda r: r.find(Query(id_prefix="state-")),
    "of nobody, newest": lambda r: r.find(Query(id_prefix="nobody")) is None,
    "of nobody": lambda r: not r.read(NOBODY, 0, 100, newest_first=False).versions,
    "how many of a label": lambda r: r.count(Query(labels={"seldom": "123"}), "status"),
    "how many of two labels": lambda r: r.count(
        Query(labels={"often": "3", "seldom": "123"}), "flow"
    ),
    "how many at rest": lambda r: r.count(Query(status=Status.FAILED), "flow"),
    "how many of a few": lambda r: r.count(Query(id_prefix="state-7777"), "status"),
    "how many of a state": lambda r: r.count(Query(id="state-77"), "status"),
    "a version": lambda r: r.get("state-77", None),
    "due": lambda r: r.due(1_950_000, 100),
    "when to look again": lambda r: r.due(1_950_000, 0),
    "may claim": lambda r: r.may_claim({"flow 3": 1}, "worker 1", "another", 0),
    "may claim again": lambda r: r.may_claim({}, "worker 1", "claim 1", 0),
    "may not claim": lambda r: not r.may_claim({"other": 1}, "worker 1", "another", 0),
    "what an owner has": lambda r: r.holdings("worker 1"),
    "what is taken": lambda r: r.holdings(None),
    "where it stands": lambda r: r.place("state-7"),
    "the line": lambda r: r.line(),
}


@pytest.mark.parametrize("newest_first", [False, True], ids=["upwards", "downwards"])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_scans_a_table_of_a_million_versions(
    million: Million, name: str, newest_first: bool
) -> None:
    """From the beginning, from the middle and from the end: all goes through an index, and looks at
    a bounded number of rows."""
    found = False
    for start in (0, VERSIONS // 2, VERSIONS - 50_000, VERSIONS + 1):
        page = million.reader.read(PAGES[name], start, 100, newest_first)
        found |= bool(page.versions)
        check(million, least=0)
    assert found


@pytest.mark.parametrize("name", READS)
def test_no_read_scans_a_table_of_a_million_versions(million: Million, name: str) -> None:
    """Everything goes through an index, and looks at a bounded number of rows."""
    found = READS[name](million.reader)
    assert found
    check(million)


def test_a_page_by_a_prefix_looks_at_no_more_where_the_server_knows_nothing_of_the_table(
    postgres: Database,
) -> None:
    """Its indexes were there from the beginning, and it was never looked at: then what the server
    makes of a prefix seems to be a better way in than it is."""
    store = target(postgres.new_store())
    with store.connect() as connection:
        schema.prepare(connection, store)
        with connection.transaction():
            for text in GROW:
                connection.execute(store.sql(text), ())
        explaining: Any = Explaining(connection)
        quick = Million(Reader(store, explaining), explaining)
        for newest_first in (False, True):
            page = quick.reader.read(Query(id_prefix="state-"), 30_000, 100, newest_first)
            assert 100 == len(page.versions)
            check(quick, most=100)


GROW: list[LiteralString] = [
    """INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state)
        SELECT n, 'state-' || n, 'paused', n, n, 100, jsonb_build_object(
            'id', 'state-' || n, 'rev', n, 'committed_at', n
        ) FROM generate_series(1, 60000) n""",
    "UPDATE {s}.head SET rev = 60000, committed_at = 60000",
]


def released(writer: Writer) -> bool:
    writer.release([("state-99778", 999_778, "claim 78")], "worker 8", 0)
    return True


CLAIMS: dict[str, Callable[[Writer], object]] = {
    "claim": lambda w: w.claim({"flow 3": 50, "flow 7": 50}, 100, "worker", "1", 0),
    "take": lambda w: w.take(
        [Take([("state-1", 900_001), ("state-2", 900_002)], "worker", "2", 0)]
    )[0],
    "renew": lambda w: not w.renew([("state-99777", 999_777, "claim 77")], "worker 7", 0).lost,
    "release": released,
    "commit": lambda w: w.write([pausing(State("state-1", rev=900_001))]),
    "forget": lambda w: w.forget("state-101", [(101, "sum"), (201, "sum")]) == 3,
}


def pausing(state: State) -> Plan:
    return plan(Commit(Pause(state)), commit_id="1", now=0, policy=RetryPolicy(), place_of=ready)


@pytest.mark.parametrize("name", CLAIMS)
def test_no_claim_scans_a_table_of_a_million_versions(million: Million, name: str) -> None:
    """Neither does what renews and releases."""
    assert CLAIMS[name](Writer(million.reader.target, million.reader.connection))
    check(million)


def check(million: Million, least: int = 1, most: int = MAX_ROWS) -> None:
    """Everything went through an index, and looked at a bounded number of rows."""
    nodes = list(million.connection.nodes())
    scans = [node for node in nodes if node.get("Alias") and node["Node Type"] in SCANS]
    scans = [node for node in scans if node["Relation Name"] not in {"head", "meta"}]
    assert len(scans) >= least
    assert {"Index Scan", "Index Only Scan"} >= {node["Node Type"] for node in scans}, scans
    looked_at = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans
    )
    assert looked_at <= most
