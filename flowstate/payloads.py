"""A cache of payloads: what an engine wrote or loaded it does not read from the store again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from attrs import define, field

from .clock import Clock
from .data import DataRef

MAX_AGE_MS = 60_000
"""How long after a payload was forgotten by another process it may still be given from here."""


@define(eq=False)
class PayloadCache:
    """The payloads that were used last, no more of them than ``max_size`` bytes.

    A payload is told by its key, revision and checksum, and never changes; one that was removed
    from the store meanwhile may still be given from here, for ``MAX_AGE_MS``.
    """

    clock: Clock
    max_size: int
    size: int = field(default=0, init=False)
    """Bytes."""
    _contents: OrderedDict[tuple[int, str], tuple[bytes, int]] = field(
        factory=OrderedDict[tuple[int, str], tuple[bytes, int]], init=False
    )
    """key -> the content, and until when (ms) it may be given"""
    forgettings: int = field(default=0, init=False)
    """How often something was forgotten: what was got before that is not to be kept after it."""

    def get(self, ref: DataRef) -> bytes | None:
        """The content, if it is here."""
        key = (ref.rev, ref.checksum)
        found = self._contents.get(key)
        if found is None:
            return None
        content, until = found
        if until <= self.clock.now():
            self.discard([key])
            return None
        self._contents.move_to_end(key)
        return content

    def put(self, rev: int, checksum: str, content: bytes) -> None:
        """Keep a content; one that would take more than a quarter of the room is not kept."""
        key = (rev, checksum)
        if key in self._contents or len(content) > self.max_size // 4:
            return
        self._contents[key] = content, self.clock.now() + MAX_AGE_MS
        self.size += len(content)
        while self.size > self.max_size:
            self.discard([next(iter(self._contents))])

    def forget(self, keys: Iterable[tuple[int, str]]) -> None:
        """These were forgotten, by this engine."""
        self.forgettings += 1
        self.discard(keys)

    def discard(self, keys: Iterable[tuple[int, str]]) -> None:
        """Give none of these any more."""
        for key in keys:
            found = self._contents.pop(key, None)
            if found is not None:
                self.size -= len(found[0])
