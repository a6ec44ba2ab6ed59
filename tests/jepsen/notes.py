"""What a process of the attack writes down, one line at a time, so that a kill takes none of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec
from attrs import define, field
from msgspec import Struct

Revision: TypeAlias = tuple[str, int]
"""id and revision of a version"""


class Note(Struct, frozen=True, tag=True, kw_only=True):
    """Something that a process did or was told, and when (ns, the same clock for all processes)."""

    at: int = msgspec.field(default_factory=time.monotonic_ns)


class Tried(Note, frozen=True):
    """A commit is about to be tried."""

    commit_id: str
    moved: tuple[Revision, ...]
    """What it rests on and moves."""
    required: tuple[Revision, ...] = ()
    """What it rests on besides."""


class Told(Note, frozen=True):
    """A commit was acknowledged."""

    commit_id: str
    revs: tuple[int, ...]


class Refused(Note, frozen=True):
    """A commit failed, and nothing of it was written."""

    commit_id: str
    why: str


class Unknown(Note, frozen=True):
    """Whether a commit was stored could not be told."""

    commit_id: str
    why: str


class Given(Note, frozen=True):
    """A claim was answered."""

    claim: str
    versions: tuple[Revision, ...]


class Releasing(Note, frozen=True):
    """What was claimed is about to be given back."""

    claim: str
    version: Revision


class Watching(Note, frozen=True):
    """A watcher begins, or goes on, after a revision."""

    watcher: str
    query: str
    """The name of its query, in ``client.QUERIES``."""
    after: int


class Saw(Note, frozen=True):
    """A watcher was given a version."""

    watcher: str
    rev: int


class Missed(Note, frozen=True):
    """A watcher was told that what it had not seen, up to a revision, was compacted."""

    watcher: str
    upto: int


class Crashed(Note, frozen=True):
    """The store is about to crash, or is there again: it may have lost the claims that it gave
    last, for which it waits for no disk."""

    is_over: bool


class Trouble(Note, frozen=True):
    """Something was raised that nobody should see."""

    what: str


AnyNote: TypeAlias = (
    Tried
    | Told
    | Refused
    | Unknown
    | Given
    | Releasing
    | Watching
    | Saw
    | Missed
    | Crashed
    | Trouble
)


@define
class Notebook:
    """The notes of this process, in a file of its own."""

    path: Path
    _file: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, note: AnyNote) -> None:
        os.write(self._file, msgspec.json.encode(note) + b"\n")


def read(path: Path) -> Iterator[AnyNote]:
    """The notes in a file. What a process was writing when it was killed is no note."""
    decoder = msgspec.json.Decoder[AnyNote](AnyNote)
    *lines, _ = path.read_bytes().split(b"\n")
    return map(decoder.decode, lines)
