"""A cache of payloads: what an engine wrote or loaded it does not read from the store again."""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field

from .data import DataRef


@define(eq=False)
class PayloadCache:
    """The payloads that were used last, no more of them than ``max_size`` bytes.

    A payload is told by its key, revision and checksum, and never changes; one that was removed
    from the store meanwhile may still be given from here.
    """

    max_size: int
    size: int = field(default=0, init=False)
    """Bytes."""
    _contents: OrderedDict[tuple[int, str], bytes] = field(
        factory=OrderedDict[tuple[int, str], bytes], init=False
    )

    def get(self, ref: DataRef) -> bytes | None:
        """The content, if it is here."""
        key = (ref.rev, ref.checksum)
        content = self._contents.get(key)
        if content is not None:
            self._contents.move_to_end(key)
        return content

    def put(self, rev: int, checksum: str, content: bytes) -> None:
        """Keep a content; one that would take more than a quarter of the room is not kept."""
        key = (rev, checksum)
        if key in self._contents or len(content) > self.max_size // 4:
            return
        self._contents[key] = content
        self.size += len(content)
        while self.size > self.max_size:
            _, oldest = self._contents.popitem(last=False)
            self.size -= len(oldest)
