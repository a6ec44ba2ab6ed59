"""What the page on clusters says is what was tried."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..test_docs import blocks
from .cluster import CONNECT_TIMEOUT_S, DCS, RECONNECT_S

PAGE = "docs/howto/cluster.md"


def test_the_settings_on_the_page_are_those_that_were_tried() -> None:
    (shown,) = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    assert list(lines(DCS)) == shown.splitlines()


def test_the_url_on_the_page_is_the_one_that_was_tried() -> None:
    (url,) = [block.text for block in blocks(PAGE) if "db1,db2,db3" in block.text]
    assert f"&connect_timeout={CONNECT_TIMEOUT_S}&reconnect={RECONNECT_S}" in url


def lines(settings: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """As YAML."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from lines(value, indent + "  ")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{indent}{name}: {text}"
