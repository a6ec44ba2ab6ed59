"""Opening connections to a store's file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from attrs import define, field, frozen

from ...errors import StoreOpenError, StoreUrlError
from ..url import StoreUrl

SYNCHRONOUS = ("full", "normal")
MODES = ("rwc", "rw", "ro")
MAX_STATEMENTS = 128
"""Prepared statements that a connection keeps."""
CHECKPOINT_S = 0.1
"""How long a checkpoint that has begun to write may leave the file between two moments."""
_OTHER_CONTENT = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""It is no database, or has not the tables."""


@frozen
class File:
    """Where the store is and how it is opened.

    ``synchronous`` is "full" (a commit survives a power cut) or "normal" (it survives the death of
    the process). ``busy_timeout`` is how many milliseconds to wait for another process.  ``mode``
    is "rwc" (created if missing), "rw" or "ro".
    """

    path: str
    synchronous: str = "full"
    busy_timeout: int = 5_000
    mode: str = "rwc"
    location: Path = field(init=False)
    """The path as it was meant when this was made, whatever becomes of the current directory."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "location", Path(self.path).absolute())  # it is frozen from here

    @classmethod
    def from_url(cls, url: StoreUrl) -> File:
        url.expect(options=("synchronous", "busy_timeout", "mode"))
        if not url.path or url.path == ":memory:":
            raise StoreUrlError(
                url.text, "names no file; try sqlite:///orders.db, or memory: to keep nothing"
            )
        options = url.options
        timeout = options.get("busy_timeout", "5000")
        if not timeout.isdecimal():
            raise StoreUrlError(url.text, f"busy_timeout takes milliseconds, not {timeout!r}")
        return cls(
            url.path,
            _choice(url, "synchronous", SYNCHRONOUS),
            int(timeout),
            _choice(url, "mode", MODES),
        )

    def check(self) -> None:
        """Raise ``StoreOpenError`` where SQLite would only say that it cannot."""
        path = self.location
        if path.is_dir():
            raise StoreOpenError(self.path, "is a directory; name a file in it")
        if not path.parent.is_dir():
            raise StoreOpenError(
                self.path, f"the directory {str(path.parent)!r} does not exist; make it first"
            )
        if self.mode != "rwc" and not path.exists():
            raise StoreOpenError(
                self.path,
                f"does not exist; look whether the path is right (?mode={self.mode} makes no file)",
            )

    def connect(self, *, creates: bool = False) -> sqlite3.Connection:
        """A new connection, for use by one thread at a time. Nobody but who opens the store makes a
        missing file: one that was deleted meanwhile would be there again, and empty."""
        mode = self.mode if creates or self.mode != "rwc" else "rw"
        connection = sqlite3.connect(
            f"{self._uri}?mode={mode}",
            uri=True,
            timeout=self.busy_timeout / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=MAX_STATEMENTS,
        )
        try:
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        except BaseException:
            connection.close()
            raise
        return connection

    def newest_without_log(self) -> tuple[int, str]:
        """Revision and commit id of the newest version that is in the file itself, whatever the
        write-ahead log has; (0, "") if there is none.

        Asks SQLite even so: to close a file behind its back would let go of its locks.
        """
        with closing(sqlite3.connect(f"{self._uri}?mode=ro&immutable=1", uri=True)) as connection:
            return connection.execute(_NEWEST).fetchone() or (0, "")

    @property
    def _uri(self) -> str:
        # the empty authority keeps a path that begins with two slashes from being taken for one
        return f"file://{quote(str(self.location))}"


@define(eq=False)
class Identity:
    """Which file a store is, and which are its write-ahead log and the memory that processes share:
    what is at their paths may be deleted, renamed or replaced while they are open, and who goes on
    then writes to nowhere. The file may also be overwritten in place, or cut."""

    file: File
    _paths: tuple[Path, ...] = field(init=False)
    _known: dict[Path, tuple[int, int]] = field(factory=dict[Path, tuple[int, int]], init=False)
    """path -> device and inode, of those that were found"""
    _written: tuple[int, int] = field(default=(0, 0), init=False)
    """Size of the file, and when it was written to last (ns), when its content was looked at."""
    _newest: int = field(default=0, init=False)
    """The newest revision that was in the file itself then. It never falls."""

    def __attrs_post_init__(self) -> None:
        path = self.file.location
        self._paths = (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm")))

    def check(self) -> None:
        """Raise ``StoreOpenError`` if one is no longer what it was when it was first found."""
        for path in self._paths:
            try:
                found = path.stat()
                identity = found.st_dev, found.st_ino
            except FileNotFoundError:
                identity = None
            known = self._known.get(path)
            if known is None and identity is not None:
                self._known[path] = identity
            elif identity != known:
                raise self._lost(
                    path, "was deleted or renamed" if identity is None else "was replaced"
                )

    def check_content(self, connection: sqlite3.Connection) -> None:
        """Raise ``StoreOpenError`` if the file was overwritten with something else, or cut, as far
        as that can be told: what is in it is nothing that a connection to the store has committed,
        or older than it was. Looks only if the file was written to, as each checkpoint does."""
        location = self.file.location
        found = location.stat()
        written = found.st_size, found.st_mtime_ns
        if written == self._written:
            return
        newest = self._of_this_store(connection, found.st_size)
        if newest is None:  # or another process's checkpoint was half-way
            time.sleep(CHECKPOINT_S)
            newest = self._of_this_store(connection, location.stat().st_size)
        if newest is None:
            raise self._lost(location, "was overwritten or cut")
        self._newest, self._written = newest, written

    def _of_this_store(self, connection: sqlite3.Connection, size: int) -> int | None:
        """The newest revision in the file itself; None if it is not that of this store."""
        try:
            rev, commit_id = self.file.newest_without_log()
        except sqlite3.DatabaseError as error:
            was_cut = size < self._written[0]
            if was_cut or (self._newest and error.sqlite_errorcode in _OTHER_CONTENT):
                return None
            return self._newest  # a new store, or the middle of a checkpoint: told another time
        if rev < self._newest:
            return None
        stored = connection.execute(_COMMIT_ID, (rev,)).fetchone()
        (head,) = connection.execute(_HEAD).fetchone()
        is_ours = rev <= (head or 0) if stored is None else stored == (commit_id,)
        return rev if is_ours else None

    def _lost(self, path: Path, became: str) -> StoreOpenError:
        return StoreOpenError(
            str(path),
            f"{became} while the store was open; nothing was written. Whoever has it open has to "
            "be ended; then put the file back, together with its -wal if that is there",
        )


def _choice(url: StoreUrl, option: str, choices: tuple[str, ...]) -> str:
    value = url.options.get(option, choices[0]).lower()
    if value not in choices:
        raise StoreUrlError(url.text, f"{option} takes {' or '.join(choices)}, not {value!r}")
    return value


# ---------------------------------------------------------------- statements

_NEWEST = """
SELECT rev, commit_id FROM versions ORDER BY rev DESC LIMIT 1
"""

_COMMIT_ID = """
SELECT commit_id FROM versions WHERE rev = ?
"""

_HEAD = """
SELECT max(rev) FROM versions
"""
