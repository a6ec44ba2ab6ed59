"""A process that commits as fast as it can: ``python -m flowstate.bench.worker``, with the URL of
the store, the prefix of the ids, a number of flows and of seconds on the first four lines of its
input.

It says ``ready``, begins with the next line of its input, and says how many transitions a second it
has committed.
"""

from __future__ import annotations

import sys

import anyio
import anyio.to_thread

from flowstate import Flows

from .place import Place
from .sites import sites_of
from .values import Effort
from .workloads.commits import go_round


async def main(place: Place, flows: int) -> None:
    async with place.engine(Flows()) as engine:
        await engine.timers.head()  # its connections are open
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.readline)
        sample = await go_round(place, engine, flows)
    sys.stdout.write(f"{sample.figures['commits']}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    url, prefix, count, seconds = (sys.stdin.readline().rstrip("\n") for _ in range(4))
    (site,) = sites_of([url]).values()
    anyio.run(main, Place(site, url, Effort(seconds=float(seconds)), prefix), int(count))
