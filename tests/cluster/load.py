"""Several processes that work on one store, and what is true of it afterwards."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import anyio
from attrs import define, field
from msgspec.structs import replace

from flowstate import Commit, Engine, Pause, connect
from flowstate.plan import Plan
from flowstate.testing.history import History, RecordingDriver, check

from .notes import ACCOUNTS, OPENING, TIMES, Notes, opened

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 240.0
"""Longer than anything here takes on a slow machine: to fail, not to wait."""
LOOK_EVERY_S = 0.05


class Time(NamedTuple):
    """When an acknowledged commit began, and when its outcome was there."""

    began: float
    ended: float


@define
class Load:
    """Processes on the store at ``url``, for as long as the ``with`` statement lasts; ``directory``
    is for what they write."""

    url: str
    directory: Path
    size: int = 3
    _opening: list[Plan] = field(factory=list, init=False)
    _members: dict[str, subprocess.Popen[bytes]] = field(factory=dict, init=False)

    def __enter__(self) -> Self:
        anyio.run(self._open)
        for number in range(self.size):
            name = f"member-{number}"
            self._members[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.member", self.url, name, self.directory],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
            )
        self.wait_until_all_commit()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._members.values():
            process.kill()
            process.communicate()

    def wait_until_all_commit(self) -> float:
        """Return once each process was acknowledged a commit that it began after now; gives when
        the first of all was."""
        now = time.monotonic()
        first = [self._wait(name, lambda each: each.began > now) for name in self._members]
        return min(each.ended for each in first)

    def times(self, name: str = "*") -> list[Time]:
        """Of the commits that were acknowledged so far, in order of their acknowledgement."""
        found = [
            Time(*times)
            for path in self.directory.glob(f"{name}.times")
            for times in TIMES.iter_unpack(_whole(path.read_bytes()))
        ]
        return sorted(found, key=lambda each: each.ended)

    def longest_pause(self, since: float) -> float:
        """For how long no commit was acknowledged to anybody, at most, in s."""
        ended = [each.ended for each in self.times()]
        return max(
            (after - before for before, after in pairwise(ended) if after > since), default=0.0
        )

    def finish(self) -> list[str]:
        """Have the processes end what they do; gives, in words, what is wrong with the store or
        with what they were told."""
        for process in self._members.values():
            assert process.stdin
            process.stdin.close()
        for name, process in self._members.items():
            assert process.wait(PATIENCE_S) == 0, f"{name} failed"
        notes: list[Notes] = [
            pickle.loads((self.directory / f"{name}.notes").read_bytes())  # noqa: S301  (our own)
            for name in self._members
        ]
        history = anyio.run(self._history)
        history = replace(
            history,
            plans=(*self._opening, *(plan for each in notes for plan in each.plans)),
            acknowledged=tuple(commit for each in notes for commit in each.acknowledged),
            seen=tuple(each.seen for each in notes),
        )
        shown = [f"shown to a user: {error}" for each in notes for error in each.errors]
        return [*shown, *check(history, [gapless, conserved, counted])]

    # ------------------------------------------------------------ inside

    async def _open(self) -> None:
        async with connect(self.url) as driver:
            recording = RecordingDriver(driver)
            async with Engine(recording) as engine:
                await engine.do(Commit(*(Pause(opened(account)) for account in ACCOUNTS)))
        self._opening += recording.plans

    async def _history(self) -> History:
        async with connect(self.url) as driver:
            return await History.read(driver)

    def _wait(self, name: str, is_it: Callable[[Time], bool]) -> Time:
        end = time.monotonic() + PATIENCE_S
        while True:
            for each in self.times(name):
                if is_it(each):
                    return each
            assert self._members[name].poll() is None, f"{name} has ended"
            assert time.monotonic() < end, f"{name} commits nothing"
            time.sleep(LOOK_EVERY_S)


def gapless(history: History) -> Iterator[str]:
    """No revision is missing."""
    for before, after in pairwise(history.log):
        if after.rev != before.rev + 1:
            yield f"nothing is stored between {before.rev} and {after.rev}"


def conserved(history: History) -> Iterator[str]:
    """Every move took from one account what it gave to another, once, and every account has what
    it had before and what it was given."""
    has = dict.fromkeys(ACCOUNTS, OPENING)
    moves: dict[str, list[int]] = defaultdict(list)
    for state in history.log:
        if state.id in has and state.annotations["move"]:
            by = int(state.annotations["by"])
            moves[state.annotations["move"]].append(by)
            has[state.id] += by
            if int(state.annotations["has"]) != has[state.id]:
                yield f"revision {state.rev} of {state.id!r} does not follow on what it had"
    for move, amounts in moves.items():
        if len(amounts) != 2 or sum(amounts) != 0:
            yield f"move {move!r} is {amounts}"
    if sum(has.values()) != OPENING * len(ACCOUNTS):
        yield f"all accounts together have {sum(has.values())}"


def counted(history: History) -> Iterator[str]:
    """Every count was made once."""
    counts: Counter[str] = Counter()
    for state in history.log:
        if state.id.endswith("/count"):
            counts[state.id] += 1
            if int(state.annotations["count"]) != counts[state.id]:
                yield f"revision {state.rev} of {state.id!r} counts {state.annotations['count']}"


def _whole(data: bytes) -> bytes:
    """Without what is still being written."""
    return data[: len(data) - len(data) % TIMES.size]
