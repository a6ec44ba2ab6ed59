"""What a proof comes to, as values."""

from __future__ import annotations

import re
from enum import Enum
from typing import Protocol

from msgspec import Struct


class Judgement(Enum):
    """Of one law."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_PROVED = "not proved"


class Law(Struct, frozen=True):
    """One law of the contract."""

    name: str
    """Of its test, without the ``test_``."""
    about: str
    """What it belongs to: the first line of its module."""
    text: str
    """All that is said about it."""

    @property
    def sentence(self) -> str:
        """The first sentence of the text."""
        return re.split(r"(?<=\.)\s", self.text, maxsplit=1)[0]

    def matches(self, part: str) -> bool:
        """Whether *part* is in its name or text, whatever the case; ``_``, ``-`` and a space are
        the same."""
        return _plain(part) in _plain(self.name) or _plain(part) in _plain(self.text)


class Failure(Struct, frozen=True):
    """One case in which a law was broken."""

    case: str
    """The event loop and what else varies, e.g. ``asyncio-tasks``; empty if nothing does."""
    told: str
    """The assertion, or the error."""
    steps: str
    """How the machine got there: the shortest series of operations that it found."""
    where: str
    """File, line and function where it was raised."""
    traceback: str


class Verdict(Struct, frozen=True):
    """What became of one law. KEPT: in all cases that could be tried, and there was one."""

    law: Law
    judgement: Judgement
    seconds: float
    not_proved: tuple[str, ...] = ()
    """Why some cases, or all, could not be tried; each reason once."""
    failures: tuple[Failure, ...] = ()


class Listener(Protocol):
    """Who is told how a proof goes on."""

    def starts(self, laws: int) -> None:
        """So many laws will be proved."""
        ...

    def begins(self, law: Law) -> None:
        """This one comes next."""
        ...

    def judged(self, verdict: Verdict) -> None:
        """It is done."""
        ...


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text).lower()
