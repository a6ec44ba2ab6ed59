"""Sessions: which drivers have a store's file open, as the system knows it.

Each locks a byte of a file beside the store, ``orders.db-sessions``, for itself; the system gives
the lock up when its process is gone, however it went. A session's name begins with what that file
contains, so that nobody looks for it in another one (where the first was deleted, or in that of a
copy), and ends with the place of its byte.

The locks are those of open files (``F_OFD_SETLK``), not of the process: several drivers of one
process see each other, and nothing is lost if something else reads the file. A process that was
forked has the open files too, and closes them at once.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from attrs import define

if sys.platform == "linux":
    import fcntl

SUFFIX = "-sessions"
"""Of the name of the file, beside that of the store."""
TOKEN_BYTES = 8
PLACE_BYTES = 6
_PLACE = re.compile(f"[0-9a-f]{{{2 * PLACE_BYTES}}}")
PROCESS = Path("/proc/self")
LOCAL = {b"bcachefs", b"btrfs", b"ext2", b"ext3", b"ext4", b"f2fs", b"jfs", b"overlay", b"ramfs",
         b"reiserfs", b"tmpfs", b"xfs", b"zfs"}  # fmt: skip
"""File systems whose locks hold for all who can have the file open. With others (NFS, CIFS, FUSE,
those of virtual machines) nobody knows who else has it open, and who sees its locks."""


@define(eq=False)
class Session:
    """That of one open driver."""

    name: str
    """Empty: it looks for others, and is none itself."""
    _token: str
    _file: int
    """The open file; -1: none."""

    opened: ClassVar[WeakSet[Session]] = WeakSet()
    forking: ClassVar[threading.Lock] = threading.Lock()
    """Nobody forks between opening a file and noting it."""

    @classmethod
    def begin(cls, store: Path, *, looks_only: bool) -> Session | None:
        """Begin one, for as long as it is not ended; None where nobody could tell."""
        with suppress(OSError):
            if sys.platform != "linux" or not is_local(store.parent):
                return None
            path = store.with_name(f"{store.name}{SUFFIX}")
            flags = os.O_RDONLY if looks_only else os.O_RDWR | os.O_CREAT
            with cls.forking:
                made = cls("", "", os.open(path, flags | os.O_CLOEXEC, 0o666))
                cls.opened.add(made)
            try:
                made._begin(looks_only=looks_only)
            except BaseException:
                made.end()
                raise
            return made
        return None

    def is_there(self, name: str) -> bool | None:
        """Whether a session is there; None if it is none of this file."""
        token, place = name[: 2 * TOKEN_BYTES], name[2 * TOKEN_BYTES :]
        if token != self._token or not _PLACE.fullmatch(place) or self._file < 0:
            return None
        if name == self.name:
            return True  # a lock is no obstacle to whoever has it
        found = _lock(self._file, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, _byte(place))
        return found != fcntl.F_UNLCK

    def end(self) -> None:
        """End it; a process that was forked ends nothing but its own part in it."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _begin(self, *, looks_only: bool) -> None:
        if looks_only:
            self._token = _read_token(self._file)
            return
        place = secrets.token_hex(PLACE_BYTES)
        _lock(self._file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, _byte(place))
        self._token = _token(self._file)
        self.name = self._token + place


def _forked() -> None:
    for each in Session.opened:
        each.end()
    Session.forking.release()


if sys.platform == "linux":
    os.register_at_fork(
        before=Session.forking.acquire,
        after_in_parent=Session.forking.release,
        after_in_child=_forked,
    )


def is_local(folder: Path) -> bool:
    """Whether a folder is on a file system of this machine."""
    file = os.open(folder, os.O_PATH)
    try:
        info = (PROCESS / "fdinfo" / str(file)).read_bytes()
    finally:
        os.close(file)
    mount = re.search(rb"^mnt_id:\s*(\d+)$", info, re.MULTILINE)
    for line in (PROCESS / "mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        if mount is not None and before.split(b" ")[0] == mount[1]:
            return after.split(b" ")[0] in LOCAL
    return False


def _token(file: int) -> str:
    """What the file contains; who comes first decides it."""
    _lock(file, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, 0)
    try:
        token = _read_token(file)
        if len(token) < 2 * TOKEN_BYTES:
            token = secrets.token_hex(TOKEN_BYTES)
            os.pwrite(file, token.encode(), 0)
        return token
    finally:
        _lock(file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0)


def _read_token(file: int) -> str:
    return os.pread(file, 2 * TOKEN_BYTES, 0).decode("ascii", "replace")


def _lock(file: int, command: int, kind: int, byte: int) -> int:
    """Lock a byte, or ask for the lock that would be in the way; gives its kind."""
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
    found: int = struct.unpack("hhqqi4x", fcntl.fcntl(file, command, lock))[0]
    return found


def _byte(place: str) -> int:
    return 1 + int(place, 16)
