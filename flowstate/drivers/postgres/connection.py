"""Where the store is, as its URL says it, and how connections to it are opened."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, LiteralString
from urllib.parse import unquote, urlsplit

from attrs import field, frozen
from psycopg import pq
from psycopg.sql import SQL, Identifier

from ...errors import StoreUrlError
from ..url import StoreUrl
from .arrays import register
from .session import DEADLINE_S, Connection

SCHEMA = "flowstate"
MAX_NAME_BYTES = 63
"""https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS"""
SYNCHRONOUS = ("on", "off", "local", "remote_write", "remote_apply")
SWITCH = ("on", "off")
MODES = ("rwc", "rw", "ro")
RECONNECT_S = 30.0
PAUSE_S = 0.05
"""Before the first retry to reach the server; the pause doubles with each retry."""
MAX_PAUSE_S = 1.0
"""The longest pause between two attempts to reach the server."""
DEFAULTS: Mapping[str, str] = {
    "application_name": "flowstate",
    "connect_timeout": "10",  # s
    # a connection whose other end disappears silently is closed after some 25 s
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",  # ms
    "client_encoding": "UTF8",
}
"""libpq's parameters, unless the URL says otherwise."""
LOCK_TIMEOUT: LiteralString = "10s"
"""How long to wait for other processes that commit."""
IDLE_TIMEOUT: LiteralString = "5s"
"""How long a process that hangs in the middle of a transaction can block the others."""
BY_INDEX: LiteralString = """
pg_catalog.set_config('enable_seqscan', 'off', true),
pg_catalog.set_config('enable_bitmapscan', 'off', true),
pg_catalog.set_config('enable_hashjoin', 'off', true),
pg_catalog.set_config('enable_mergejoin', 'off', true),
pg_catalog.set_config('jit', 'off', true)
"""
"""Settings that have a transaction do everything through indexes, one row after the other. All
statements here are made for that; and the planner, which knows a growing table by the statistics of
yesterday, would sometimes rather read all of it."""
PREPARE_AFTER = 2
"""Executions after which a statement is prepared."""


@frozen
class Target:
    """A schema of a database on a server.

    ``notify`` tells other processes of commits, and listens. ``prepare`` prepares statements.
    ``presence`` has a session by which others see at once that the process died.
    ``synchronous`` is what ``synchronous_commit`` is for commits. ``reconnect`` is for how many
    seconds a server that went away is retried before that is an error. ``mode`` is "rwc" (the
    tables are made if they are missing), "rw" or "ro". ``deadline`` is for how many seconds a
    connection may be silent while something is asked.
    """

    url: str
    """Without a password: what errors name."""
    parameters: Mapping[str, str] = field(repr=False)
    """libpq's parameters, a password among them."""
    schema: str = SCHEMA
    notify: bool = True
    prepare: bool = True
    presence: bool = True
    synchronous: str = "on"
    reconnect: float = RECONNECT_S
    mode: str = "rwc"
    deadline: float = DEADLINE_S

    @classmethod
    def from_url(cls, url: StoreUrl) -> Target:
        """Raises ``StoreUrlError``."""
        options = dict(url.options)
        schema = options.pop("schema", SCHEMA)
        _check_schema(url, schema)
        notify = _choice(url, "notify", options.pop("notify", "on"), SWITCH)
        prepare = _choice(url, "prepare", options.pop("prepare", "on"), SWITCH)
        # what cannot prepare statements is a pooler, which has no sessions either
        presence = _choice(url, "presence", options.pop("presence", prepare), SWITCH)
        synchronous = _choice(url, "synchronous", options.pop("synchronous", "on"), SYNCHRONOUS)
        mode = _choice(url, "mode", options.pop("mode", "rwc"), MODES)
        reconnect = options.pop("reconnect", str(RECONNECT_S))
        try:
            reconnect_s = float(reconnect)
        except ValueError:
            reconnect_s = -1
        if not 0 <= reconnect_s <= 24 * 3600:
            raise StoreUrlError(url.text, f"reconnect takes seconds, not {reconnect!r}")
        _check_options(url, options)
        return cls(
            url.text,
            {**DEFAULTS, **_address(url), **options},
            schema,
            notify == "on",
            prepare == "on",
            presence == "on",
            synchronous,
            reconnect_s,
            mode,
        )

    @property
    def channel(self) -> str:
        """The channel of NOTIFY, which is no more than a hint: a long name may be cut."""
        return f"flowstate {self.schema}".encode()[:MAX_NAME_BYTES].decode(errors="ignore")

    def connect(self, closing: threading.Event | None = None) -> Connection:
        """A new connection, for use by one thread at a time; it is given up sooner once *closing*
        is set. Raises ``psycopg.Error``."""
        connection = Connection.connect(
            **dict[str, Any](self.parameters),
            autocommit=True,
            prepare_threshold=PREPARE_AFTER if self.prepare else None,
        )
        register(connection.adapters)
        # psycopg numbers what it prepares from 0: where a pooler has clients share a session of the
        # server, one would run what another has prepared under the same number
        connection._prepared._prepared_idx = secrets.randbits(64)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        connection.go_by(self.deadline, closing)
        return connection

    def sql(self, text: LiteralString) -> bytes:
        """A statement, to be executed with parameters, were it none: ``()``. ``{s}`` in it is the
        schema."""
        return _statement(text, self.schema)


@lru_cache(maxsize=1_000)
def _statement(text: LiteralString, schema: str) -> bytes:
    # the name is put into every statement: a pooler may give each a session of its own
    name = Identifier(schema.replace("%", "%%"))  # which would stand for a parameter
    return SQL(text).format(s=name).as_bytes()


def pauses(retry_s: float) -> Iterator[float]:
    """The pauses between attempts to reach a server, in seconds, for so many seconds in all."""
    end, pause = time.monotonic() + retry_s, PAUSE_S
    while (left := end - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(2 * pause, MAX_PAUSE_S)


def _address(url: StoreUrl) -> dict[str, str]:
    """The part of the URL before the options, as libpq's parameters.

    libpq reads such URLs too, but some of its errors would quote the password.
    """
    _, netloc, _, _, _ = urlsplit(url.original)
    user, _, hosts = netloc.rpartition("@")
    name, _, password = user.partition(":")
    places = [_place(url, place) for place in hosts.split(",")]
    found = {
        "user": unquote(name),
        "password": unquote(password),
        "host": ",".join(host for host, _ in places),
        "port": ",".join(port for _, port in places),
        "dbname": url.path,
    }
    return {key: value for key, value in found.items() if value.strip(",")}


def _place(url: StoreUrl, place: str) -> tuple[str, str]:
    """Host and port"""
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, ""
    if port and not port.isdecimal():
        raise StoreUrlError(
            url.text,
            "the port is not a number; in a password, / ? # and @ are written %2F %3F %23 %40",
        )
    return unquote(host.removeprefix("[").removesuffix("]")), port


def _check_schema(url: StoreUrl, schema: str) -> None:
    if not schema or "\0" in schema or len(schema.encode()) > MAX_NAME_BYTES:
        raise StoreUrlError(url.text, f"schema takes a name of 1 to {MAX_NAME_BYTES} bytes")
    if schema.startswith("pg_") or schema == "information_schema":
        raise StoreUrlError(url.text, f"the schema {schema!r} is PostgreSQL's own; name another")


def _check_options(url: StoreUrl, options: Mapping[str, str]) -> None:
    names = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for option in options:
        if option not in names:
            raise StoreUrlError(
                url.text,
                f"has no option {option!r} (it has: schema, notify, prepare, presence, "
                "synchronous, reconnect, mode, and the parameters of libpq, such as sslmode)",
            )


def _choice(url: StoreUrl, option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise StoreUrlError(url.text, f"{option} takes {' or '.join(choices)}, not {value!r}")
    return value
