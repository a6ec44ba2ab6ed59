"""Store URLs: ``memory:``, ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``,
``postgresql://user:password@host/database``."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from attrs import field, frozen

from ..errors import StoreUrlError


@frozen
class StoreUrl:
    """A parsed URL. ``path`` follows SQLAlchemy: three slashes are relative, four absolute."""

    scheme: str
    path: str = field(repr=False)
    options: dict[str, str] = field(repr=False)
    text: str
    """The URL as given, without a password."""
    original: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ``StoreUrlError``."""
        try:
            parts = urlsplit(url)
        except ValueError:  # its text may quote the password
            raise StoreUrlError(
                "the URL of the store", "is no URL; write what is special in it as %XX"
            ) from None
        shown = _text(_without_secrets(parts), url)
        if not parts.scheme:
            raise StoreUrlError(
                shown or "''", "is no store URL; try memory: or sqlite:///path/to/file.db"
            )
        pairs = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
        options = dict(pairs)
        if len(options) != len(pairs):
            raise StoreUrlError(shown, "gives an option twice")
        return cls(parts.scheme, unquote(parts.path).removeprefix("/"), options, shown, url)

    def expect(self, options: Collection[str] = (), *, path: bool = True) -> None:
        """Raise ``StoreUrlError`` if there is an option besides these, or a path too many."""
        for option in self.options:
            if option not in options:
                names = ", ".join(sorted(options)) or "none"
                raise StoreUrlError(self.text, f"has no option {option!r} (it has: {names})")
        if self.path and not path:
            raise StoreUrlError(self.text, f"takes no path; {self.scheme}: is the whole URL")


SECRET = re.compile("password|secret", re.IGNORECASE)
"""In the name of an option that nobody else may read."""


def _text(parts: SplitResult, url: str) -> str:
    """The parts as a URL again."""
    if parts.netloc or not url.startswith(f"{parts.scheme}://"):
        return urlunsplit(parts)
    # an empty host would be left out, and with it the slashes that tell relative from absolute
    query, fragment = (
        f"?{parts.query}" * bool(parts.query),
        f"#{parts.fragment}" * bool(parts.fragment),
    )
    return f"{parts.scheme}://{parts.path}{query}{fragment}"


def _without_secrets(parts: SplitResult) -> SplitResult:
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = (user if at else host).partition(":")
    query = "&".join(map(_without_secret, parts.query.split("&")))
    if at:
        return parts._replace(netloc=f"{name}:***@{host}" if colon else parts.netloc, query=query)
    rest = urlunsplit(parts._replace(scheme="", netloc=""))
    if colon and "@" in rest:  # a password with an unquoted / ? or # looks like the end of a host
        path = "@" + rest.rpartition("@")[2]
        return SplitResult(parts.scheme, f"{name}:***{path}", "", "", "")
    return parts._replace(query=query)


def _without_secret(option: str) -> str:
    name, equals, value = option.partition("=")
    return f"{name}{equals}{'***' if SECRET.search(unquote(name)) else value}"
