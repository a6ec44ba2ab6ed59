"""A store of which only its driver is known."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar

from ..errors import BenchError
from .site import Site, head_of


class UnknownSite(Site):
    """One store, the one that the URL names, for all measurements."""

    is_fresh: ClassVar[bool] = False

    def check(self) -> None:
        head = head_of(self.url.original)
        if head:
            raise BenchError(
                f"{self.shown}: has states already (revision {head:,}), and measuring would add "
                "some. Name an empty store that nothing else uses"
            )

    @contextmanager
    def fresh(self) -> Generator[str]:
        yield self.url.original

    def notes(self) -> tuple[str, ...]:
        return (
            "every measurement is made in this one store, which grows with each",
            f"no raw limit is known for {self.url.scheme}:, so its figures are without a ratio",
            "its states are left in it",
        )
