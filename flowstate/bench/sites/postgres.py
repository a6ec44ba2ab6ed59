"""Stores in schemas of their own, in the database that is named.

Needs psycopg: ``pip install 'flowstate-kernel[postgres]'``.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from itertools import count
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import anyio
import psycopg
from attrs import define, field, frozen

from flowstate import Commit, Pause, Plan, RetryPolicy, State, Transit, connect
from flowstate.drivers.plans import GroupPlan
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.errors import translate
from flowstate.drivers.postgres.rows import Keys, Statement, statements
from flowstate.drivers.postgres.session import Connection
from flowstate.drivers.url import StoreUrl
from flowstate.leases import Place
from flowstate.transitions import plan

from ..errors import BenchError
from .site import COMMIT_ID, INSTANT_MS, RawLimit, Site

LOCK_TIMEOUT = "10s"
"""How long to wait for others before a schema is removed."""
SETTINGS = ("fsync", "synchronous_commit", "synchronous_standby_names", "shared_buffers")
"""Of the server, that its figures depend on."""


@define(eq=False)
class PostgresSite(Site):
    """A database. The schema that the URL names is never made or changed."""

    _token: str = field(factory=lambda: secrets.token_hex(4), init=False)
    _numbers: count[int] = field(factory=count, init=False)

    def check(self) -> None:
        target = Target.from_url(self.url)
        with _connected(target) as connection:
            found = connection.execute(
                "SELECT to_regclass(format('%%I.head', %s::text))", (target.schema,)
            ).fetchone()
            if found is None or found[0] is None:
                return
            row = connection.execute(target.sql("SELECT rev FROM {s}.head")).fetchone()
            if row and row[0]:
                raise BenchError(
                    f"{self.shown}: the schema {target.schema!r} has states already (revision "
                    f"{row[0]:,}). Measuring would not touch it, but would load its server. Name a "
                    "schema that does not exist, e.g. with ?schema=bench, on the server to be "
                    "measured"
                )

    @contextmanager
    def fresh(self) -> Generator[str]:
        schema = f"flowstate_bench_{self._token}_{next(self._numbers)}"
        url = _with_schema(self.url.original, schema)
        try:
            yield url
        finally:
            target = Target.from_url(StoreUrl.parse(url))
            with _connected(target) as connection:
                connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
                connection.execute(target.sql("DROP SCHEMA IF EXISTS {s} CASCADE"))

    @property
    def raw(self) -> RawLimit:
        return _BareStatements(self)

    def size(self, url: str) -> int | None:
        target = Target.from_url(StoreUrl.parse(url))
        with _connected(target) as connection:
            row = connection.execute(
                "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c "
                "JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname = %s AND c.relkind = 'r'",
                (target.schema,),
            ).fetchone()
            return row[0] if row else None

    def facts(self) -> Mapping[str, str]:
        with _connected(Target.from_url(self.url)) as connection:
            server = connection.info.parameter_status("server_version") or "?"
            facts = {"PostgreSQL": server, "psycopg": psycopg.__version__}
            for name in SETTINGS:
                row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
                if row and row[0]:
                    facts[name] = str(row[0])
            facts["server"] = "on this machine" if _is_local(connection) else "on another machine"
        asked = {k: v for k, v in self.url.options.items() if k in {"synchronous", "notify"}}
        return facts | asked


@frozen(eq=False)
class _BareStatements:
    """The driver's own statements, made before, sent by one who asks for nothing."""

    site: PostgresSite

    @property
    def about(self) -> str:
        return (
            "psycopg alone: one INSERT … SELECT FROM unnest(…) a table, into the same tables with "
            "the same rows, in one round trip and one transaction for as many rows as flows commit "
            "at a time; nothing is asked or decided"
        )

    def insert(self, a_sync: int, seconds: float) -> float:
        commits = [_plan(Commit(Transit(State(f"order-{n}"), "step"))) for n in range(a_sync)]
        return a_sync * self._transactions(commits, seconds)

    def payload(self, size: int, seconds: float) -> float:
        content = os.urandom(size)  # nothing that the server could compress
        commits = [_plan(Commit(Pause(State("order-1").attach("file", content), "work")))]
        return size * self._transactions(commits, seconds)

    def lookup(self, rows: int, seconds: float) -> float:
        with self._store() as (target, connection):
            commits = [_plan(Commit(Pause(State(f"order-{n}"), "work"))) for n in range(rows)]
            _send(connection, target, _group(commits, 1))
            text = target.sql("SELECT v.rev, v.state::text FROM {s}.versions v WHERE v.id = %s "
                              "ORDER BY v.rev DESC LIMIT 1")  # fmt: skip

            def look(number: int) -> float:
                before = time.perf_counter()
                id = f"order-{number * 7919 % rows}"  # a prime: all over the table
                connection.execute(text, (id,), prepare=True).fetchone()
                return time.perf_counter() - before

            return _rate(look, seconds)

    def _transactions(self, commits: list[Plan], seconds: float) -> float:
        """Transactions a second, each of these commits."""
        with self._store() as (target, connection):

            def transact(number: int) -> float:
                group = _group(commits, 1 + number * len(commits))
                before = time.perf_counter()
                _send(connection, target, group)
                return time.perf_counter() - before

            return _rate(transact, seconds)

    @contextmanager
    def _store(self) -> Generator[tuple[Target, Connection]]:
        """The tables of a new store, and a connection."""
        with self.site.fresh() as url:
            anyio.run(_make, url)
            target = Target.from_url(StoreUrl.parse(url))
            with _connected(target) as connection:
                yield target, connection


def _rate(work: Callable[[int], float], seconds: float) -> float:
    """Times a second, where *work* gives how long it took; what it does besides does not count."""
    done, spent = 0, 0.0
    until = time.perf_counter() + 4 * seconds  # making the statements may take longer than sending
    while not done or (spent < seconds and time.perf_counter() < until):
        spent += work(done)
        done += 1
    return done / spent


def _plan(commit: Commit) -> Plan:
    return plan(commit, commit_id=COMMIT_ID, now=INSTANT_MS, policy=RetryPolicy(), place_of=_taken)


def _taken(_state: State, now: int, lease: int) -> Place:
    return Place(None, "owner", "", now + lease)


def _group(commits: list[Plan], first: int) -> list[Statement]:
    group: GroupPlan[Keys] = GroupPlan(first, INSTANT_MS, {})
    for commit in commits:
        group.decide(commit, lambda _id, _rev: None)
    return list(statements(group))


def _send(connection: Connection, target: Target, group: list[Statement]) -> None:
    with connection.pipeline():
        connection.execute("BEGIN")
        for text, parameters in group:
            connection.execute(target.sql(text), parameters, binary=True)
        connection.execute("COMMIT")


async def _make(url: str) -> None:
    async with connect(url):
        pass


@contextmanager
def _connected(target: Target) -> Generator[Connection]:
    try:
        with target.connect() as connection:
            yield connection
    except psycopg.Error as error:
        raise translate(target, error) from error


def _is_local(connection: Connection) -> bool:
    host = connection.info.host
    return host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}


def _with_schema(url: str, schema: str) -> str:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))
    query = urlencode(options | {"schema": schema}, quote_via=quote)
    return urlunsplit(parts._replace(query=query))
