"""Connections to PostgreSQL that a test has put something of its own around.

What happens inside a driver shows in the statements that it sends, and can be made to fail there.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import attrs
from psycopg.sql import Composable

from flowstate.drivers.postgres.connection import Target
from flowstate.drivers.postgres.driver import PostgresDriver
from flowstate.drivers.postgres.session import Connection
from flowstate.drivers.url import StoreUrl


@attrs.define(eq=False)
class Wrapped:
    """Does what the connection inside does. A subclass overrides what it is to do besides."""

    inside: Connection

    def execute(self, query: Any, parameters: Any = None, **options: Any) -> Any:
        return self.inside.execute(query, parameters, **options)

    def pipeline(self) -> AbstractContextManager[Any]:
        return self.inside.pipeline()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)


Wrap: TypeAlias = Callable[[Connection], Any]


@attrs.frozen
class WrappedTarget(Target):
    """A store whose connections are wrapped."""

    wrap: Wrap = Wrapped

    def connect(self, closing: threading.Event | None = None) -> Connection:
        connection: Connection = self.wrap(super().connect(closing))
        return connection


def driver_through(url: str, wrap: Wrap) -> PostgresDriver:
    """A driver on that store, each of whose connections is wrapped."""
    plain = Target.from_url(StoreUrl.parse(url))
    return PostgresDriver(WrappedTarget(**attrs.asdict(plain, recurse=False), wrap=wrap))


def before(hooks: Mapping[str, Callable[[Connection], object]]) -> Wrap:
    """Wraps a connection so that before a statement that a pattern is found in something is done;
    what is raised there is raised by the statement."""

    @attrs.define(eq=False)
    class Hooked(Wrapped):
        def execute(self, query: Any, parameters: Any = None, **options: Any) -> Any:
            sent = text_of(query)
            for pattern, hook in hooks.items():
                if re.search(pattern, sent):
                    hook(self.inside)
            return super().execute(query, parameters, **options)

    return Hooked


def text_of(query: bytes | str | Composable) -> str:
    """A statement as it is sent, however it was written."""
    if isinstance(query, Composable):
        return query.as_string()
    return query.decode() if isinstance(query, bytes) else query


LOCKS = "FOR UPDATE"
"""In the statement with which a transaction that writes locks the head row: others wait from here
on."""
WRITES = r"^\s*INSERT INTO \S+\.versions\b"
"""In the first statement that writes something, once it is decided what."""


def setting(name: str, value: str) -> Callable[[Connection], object]:
    """A hook: from here to the end of the transaction the server goes by this."""
    return lambda connection: connection.execute(f"SET LOCAL {name} = '{value}'".encode())
