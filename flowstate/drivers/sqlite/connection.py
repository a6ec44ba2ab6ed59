"""Opening connections to a store's file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from attrs import define, field, frozen

from ...errors import StoreOpenError, StoreUrlError
from ..url import StoreUrl

SYNCHRONOUS = ("full", "normal")
MODES = ("rwc", "rw", "ro")
MAX_STATEMENTS = 128
"""Prepared statements that a connection keeps."""


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

    @property
    def _uri(self) -> str:
        # the empty authority keeps a path that begins with two slashes from being taken for one
        return f"file://{quote(str(self.location))}"


@define(eq=False)
class Identity:
    """Which file a store is, and which are its write-ahead log and the memory that processes share:
    what is at their paths may be deleted, renamed or replaced while they are open, and who goes on
    then writes to nowhere."""

    file: File
    _paths: tuple[Path, ...] = field(init=False)
    _known: dict[Path, tuple[int, int]] = field(factory=dict[Path, tuple[int, int]], init=False)
    """path -> device and inode, of those that were found"""

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
