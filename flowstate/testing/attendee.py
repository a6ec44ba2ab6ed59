"""A process that is there, and does nothing, until it is killed.

    python -m flowstate.testing.attendee URL

It prints the name of its session once others can see it. Imports no test library, so that it starts
fast.
"""

from __future__ import annotations

import sys

import anyio

from ..drivers import connect


async def main(url: str) -> None:
    """Attend."""
    async with connect(url) as driver:
        await driver.attend()
        print(driver.session, flush=True)  # noqa: T201  (its parent reads it)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
