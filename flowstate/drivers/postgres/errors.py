"""PostgreSQL's errors, told in flowstate's terms: which store, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.sql import Identifier

from ...errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreOpenError,
    StoreReadOnlyError,
    StoreUnreachableError,
)
from .connection import Target

_Make = Callable[[Target, str], StoreError]

LOST = {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"}
"""The server ends the session, or has only just begun. Besides these, class 08."""
AGAIN = {"40001", "40P01"}
"""Serialization failure and deadlock: nothing was written, and the next try may go well."""


def grants(target: Target, role: str | None = None) -> str:
    """What an administrator has to do so that a role can use the store."""
    schema, to = quoted(target.schema), quoted(role) if role else "this role"
    return (
        f"Let its owner do: GRANT USAGE ON SCHEMA {schema} TO {to}; GRANT SELECT, INSERT, UPDATE, "
        f"DELETE ON ALL TABLES IN SCHEMA {schema} TO {to}"
    )


def quoted(name: str) -> str:
    """A name as it is written in a statement."""
    return Identifier(name).as_string()


def _gone(target: Target, told: str) -> StoreError:
    return StoreError(target.url, f"tables of the store are gone ({told}); restore them")


def _crowded(target: Target, told: str) -> StoreError:
    return StoreUnreachableError(
        target.url,
        f"the server takes no more clients ({told}); nothing was written. Raise max_connections, "
        "use a pooler, or run fewer processes: each takes up to 6 connections",
    )


# SQLSTATE -> the error; https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: dict[str, _Make] = {
    "25006": lambda target, told: StoreReadOnlyError(
        target.url,
        f"the server is read-only ({told}): a standby, or set so. Name the primary; with several "
        "hosts in the URL, target_session_attrs=read-write finds it",
    ),
    "28000": lambda target, told: StoreOpenError(target.url, f"this user is refused ({told})"),
    "28P01": lambda target, told: StoreOpenError(target.url, f"the password is wrong ({told})"),
    "3D000": lambda target, told: StoreOpenError(
        target.url, f"there is no such database ({told}); make it with CREATE DATABASE"
    ),
    "3F000": _gone,
    "42P01": _gone,
    "42501": lambda target, told: StoreReadOnlyError(
        target.url, f"a right is missing ({told}); nothing was written. {grants(target)}"
    ),
    "53100": lambda target, told: StoreFullError(
        target.url, f"the server's disk is full ({told}); nothing of the commit was written"
    ),
    "53300": _crowded,
    "55P03": lambda target, _: StoreBusyError(
        target.url,
        "someone else held the lock that orders commits for too long; nothing was written. "
        "Find who in pg_stat_activity: a session in state 'idle in transaction'",
    ),
    "57014": lambda target, told: StoreBusyError(
        target.url, f"the server ended a statement ({told}); nothing was written"
    ),
    "XX001": lambda target, told: StoreCorruptError(target.url, f"is damaged ({told})"),
    "XX002": lambda target, told: StoreCorruptError(target.url, f"is damaged ({told})"),
}

# What a server says when it refuses a connection comes without its SQLSTATE
_BY_WORDS: Sequence[tuple[str, str]] = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("not permitted to log in", "28000"),
    ("too many clients", "53300"),
    ("too many connections", "53300"),
    ("remaining connection slots", "53300"),
)


def translate(target: Target, error: psycopg.Error) -> StoreError:
    """The flowstate error that an error of PostgreSQL or psycopg stands for."""
    told = _told(error)
    make = _BY_STATE.get(_state(error))
    if make is not None:
        return make(target, told)
    if is_lost(error):
        return StoreUnreachableError(
            target.url,
            f"the server does not answer ({told}); nothing was written. Look whether it runs, and "
            "whether host and port are right",
        )
    return StoreError(target.url, f"PostgreSQL failed: {told} ({error.sqlstate or 'no SQLSTATE'})")


def is_lost(error: psycopg.Error) -> bool:
    """Whether there is no connection any more, or could be none for now."""
    state = _state(error)
    if not state:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in LOST or state == "53300" or state.startswith("08")


@contextmanager
def translated(target: Target) -> Generator[None]:
    """Raise the errors of PostgreSQL as ours."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(target, error) from error


def _state(error: psycopg.Error) -> str:
    if error.sqlstate:
        return error.sqlstate
    words = str(error)
    if 'database "' in words and "does not exist" in words:
        return "3D000"
    if 'role "' in words and "does not exist" in words:
        return "28000"
    return next((state for word, state in _BY_WORDS if word in words), "")


def _told(error: psycopg.Error) -> str:
    """What the server said, in one line."""
    told = error.diag.message_primary or str(error) or type(error).__name__
    lines = dict.fromkeys(" ".join(line.split()) for line in told.splitlines())
    return "; ".join(line for line in lines if line and not any(
        line != other and line in other for other in lines
    ))  # fmt: skip
