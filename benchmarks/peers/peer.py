"""One measurement of one peer, in a process of its own.

``python -m benchmarks.peers.peer NAME URL FLOWS SECONDS`` prints what it measured as JSON.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections import Counter

import msgspec
from attrs import define, field
from msgspec import Struct


class Measured(Struct):
    """Steps a second, and how long each took (s)."""

    rate: float
    delays: list[float]


LEAST = 3
"""Steps of each workflow, however short the time."""


@define
class Steps:
    """Counts the steps of concurrent workflows, from when the first begins.

    A step's delay is from the end of the one before it in the same workflow; the first of each has
    none, for it waits for its workflow to begin.
    """

    seconds: float
    _began: float = 0.0
    _ended: float = 0.0
    _counts: Counter[object] = field(factory=Counter)
    _delays: list[float] = field(factory=list)
    _last: dict[object, float] = field(factory=dict)

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self, workflow: object) -> bool:
        """A step has ended. Gives whether its workflow is to go on."""
        now = self._ended = time.perf_counter()
        before = self._last.get(workflow)
        if before is not None:
            self._delays.append(now - before)
        self._last[workflow] = now
        self._counts[workflow] += 1
        return now < self._began + self.seconds or self._counts[workflow] < LEAST

    def measured(self) -> Measured:
        return Measured(self._counts.total() / (self._ended - self._began), self._delays)


def main(name: str, url: str, flows: str, seconds: str) -> None:
    steps = Steps(float(seconds))
    importlib.import_module(f"benchmarks.peers.{name}").measure(steps, url, int(flows))
    sys.stdout.buffer.write(msgspec.json.encode(steps.measured()))


if __name__ == "__main__":
    main(*sys.argv[1:])
