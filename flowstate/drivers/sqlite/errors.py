"""SQLite's errors as flowstate's: which file, what is wrong, what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ...errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreOpenError,
    StoreReadOnlyError,
)

_Make = Callable[[str, sqlite3.Error], StoreError]


def damaged(path: str, error: Exception) -> StoreCorruptError:
    """What is found in the file is not what was written, as an error shows."""
    return StoreCorruptError(
        path, f"is damaged ({error}); restore it, or salvage what is left with sqlite3's .recover"
    )


# primary result code -> the error; https://sqlite.org/rescode.html
_BY_CODE: dict[int, _Make] = {
    sqlite3.SQLITE_BUSY: lambda path, _: StoreBusyError(
        path,
        "is locked by another process for longer than the timeout; nothing was written. "
        "Raise ?busy_timeout=… (ms) or find who holds a transaction open",
    ),
    sqlite3.SQLITE_LOCKED: lambda path, error: StoreBusyError(path, f"is locked ({error})"),
    sqlite3.SQLITE_FULL: lambda path, error: StoreFullError(
        path, f"there is no room left ({error}); nothing of the commit was written. Free some space"
    ),
    sqlite3.SQLITE_READONLY: lambda path, error: StoreReadOnlyError(
        path, f"is read-only ({error}); give this user the right to write the file and its folder"
    ),
    sqlite3.SQLITE_PERM: lambda path, error: StoreReadOnlyError(path, f"is not allowed ({error})"),
    sqlite3.SQLITE_NOTADB: lambda path, _: StoreOpenError(
        path, "is not a SQLite database; it was left untouched. Name another file"
    ),
    sqlite3.SQLITE_CANTOPEN: lambda path, error: StoreOpenError(
        path, f"cannot be opened ({error}); the folder must exist and be writable"
    ),
    sqlite3.SQLITE_CORRUPT: damaged,
}


def translate(path: str, error: sqlite3.Error) -> StoreError:
    """The flowstate error that an error of SQLite stands for."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes keep the primary one
    make = _BY_CODE.get(code)
    if make is not None:
        return make(path, error)
    if str(error).startswith("Could not decode to UTF-8"):  # Python's sqlite3, without a code
        return damaged(path, error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreError(path, f"SQLite failed: {error} ({name})")


@contextmanager
def translated(path: str) -> Generator[None]:
    """Raise the errors of SQLite as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(path, error) from error
