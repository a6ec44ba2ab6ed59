"""PostgreSQL: who may make the tables and who may use them; an error names the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any, LiteralString

import anyio
import psycopg
import pytest
from attrs import define, field
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.sql import SQL, Identifier, Literal

from flowstate import (
    Commit,
    Delay,
    Driver,
    Engine,
    Pause,
    Resume,
    State,
    StoreOpenError,
    StoreReadOnlyError,
    connect,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.leases import Renewal

from ..postgres import Database, target, with_options
from .wrapped import Wrapped, driver_through

pytestmark = pytest.mark.anyio

PATIENCE_S = 30
IDLE = TransactionStatus.IDLE


@pytest.fixture
def anyio_backend() -> str:
    """Rights are the same for every loop."""
    return "asyncio"


@pytest.fixture
def url(postgres: Database) -> str:
    return postgres.new_store()


@pytest.fixture
def admin(postgres: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection that may do everything."""
    with closing(psycopg.connect(postgres.url, autocommit=True)) as connection:
        yield connection


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
    await works_with(lambda: connect(url))


async def works_with(new_driver: Callable[[], Driver]) -> None:
    """Everything that a driver does, on its own and beside another."""
    async with new_driver() as driver, new_driver() as other, Engine(driver) as engine:
        state = State("a", labels={"queue": "mail"}).attach("order", b"pears")
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other.wait, 0)
                (state,) = await engine.do(Commit(Delay(state, "work", after=1)))
        assert state == await engine.find({"queue": "mail"})
        assert b"pears" == await engine.data(state, "order", type=bytes)
        assert [state] == [due.state for due in (await driver.due(MAX_INSTANT_MS, 10)).due]
        (state,) = await engine.do(Commit(Resume(state)))
        assert [state] == [c.state for c in await driver.claim({"work": 1}, 1, "w", "1", 5)]
        held = [("a", state.rev, "1")]
        assert Renewal(frozenset(), frozenset()) == await driver.renew(held, "w", 6)
        await driver.release(held, "w", 7)
        assert {"work": 7} == await other.line()
        assert [state] == [c.state for c in await other.take([("a", state.rev)], "w", "2", 8)]


async def test_nothing_of_a_session_is_relied_upon(url: str) -> None:
    """A pooler may give each transaction another session: here each begins with nothing that was
    set, prepared, listened to or locked before."""
    forgotten = 0

    class Forgetful(Wrapped):
        def execute(self, query: Any, parameters: Any = None, **options: Any) -> Any:
            self.forget()
            return super().execute(query, parameters, **options)

        def pipeline(self) -> AbstractContextManager[Any]:
            self.forget()
            return super().pipeline()

        def transaction(self) -> AbstractContextManager[Any]:
            self.forget()
            return self.inside.transaction()

        def forget(self) -> None:
            nonlocal forgotten
            info = self.inside.info
            if (info.transaction_status, info.pipeline_status) == (IDLE, PipelineStatus.OFF):
                self.inside.execute("DISCARD ALL")
                forgotten += 1

    url = with_options(url, notify="off", prepare="off")
    await works_with(lambda: driver_through(url, Forgetful))
    assert forgotten > 10


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
    async with connect(url) as driver, Engine(driver) as engine:
        await engine.do(Commit(Pause(State("b"))))
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
            await driver.renew([("b", 1, "")], "w", 5)
        with pytest.raises(StoreReadOnlyError, match="GRANT SELECT, INSERT, UPDATE, DELETE"):
            await driver.take([("b", 1)], "w", "1", 5)

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
