"""From a commit to its watchers: measured from just before the commit to the watcher's hands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flowstate.bench import sites_of

from .measured import measured, raw_limit

ASKED = {
    "memory": ("watch", "memory:", "0.1 ms / 1 ms"),
    "SQLite, same process": ("watch", "sqlite:///{}/a.db", "1 ms / 5 ms"),
    "SQLite, other process": ("watch-process", "sqlite:///{}/a.db", "10 ms / 30 ms"),
}


@pytest.mark.parametrize("case", list(ASKED))
def test_commit_to_watcher(
    latency: Callable[..., None], tiny: bool, tmp_path: Path, case: str
) -> None:
    """One commit at a time, one watcher that waits for it."""
    name, url, asked = ASKED[case]
    (site,) = sites_of([url.format(tmp_path)]).values()
    with site:
        latency(
            f"commit to watcher, {case}",
            asked,
            lambda: list(measured(name, site, 1, tiny=tiny).delays[""]),
            raw=lambda: list(raw_limit(name, site, 1, tiny=tiny).delays[""]),
            raw_what="a pipe" if name == "watch-process" else "waking a task",
        )
