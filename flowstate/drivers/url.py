"""Store URLs: ``memory:``, ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from attrs import frozen

from ..errors import StoreUrlError


@frozen
class StoreUrl:
    """A parsed URL. ``path`` follows SQLAlchemy: three slashes are relative, four absolute."""

    scheme: str
    path: str
    options: dict[str, str]
    text: str
    """The URL as given, without a password."""
    original: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ``StoreUrlError``."""
        parts = urlsplit(url)
        shown = urlunsplit(parts._replace(netloc=_without_password(parts.netloc)))
        if not parts.scheme:
            raise StoreUrlError(
                shown or "''", "is no store URL; try memory: or sqlite:///path/to/file.db"
            )
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        options = dict(pairs)
        if len(options) != len(pairs):
            raise StoreUrlError(shown, "gives an option twice")
        return cls(parts.scheme, unquote(parts.path).removeprefix("/"), options, shown, url)

    def expect(self, options: Collection[str] = (), *, path: bool = True) -> None:
        """Raise ``StoreUrlError`` if there is an option besides these, or a path too many."""
        for option in self.options:
            if option not in options:
                known = ", ".join(sorted(options)) or "none"
                raise StoreUrlError(self.text, f"has no option {option!r} (it has: {known})")
        if self.path and not path:
            raise StoreUrlError(self.text, f"takes no path; {self.scheme}: is the whole URL")


def _without_password(netloc: str) -> str:
    user, at, host = netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{name}:***{at}{host}" if colon else netloc
