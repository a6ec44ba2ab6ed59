"""A process that is there, and forks: ``forking_process.py URL``.

It prints the name of its session. Its child does nothing until it reads a line or the end of what
both read, and ends then.
"""

from __future__ import annotations

import gc
import os
import sys

import anyio

from flowstate import connect


async def main(url: str) -> None:
    async with connect(url) as driver:
        await driver.attend()
        session = driver.session
        if os.fork():
            print(session, flush=True)  # noqa: T201  (its parent reads it)
            await anyio.sleep_forever()
        sys.stdin.readline()
        del driver
        gc.collect()
        print("child has ended", flush=True)  # noqa: T201
        os._exit(0)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
