"""PostgreSQL: who may make the tables, who may use them, and which indexes serve which query."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, LiteralString

import anyio
import psycopg
import pytest
from attrs import define, field
from psycopg.sql import SQL, Identifier, Literal

from flowstate import (
    Commit,
    Delay,
    End,
    Engine,
    Pause,
    Query,
    RetryPolicy,
    SchemaVersionError,
    State,
    Status,
    StoreCorruptError,
    StoreOpenError,
    StoreReadOnlyError,
    StoreUrlError,
    connect,
)
from flowstate.drivers.postgres import schema
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.listener import ServerSource
from flowstate.drivers.postgres.reader import Reader
from flowstate.drivers.postgres.writer import Writer
from flowstate.drivers.url import StoreUrl

from ..postgres import Database, with_options

pytestmark = pytest.mark.anyio

PATIENCE_S = 30


@pytest.fixture
def anyio_backend() -> str:
    """Tables are the same for every loop."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store()


@pytest.fixture
def admin(postgres: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection that may do everything."""
    with closing(psycopg.connect(postgres.url, autocommit=True)) as connection:
        yield connection


def target(url: str) -> Target:
    return Target.from_url(StoreUrl.parse(url))


async def fill(url: str, *ids: str) -> None:
    async with connect(url) as driver, Engine(driver) as engine:
        for id in ids:
            await engine.do(Commit(Pause(State(id, labels={"queue": "mail"}), "work")))


async def ids(url: str) -> list[str]:
    async with connect(url) as driver, Engine(driver) as engine:
        return [state.id async for state in engine.states()]


def run(admin: psycopg.Connection[Any], url: str, text: LiteralString) -> list[Any]:
    """A statement on a store, behind the driver's back."""
    cursor = admin.execute(target(url).sql(text))
    return cursor.fetchall() if cursor.description else []


# ---------------------------------------------------------------- making the tables


async def test_processes_may_make_a_store_at_once(url: str) -> None:
    """The schema is made once, whoever is first."""
    program = (
        "import anyio, sys; from flowstate import connect\n"
        "async def main():\n"
        "    async with connect(sys.argv[1]) as driver: await driver.head()\n"
        "anyio.run(main)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    errors = [child.communicate(timeout=PATIENCE_S)[1] for child in children]
    assert [(0, b"")] * 4 == [
        (child.returncode, error) for child, error in zip(children, errors, strict=True)
    ]
    assert await ids(url) == []


async def test_a_newer_schema_is_refused_untouched(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """What a newer flowstate wrote is left alone."""
    await fill(url, "a")
    run(admin, url, "UPDATE {s}.meta SET version = version + 1")
    before = run(admin, url, "SELECT v.*, v.xmin::text FROM {s}.versions v")
    with pytest.raises(SchemaVersionError, match=rf"version {schema.VERSION + 1}, newer than"):
        await connect(url).open()
    assert before == run(admin, url, "SELECT v.*, v.xmin::text FROM {s}.versions v")
    assert [(schema.VERSION + 1,)] == run(admin, url, "SELECT version FROM {s}.meta")


async def test_a_schema_of_something_else_is_refused_untouched(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """Somebody's own tables stay theirs, and get no others beside them."""
    run(admin, url, "CREATE SCHEMA {s}")
    run(admin, url, "CREATE TABLE {s}.diary (day text)")
    with pytest.raises(StoreOpenError, match="tables of something else"):
        await connect(url).open()
    assert [("diary",)] == admin.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
        (target(url).schema,),
    ).fetchall()


@pytest.mark.parametrize("mode", ["rw", "ro"])
async def test_a_mode_that_makes_no_store(url: str, mode: str) -> None:
    """``mode=rw`` and ``mode=ro`` are for stores that must be there."""
    with pytest.raises(StoreOpenError, match=f"mode={mode} makes none"):
        await connect(with_options(url, mode=mode)).open()
    await fill(url, "a")
    assert ["a"] == await ids(with_options(url, mode=mode))


async def test_a_store_opened_read_only_refuses_to_write(url: str) -> None:
    """``mode=ro`` reads."""
    await fill(url, "a")
    async with connect(with_options(url, mode="ro")) as driver, Engine(driver) as engine:
        state = await engine.get("a")
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await engine.do(Commit(End(state)))
        with pytest.raises(StoreReadOnlyError, match="mode=ro"):
            await driver.renew([("a", 1)], 5)


@pytest.mark.parametrize("name", ['quo"ted', "x'; DROP SCHEMA public; --", "Ümläut {s} %s %(a)s"])
async def test_any_name_of_a_schema_is_only_a_name(postgres: Database, name: str) -> None:
    """It is put into statements quoted; what it says is never one."""
    url = with_options(postgres.url, schema=name)
    await fill(url, "a")
    async with connect(url) as driver, connect(url) as other:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.wait, 1)
                async with Engine(other) as engine:
                    await engine.do(Commit(Pause(State("b"))))
    assert ["a", "b"] == await ids(url)


async def test_schemas_are_stores_of_their_own(postgres: Database) -> None:
    """Ids and revisions of one have nothing to do with those of another."""
    one, two = postgres.new_store(), postgres.new_store()
    await fill(one, "a", "b")
    await fill(two, "b", "c", "d")
    assert (["a", "b"], ["b", "c", "d"]) == (await ids(one), await ids(two))


async def test_a_database_that_cannot_keep_every_text_is_refused(
    postgres: Database, admin: psycopg.Connection[Any]
) -> None:
    """Its encoding must be UTF-8."""
    name = Identifier(f"{postgres.name}_latin")
    admin.execute(
        SQL("CREATE DATABASE {} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").format(name)
    )
    try:
        with pytest.raises(StoreOpenError, match="encoded in LATIN1"):
            await connect(with_options(postgres.url, dbname=f"{postgres.name}_latin")).open()
    finally:
        admin.execute(SQL("DROP DATABASE {}").format(name))


# ---------------------------------------------------------------- rights


@define
class Roles:
    """Roles without any right but to log in."""

    admin: psycopg.Connection[Any]
    made: list[str] = field(factory=list)

    def new(self, url: str) -> str:
        """The URL for another role."""
        name = f"role_{self.admin.info.backend_pid}_{len(self.made)}"
        self.admin.execute(
            SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(name), Literal("a word"))
        )
        self.made.append(name)
        return with_options(url, user=name, password="a word")  # noqa: S106  (of a test)

    def grant(self, url: str, text: LiteralString) -> None:
        """``{s}`` is the schema, ``{r}`` the role of that URL."""
        names = {"s": Identifier(target(url).schema), "r": Identifier(name_in(url))}
        self.admin.execute(SQL(text).format(**names))


def name_in(url: str) -> str:
    return target(url).parameters["user"]


@pytest.fixture
def roles(admin: psycopg.Connection[Any]) -> Iterator[Roles]:
    roles = Roles(admin)
    yield roles
    for name in roles.made:
        admin.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
        admin.execute(SQL("DROP ROLE {}").format(Identifier(name)))


async def works(url: str) -> None:
    """Everything that a driver does, on its own and beside another."""
    async with connect(url) as driver, connect(url) as other, Engine(driver) as engine:
        state = State("a", labels={"queue": "mail"}).attach("order", b"pears")
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other.wait, 0)
                (state,) = await engine.do(Commit(Delay(state, "work", after=1)))
        assert state == await engine.find({"queue": "mail"})
        assert b"pears" == await engine.data(state, "order", type=bytes)
        assert frozenset() == await driver.renew([("a", state.rev)], 5)
        assert (state,) == await driver.due(5, ["work"], 10)


async def test_nothing_of_a_session_is_relied_upon(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler may give each transaction another session: here each begins with nothing that was
    set, prepared, listened to or locked before."""

    def forgetting(method: Callable[..., Any]) -> Callable[..., Any]:
        def forget(self: Any, *arguments: Any, **more: Any) -> Any:
            connection = getattr(self, "connection", None) or self._connection
            if connection is not None and not connection.closed:
                connection.execute("DISCARD ALL")
            return method(self, *arguments, **more)

        return forget

    monkeypatch.setattr(Writer, "_transact", forgetting(Writer._transact))
    monkeypatch.setattr(Writer, "_renew", forgetting(Writer._renew))
    monkeypatch.setattr(Reader, "_rows", forgetting(Reader._rows))
    monkeypatch.setattr(Reader, "_indexed", forgetting(Reader._indexed))
    monkeypatch.setattr(ServerSource, "look", forgetting(ServerSource.look))
    await works(with_options(url, notify="off", prepare="off"))


async def test_a_role_without_superuser_that_may_make_schemas(
    url: str, roles: Roles, postgres: Database
) -> None:
    url = roles.new(url)
    database = Identifier(postgres.name)
    roles.admin.execute(
        SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, Identifier(name_in(url)))
    )
    await works(url)


async def test_a_role_that_was_given_a_schema(url: str, roles: Roles) -> None:
    """It needs no right on the database then."""
    url = roles.new(url)
    roles.grant(url, "CREATE SCHEMA {s} AUTHORIZATION {r}")
    await works(url)


async def test_a_role_with_the_rights_that_the_errors_ask_for(url: str, roles: Roles) -> None:
    """Each error names the missing right and what grants it; with these, another role's store
    can be used: first not at all, then read, then written."""
    await fill(url, "b")
    role = roles.new(url)
    with pytest.raises(StoreOpenError, match=r"the right USAGE on the schema 'store_\d+'"):
        await connect(role).open()

    roles.grant(role, "GRANT USAGE ON SCHEMA {s} TO {r}")
    with pytest.raises(StoreOpenError, match=r"lacks a right .*GRANT SELECT, INSERT"):
        await connect(role).open()

    roles.grant(role, "GRANT SELECT ON {s}.meta TO {r}")
    with pytest.raises(StoreOpenError, match="no right SELECT on current_labels, head, labels"):
        await connect(role).open()

    roles.grant(role, "GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {r}")
    async with connect(role) as driver, Engine(driver) as engine:
        assert "b" == (await engine.get("b")).id
        with pytest.raises(StoreReadOnlyError, match=r"permission denied for table head.*GRANT "):
            await engine.do(Commit(Pause(State("a"))))
        with pytest.raises(StoreReadOnlyError, match="GRANT SELECT, INSERT, UPDATE, DELETE"):
            await driver.renew([("b", 1)], 5)

    roles.grant(role, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}")
    await works(role)


async def test_a_role_that_may_not_make_the_schema(url: str, roles: Roles) -> None:
    url = roles.new(url)
    with pytest.raises(StoreOpenError, match=r"no right CREATE on the database .*AUTHORIZATION"):
        await connect(url).open()


async def test_a_role_that_may_not_make_the_tables(url: str, roles: Roles) -> None:
    """The schema is there, and somebody else's."""
    url = roles.new(url)
    roles.grant(url, "CREATE SCHEMA {s}")
    with pytest.raises(StoreOpenError, match="no right USAGE on the schema"):
        await connect(url).open()
    roles.grant(url, "GRANT USAGE ON SCHEMA {s} TO {r}")
    with pytest.raises(StoreOpenError, match="no right CREATE on the schema"):
        await connect(url).open()
    roles.grant(url, "GRANT CREATE ON SCHEMA {s} TO {r}")
    await works(url)


async def test_a_connection_limit_is_told_like_a_full_server(url: str, roles: Roles) -> None:
    url = roles.new(url)
    roles.grant(url, "ALTER ROLE {r} CONNECTION LIMIT 0")
    with pytest.raises(StoreOpenError, match="takes no more clients"):
        await connect(url).open()


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("postgresql://h/d?schema=", "schema takes a name of 1 to 63 bytes"),
        (f"postgresql://h/d?schema={'ü' * 32}", "schema takes a name of 1 to 63 bytes"),
        ("postgresql://h/d?schema=pg_temp", "PostgreSQL's own"),
        ("postgresql://h/d?notify=maybe", "notify takes on or off, not 'maybe'"),
        ("postgresql://h/d?synchronous=full", "synchronous takes on or off or local"),
        ("postgresql://h/d?reconnect=soon", "reconnect takes seconds, not 'soon'"),
        ("postgresql://h/d?colour=red", "has no option 'colour'"),
        ("postgresql://u:secret/word@h/d", "%2F"),
        ("postgresql://[u:secret@h/d", "is no URL"),
        (
            "postgresql://h/d?password=secret&sslpassword=secret&colour=red",
            "has no option 'colour'",
        ),
    ],
)
def test_a_bad_url_says_what_is_wrong(bad: str, problem: str) -> None:
    """Nothing is opened under a URL that was misunderstood, and no password is shown."""
    with pytest.raises(StoreUrlError) as caught:
        connect(bad)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "word" not in str(caught.value).partition("in a password")[0]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40ss@h:5433/d", ("u", "p@ss", "h", "5433", "d")),
        ("postgres://h1:1,h2:2/d", (None, None, "h1,h2", "1,2", "d")),
        ("postgresql://u@[::1]:5433/d", ("u", None, "::1", "5433", "d")),
        ("postgresql:///d?host=/run/pg&password=x", (None, "x", "/run/pg", None, "d")),
        ("postgresql://%2Frun%2Fpg/d", (None, None, "/run/pg", None, "d")),
    ],
)
def test_urls_are_read_as_libpq_reads_them(url: str, expected: tuple[str | None, ...]) -> None:
    parameters = target(url).parameters
    names = ("user", "password", "host", "port", "dbname")
    assert expected == tuple(parameters.get(name) for name in names)
    theirs: Mapping[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    assert {**theirs} == {name: parameters.get(name) for name in theirs}


def test_without_psycopg_the_error_says_what_to_install() -> None:
    """``connect`` does not need it before such a URL is given; ``import flowstate`` never does."""
    program = (
        "import sys; sys.modules['psycopg'] = None; import flowstate\n"
        "try: flowstate.connect('postgresql://me:secret@host/db')\n"
        "except flowstate.StoreUrlError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'flowstate-kernel[postgres]'" in done.stdout
    assert "secret" not in done.stdout


def test_importing_flowstate_does_not_import_psycopg() -> None:
    program = "import sys, flowstate; print(*(name for name in sys.modules if 'psycopg' in name))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "\n" == done.stdout


# ---------------------------------------------------------------- what is stored


FLOATS = [0.001, 1.5, 1.0, 3.0000000000000004e2, 86_400.001, 12_345_678.9]


@pytest.mark.parametrize("number", FLOATS)
async def test_numbers_come_back_as_they_were(url: str, number: float) -> None:
    """``jsonb`` keeps numbers as decimals of any length: no bit is lost."""
    policy = RetryPolicy(lease=1.0, backoff=0.001, max_backoff=number, max_attempts=2**62)
    state = State("a", retry=policy)
    async with connect(url) as driver, Engine(driver) as engine:
        (written,) = await engine.do(Commit(Pause(state)))
        read = await driver.get("a")
    assert written == read
    assert read is not None
    assert policy == read.retry
    assert type(policy.max_backoff) is type(read.retry.max_backoff)


async def test_texts_and_stacks_come_back_as_they_were(url: str) -> None:
    """Whatever a text holds, wherever it is; and states inside states."""
    odd = "\\u0041 \" ' \\ \n\t\x01 €😀 \\x00 {} %s null"
    state = State(odd, labels={odd: odd}, annotations={odd: odd})
    for depth in range(50):
        state = State(f"{depth}", labels={"b": "1", "a": "2"}).stack("inner", state)
    async with connect(url) as driver, Engine(driver) as engine:
        (written,) = await engine.do(Commit(Pause(state, odd, reason=odd)))
        assert written == await driver.get(state.id)
        (written,) = await engine.do(Commit(Pause(State(odd, labels={odd: odd}))))
        assert written == await engine.find(Query(labels={odd: odd}, id_prefix=odd[:4]))


async def test_texts_of_any_length_are_indexed(url: str) -> None:
    """An index of PostgreSQL takes 2,700 bytes; labels and flows have no such bound."""
    long = "".join(map(str, range(5_000)))
    async with connect(url) as driver, Engine(driver) as engine:
        state = State("a", labels={long: long, "queue": "mail"})
        (state,) = await engine.do(Commit(Delay(state, long, after=0)))
        assert state == await engine.find({long: long})
        assert (state,) == await driver.due(state.committed_at * 2, [long], 10)
        assert (long,) == await driver.due_flows()


async def test_a_row_that_does_not_decode_is_named_and_hides_no_other(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """StoreCorruptError says which revision; the other states are still there."""
    await fill(url, "a", "b")
    run(admin, url, "UPDATE {s}.versions SET state = '{{\"id\": 7}}' WHERE rev = 1")
    async with connect(url) as driver, Engine(driver) as engine:
        with pytest.raises(StoreCorruptError, match="the version at revision 1"):
            await engine.get("a")
        assert 2 == (await engine.get("b")).rev


async def test_references_to_payloads_are_kept_by_commit(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """Which version refers to which payload, also by a copied reference or in a stacked state."""
    async with connect(url) as driver, Engine(driver) as engine:
        (a,) = await engine.do(Commit(Pause(State("a").attach("order", b"pears"))))
        (b,) = await engine.do(Commit(Pause(State("b").attach("copy", a.data["order"]))))
        (c,) = await engine.do(Commit(Pause(State("c").stack("inner", b))))
        await engine.do(Commit(Pause(State("d"))))
    refs = run(admin, url, "SELECT rev, payload_rev FROM {s}.payload_refs ORDER BY rev")
    assert [(a.rev, a.rev), (b.rev, a.rev), (c.rev, a.rev)] == refs


# ---------------------------------------------------------------- plans


VERSIONS = 1_000_000
"""A tenth of them is current. All have a label that a tenth of them shares, some a rare one."""

FILL: list[LiteralString] = [  # indexes last: it is quicker
    "ALTER TABLE {s}.versions SET UNLOGGED",
    "ALTER TABLE {s}.versions DROP CONSTRAINT versions_pkey",
    "DROP INDEX {s}.versions_id",
    """INSERT INTO {s}.versions SELECT n, 's' || n % 100000, 'paused', n, n, format(
        '{{"id": "s%s", "rev": %s, "committed_at": %s, "transition": {{"status": "paused"}}, '
        '"labels": {{"often": "%s", "seldom": "%s"}}}}', n % 100000, n, n, n % 10, n % 1000
    )::jsonb FROM generate_series(1, {n}) n""",
    "ALTER TABLE {s}.versions ADD PRIMARY KEY (rev)",
    "CREATE INDEX versions_id ON {s}.versions (id, rev)",
    """INSERT INTO {s}.states SELECT 's' || n % 100000, n, n, {wake}, 'wake'
        FROM generate_series({n} - 99999, {n}) n""",
    "ALTER TABLE {s}.labels SET UNLOGGED",
    "ALTER TABLE {s}.labels DROP CONSTRAINT labels_pkey",
    "INSERT INTO {s}.labels SELECT ({often})[n % 10 + 1], n FROM generate_series(1, {n}) n",
    """INSERT INTO {s}.labels SELECT ({seldom})[n % 1000 + 1], n
        FROM generate_series(1, {n}) n WHERE n % 1000 IN (7, 123)""",
    "ALTER TABLE {s}.labels ADD PRIMARY KEY (key, rev)",
    "INSERT INTO {s}.current_labels SELECT key, rev FROM {s}.labels WHERE rev > {n} - 100000",
    "UPDATE {s}.head SET rev = {n}, committed_at = {n}",
]


@define(eq=False)
class ExplainingReader(Reader):
    """Asks for the plan of each statement before it does it."""

    plans: list[Any] = field(factory=list)

    def _execute(
        self, text: LiteralString, values: Mapping[str, Any] | None = None
    ) -> psycopg.Cursor[Any]:
        if values is not None:
            explained = super()._execute("EXPLAIN (ANALYZE, FORMAT JSON) " + text, values)
            self.plans.append(explained)
        return super()._execute(text, values)

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Every node of every plan so far."""
        waiting = [json.loads(json.dumps(plan.fetchone()[0]))[0]["Plan"] for plan in self.plans]
        self.plans.clear()
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            yield node


@pytest.fixture(scope="module")
def million(postgres: Database) -> Iterator[ExplainingReader]:
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
                        wake=schema.key("wake"),
                        often=[schema.key("often", f"{n}") for n in range(10)],
                        seldom=[schema.key("seldom", f"{n}") for n in range(1_000)],
                    )
                )
        yield ExplainingReader(store, connection)


MAX_ROWS = 15_000
"""That a statement may look at: what one page may look at, and some."""

READS: dict[str, Callable[[Reader], object]] = {
    "all of": lambda r: r.read(Query(labels={"often": "3", "seldom": "123"}), 0, 100),
    "any of": lambda r: r.read(Query(labels=[{"seldom": "7"}, {"seldom": "123"}]), 0, 100),
    "any of, newest": lambda r: r.find(Query(labels=[{"often": "3"}, {"seldom": "123"}])),
    "all of, newest": lambda r: r.find(Query(labels={"often": "3", "seldom": "123"})),
    "all of, current": lambda r: r.read(
        Query(labels={"often": "3", "seldom": "123"}, latest=True), 0, 100
    ),
    "a label and a status": lambda r: r.read(
        Query(labels={"often": "3"}, status=Status.PAUSED), 500_000, 100
    ),
    "current": lambda r: r.read(Query(latest=True), 950_000, 100),
    "a state": lambda r: r.read(Query(id="s77"), 0, 100),
    "since": lambda r: r.read(Query(since=700_000), 0, 100),
    "a page": lambda r: r.read(Query(), 500_000, 1_000),
    "a version": lambda r: r.get("s77", None),
    "due": lambda r: r.due(950_000, ["wake", "work"], 100),
    "next due": lambda r: r.next_due(["wake", "work"]),
    "due flows": lambda r: r.due_flows(),
}


@pytest.mark.parametrize("name", READS)
def test_no_read_scans_a_table_of_a_million_versions(million: ExplainingReader, name: str) -> None:
    """Everything goes through an index, and looks at a bounded number of rows."""
    found = READS[name](million)
    assert found
    assert getattr(found, "versions", True), "the page is empty"
    nodes = list(million.nodes())
    scans = [node for node in nodes if node.get("Relation Name") not in {None, "head"}]
    assert scans
    assert {"Index Scan", "Index Only Scan"} >= {node["Node Type"] for node in scans}, scans
    looked_at = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans
    )
    assert looked_at < MAX_ROWS
