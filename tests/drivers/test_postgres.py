"""The PostgreSQL driver keeps every law, also between processes and after ``kill -9``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import attrs
import psycopg
import pytest
from attrs import define, field
from hypothesis import settings

from flowstate import Driver, connect
from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.driver import PostgresDriver
from flowstate.testing import DriverConformance, DriverMachine, Store, StoredVersion
from flowstate.testing.conformance.base import Laws
from flowstate.testing.conformance.due import DueLaws
from flowstate.testing.conformance.durability import DurabilityLaws
from flowstate.testing.conformance.head import HeadLaws
from flowstate.testing.conformance.outcome import OutcomeLaws
from flowstate.testing.store import Faults

from ..postgres import Database, target
from .faulty_postgres import NATIVES, FaultyTarget


@define
class PostgresStore(Store):
    """A schema, read with plain psycopg."""

    shared = True
    processes = True
    persistent = True

    where: str
    _faults: Faults | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return self.where

    def driver(self) -> Driver:
        if self._faults is None:
            return connect(self.url)
        store = target(self.url)
        fields = {name: getattr(store, name) for name in attrs.fields_dict(Target)}
        return PostgresDriver(FaultyTarget(**fields, faults=self._faults))

    def faults(self) -> Faults:
        self._faults = Faults(NATIVES)
        return self._faults

    def raw_versions(self) -> list[StoredVersion]:
        rows = self._rows("SELECT rev, id, commit_id FROM {s}.versions ORDER BY rev")
        return [StoredVersion(*row) for row in rows]

    def raw_payloads(self) -> list[tuple[int, str]]:
        return self._rows("SELECT rev, checksum FROM {s}.payloads ORDER BY rev, checksum")

    @contextmanager
    def locked(self) -> Iterator[None]:
        store = target(self.url)
        tables = "{s}.head, {s}.states, {s}.versions"
        with store.connect() as connection, connection.transaction():
            connection.execute(store.sql(f"LOCK TABLE {tables} IN EXCLUSIVE MODE"))
            yield

    def _rows(self, sql: Any) -> list[Any]:
        store = target(self.url)
        with store.connect() as connection:
            try:
                return connection.execute(store.sql(sql)).fetchall()
            except psycopg.errors.UndefinedTable:
                return []


class OnPostgres(Laws):
    """Each test has a schema of its own."""

    @pytest.fixture(autouse=True)
    def _database(self, postgres: Database) -> None:
        self.database = postgres

    def new_store(self, tmp_path: Path) -> Store:  # noqa: ARG002
        return PostgresStore(self.database.new_store())

    def presence_store(self, tmp_path: Path) -> Store:  # noqa: ARG002
        """One that knows after half a second who does not come back."""
        return PostgresStore(self.database.new_store(reconnect="0.5"))


class TestPostgresDriver(OnPostgres, DriverConformance):
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


class TestPostgresDriverOnTrio(OnPostgres, HeadLaws, OutcomeLaws, DueLaws, DurabilityLaws):
    """What touches the event loop, which is little: the rest is done in threads."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"


class PostgresMachine(DriverMachine):
    database: ClassVar[Database]

    def new_store(self, path: Path) -> Store:  # noqa: ARG002
        return PostgresStore(self.database.new_store())


@pytest.fixture(scope="module", autouse=True)
def _database_of_the_machine(postgres: Database) -> None:
    PostgresMachine.database = postgres


TestPostgresMachine = PostgresMachine.TestCase
TestPostgresMachine.settings = settings(deadline=None, max_examples=50)
