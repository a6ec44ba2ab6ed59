"""The results of a proof, as values."""

from __future__ import annotations

import re
from enum import Enum
from typing import Protocol

from msgspec import Struct


class Judgement(Enum):
    """Whether one law is kept."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_PROVED = "not proved"


class Law(Struct, frozen=True):
    """One law of the contract."""

    name: str
    """The name of its test, without ``test_``."""
    about: str
    """The heading that it stands under, e.g. ``Law 1, order: …``."""
    text: str
    """The whole docstring of its test."""

    @property
    def title(self) -> str:
        """The heading up to its colon, e.g. ``Law 1, order``."""
        return self.about.partition(":")[0]

    @property
    def number(self) -> int | None:
        """Which of the nine laws of docs/concepts.md it belongs to; None if to none of them."""
        numbered = re.match(r"Law (\d+)\b", self.about)
        return int(numbered[1]) if numbered else None

    @property
    def sentence(self) -> str:
        """The first sentence of the text."""
        return re.split(r"(?<=\.)\s", self.text, maxsplit=1)[0]

    def matches(self, part: str) -> bool:
        """Whether *part* is its number (``5``, ``law 5``), or words of its heading, name or text.

        Upper and lower case are the same; so are spaces, ``_``, ``-`` and other punctuation.
        """
        words = _plain(part)
        if number := re.fullmatch(r"(?:law ?)?(\d+)", words):
            return int(number[1]) == self.number
        return bool(words) and any(
            words in _plain(text) for text in (self.about, self.name, self.text)
        )


class Failure(Struct, frozen=True):
    """One case in which a law was broken."""

    case: str
    """The event loop and what else varies, e.g. ``asyncio-tasks``; empty if nothing does."""
    message: str
    """What the assertion or the error says."""
    steps: str
    """The shortest series of operations that the machine found to fail; empty for other laws."""
    where: str
    """The file, line and function where the error was raised."""
    traceback: str


class Verdict(Struct, frozen=True):
    """The judgement of one law. KEPT: it held in all cases that could be tried, at least one."""

    law: Law
    judgement: Judgement
    seconds: float
    not_proved: tuple[str, ...] = ()
    """Why some cases, or all, could not be tried; each reason once."""
    failures: tuple[Failure, ...] = ()


class Listener(Protocol):
    """Who hears of the progress of a proof."""

    def starts(self, laws: int) -> None:
        """The proof of so many laws begins."""
        ...

    def begins(self, law: Law) -> None:
        """The proof of this law begins."""
        ...

    def judged(self, verdict: Verdict) -> None:
        """The proof of a law has ended with this verdict."""
        ...


def _plain(text: str) -> str:
    """The words of a text, in lower case, with one space between them."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
