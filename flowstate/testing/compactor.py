"""A process that compacts a store, batch by batch, and prints how far it has come.

    python -m flowstate.testing.compactor URL LIMIT

Removes all that is superseded, and ended states whole. Prints ``upto`` after each batch. Imports no
test library, so that it starts fast.
"""

from __future__ import annotations

import sys

import anyio

from ..clock import MAX_INSTANT_MS
from ..drivers import connect
from ..retention import Retention


async def main(url: str, limit: int) -> None:
    """Compact, and print ``upto`` of each batch on standard output."""
    retention = Retention(MAX_INSTANT_MS, ended=True)
    upto, is_done = 0, False
    async with connect(url) as driver:
        while not is_done:
            batch = await driver.compact(retention, upto, limit)
            upto, is_done = batch.upto, batch.done
            print(upto, flush=True)  # noqa: T201  (its parent reads it)


if __name__ == "__main__":
    _, url, limit = sys.argv
    anyio.run(main, url, int(limit))
