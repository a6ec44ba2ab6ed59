"""PostgreSQL's errors as flowstate's: which store, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.sql import Identifier

from ...errors import (
    FlowstateError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreOpenError,
    StoreReadOnlyError,
    StoreUnreachableError,
)
from ..reader import unexpected
from .connection import Target

_Make = Callable[[Target, str], StoreError]

LOST = {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"}
"""The server ends the session, or is starting; besides these, all of class 08."""
RETRYABLE = {"40001", "40P01", "55P03"}
"""Serialization failure, deadlock, and a lock that others held for too long, as they do while they
wait for standbys: nothing was written, and a retry may succeed."""


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


def _missing(target: Target, message: str) -> StoreError:
    return StoreError(target.url, f"tables of the store are gone ({message}); restore them")


def _too_many_clients(target: Target, message: str) -> StoreError:
    return StoreUnreachableError(
        target.url,
        f"the server takes no more clients ({message}); nothing was written. Raise "
        "max_connections, use a pooler, or run fewer processes: each takes up to 7 connections",
    )


def _not_prepared(target: Target, message: str) -> StoreError:
    return StoreError(
        target.url,
        f"a statement that was prepared is not there any more ({message}); nothing was written. A "
        "pooler between gives each transaction another session: add prepare=off to the URL, and "
        "notify=off",
    )


# SQLSTATE -> the error; https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: dict[str, _Make] = {
    "25006": lambda target, message: StoreReadOnlyError(
        target.url,
        f"the server is read-only ({message}): a standby, or set so. Name the primary; with "
        "several hosts in the URL, target_session_attrs=read-write finds it",
    ),
    "26000": _not_prepared,
    "28000": lambda target, message: StoreOpenError(
        target.url, f"this user is refused ({message})"
    ),
    "28P01": lambda target, message: StoreOpenError(
        target.url, f"the password is wrong ({message})"
    ),
    "3D000": lambda target, message: StoreOpenError(
        target.url, f"there is no such database ({message}); make it with CREATE DATABASE"
    ),
    "3F000": _missing,
    "42P01": _missing,
    "42501": lambda target, message: StoreReadOnlyError(
        target.url, f"a right is missing ({message}); nothing was written. {grants(target)}"
    ),
    "53100": lambda target, message: StoreFullError(
        target.url, f"the server's disk is full ({message}); nothing of the commit was written"
    ),
    "53300": _too_many_clients,
    "55P03": lambda target, _: StoreBusyError(
        target.url,
        "someone else held the lock that orders commits for too long; nothing was written. "
        "Find who in pg_stat_activity: a session in state 'idle in transaction', or one that waits "
        "for a standby (its wait_event is SyncRep)",
    ),
    "57014": lambda target, message: StoreBusyError(
        target.url, f"the server ended a statement ({message}); nothing was written"
    ),
    "XX001": lambda target, message: StoreCorruptError(target.url, f"is damaged ({message})"),
    "XX002": lambda target, message: StoreCorruptError(target.url, f"is damaged ({message})"),
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
    ("the database system is", "57P03"),  # starting up, in recovery mode, …
    ("session is read-only", "57P03"),  # of the hosts in the URL, none is the primary yet
)


def translate(target: Target, error: Exception) -> StoreError:
    """The flowstate error that an error of PostgreSQL or psycopg stands for; or whatever else was
    raised there."""
    if not isinstance(error, psycopg.Error):
        return unexpected(target.url, error)
    message = _message(error)
    make = _BY_STATE.get(_state(error))
    if make is not None:
        return make(target, message)
    if is_lost(error):
        return StoreUnreachableError(
            target.url,
            f"the server does not answer ({message}); nothing was written. Look whether it runs, "
            "and whether host and port are right",
        )
    state = error.sqlstate or "no SQLSTATE"
    return StoreError(target.url, f"PostgreSQL failed: {message} ({state})")


def is_lost(error: psycopg.Error) -> bool:
    """Whether there is no connection any more, or could be none for now."""
    state = _state(error)
    if not state:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in LOST or state == "53300" or state.startswith("08")


def is_starting(error: BaseException | None) -> bool:
    """Whether the server is there, and will take connections before long."""
    return isinstance(error, psycopg.Error) and _state(error) == "57P03"


@contextmanager
def translated(target: Target) -> Generator[None]:
    """Raise the errors of PostgreSQL as ours."""
    try:
        yield
    except FlowstateError:
        raise
    except Exception as error:
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


def _message(error: psycopg.Error) -> str:
    """The server's message, as a single line."""
    text = error.diag.message_primary or str(error) or type(error).__name__
    lines = dict.fromkeys(" ".join(line.split()) for line in text.splitlines())
    return "; ".join(line for line in lines if line and not any(
        line != other and line in other for other in lines
    ))  # fmt: skip
