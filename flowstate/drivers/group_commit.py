"""Group commit: one thread writes what has queued up, in one transaction with one sync.

Plans that tasks commit in the same turn of the event loop reach the thread together; while it
writes them, the next group gathers. So throughput grows with load, while a single commit still
costs one sync. The same goes for what tasks take.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.to_thread
from attrs import define, field
from msgspec import Struct

from ..errors import FlowstateError, StoreBusyError
from ..leases import Claimed
from ..plan import Plan
from ..query import Unreadable
from ..state import State
from .loop import Loop, Waiter
from .plans import Outcome

T = TypeVar("T")

MAX_GROUP_SIZE = 1_000
"""Plans in one transaction."""

Taken: TypeAlias = tuple[Claimed | Unreadable, ...]
"""What ``Driver.take`` gives."""


class Take(Struct, frozen=True, gc=False):
    """What ``Driver.take`` is asked."""

    versions: Collection[tuple[str, int]]
    owner: str
    claim: str
    now: int


@define(eq=False)
class _Job:
    """Something for the thread to do, and what wakes the task that waits for it."""

    done: Waiter
    work: Plan | Take | Callable[[], Any]
    outcome: Any = None


@define(eq=False)
class GroupCommitter:
    """The only thread of this process that writes to a store.

    ``write`` is called in the thread with up to ``MAX_GROUP_SIZE`` plans and gives one outcome for
    each, ``take_all`` likewise; what they raise is the outcome of all. ``name`` is that of the
    thread. Open on one event loop.
    """

    write: Callable[[Sequence[Plan]], Sequence[Outcome]]
    take_all: Callable[[Sequence[Take]], Sequence[Taken]]
    own: Callable[[Exception], Exception]
    """Gives the error of the store's own for whatever was raised."""
    name: str
    answered: Callable[[bool], None] | None = None
    """Called in the thread after the outcomes of a group were handed back, with whether there is
    more to do; it may not raise."""
    _queue: SimpleQueue[list[_Job] | None] = field(
        factory=SimpleQueue[list[_Job] | None], init=False
    )
    _gathering: list[_Job] = field(factory=list[_Job], init=False)
    _loop: Loop = field(init=False)
    _thread: threading.Thread = field(init=False)

    def open(self) -> None:
        self._loop = Loop.current()
        self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what was handed in, then end the thread. If another process holds the store, that
        is waited for once, and all that is left is refused."""
        self._hand_over()
        self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        """Have the plan written with whatever else there is. Raises its outcome if it failed.

        Cancelling this does not take the plan back.
        """
        written: tuple[State, ...] = await self._do(plan)
        return written

    async def take(self, take: Take) -> Taken:
        """Have something taken with whatever else is to be. Raises what taking it raised."""
        taken: Taken = await self._do(take)
        return taken

    async def run(self, call: Callable[[], T]) -> T:
        """Call something in the thread, between groups."""
        result: T = await self._do(call)
        return result

    async def _do(self, work: Plan | Take | Callable[[], Any]) -> Any:
        job = _Job(self._loop.waiter(), work)
        if not self._gathering:
            self._loop.soon(self._hand_over)
        self._gathering.append(job)
        await job.done.wait()
        if isinstance(job.outcome, Exception):
            raise job.outcome
        return job.outcome

    def _hand_over(self) -> None:
        if self._gathering:
            self._queue.put(self._gathering)
            self._gathering = []

    # ------------------------------------------------------------ in the thread

    def _serve(self) -> None:
        waiting: deque[_Job] = deque()
        closing = False
        while waiting or not closing:
            if not waiting:
                batch = self._queue.get()
                closing = batch is None
                waiting.extend(batch or ())
            while not self._queue.empty():
                batch = self._queue.get()
                closing = closing or batch is None
                waiting.extend(batch or ())
            if waiting:
                group = self._next(waiting)
                self._act(group)
                self._answer(group)
                if closing and isinstance(group[0].outcome, StoreBusyError):
                    self._refuse(waiting, group[0].outcome)
                if self.answered is not None:
                    self.answered(bool(waiting) or not self._queue.empty())

    def _refuse(self, waiting: deque[_Job], error: StoreBusyError) -> None:
        """Let nobody wait for another who holds the store, one after the other, as this closes."""
        refused = list(waiting)
        waiting.clear()
        for job in refused:
            job.outcome = error
        self._answer(refused)

    def _next(self, waiting: deque[_Job]) -> list[_Job]:
        """The next group: one call, or as many plans, or takes, as come one after the other."""
        group = [waiting.popleft()]
        kind = type(group[0].work)
        if kind in {Plan, Take}:
            while waiting and type(waiting[0].work) is kind and len(group) < MAX_GROUP_SIZE:
                group.append(waiting.popleft())
        return group

    def _act(self, group: list[_Job]) -> None:
        outcomes = self._outcomes([job.work for job in group])
        for job, outcome in zip(group, outcomes, strict=True):
            job.outcome = outcome

    def _outcomes(self, work: list[Any]) -> Sequence[Any]:
        """What each of these comes to. An error that nobody expected is that of one of them, which
        fails alone."""
        first = work[0]
        try:
            if isinstance(first, Plan):
                return self.write(work)
            if isinstance(first, Take):
                return self.take_all(work)
            return [first()]
        except Exception as error:  # noqa: BLE001  (it is raised where it was asked for)
            if len(work) == 1 or isinstance(error, FlowstateError):
                own = self.own(error)
                if own is not error:
                    own.__cause__ = error
                return [own] * len(work)
        half = len(work) // 2
        return [*self._outcomes(work[:half]), *self._outcomes(work[half:])]

    def _answer(self, group: list[_Job]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.soon_threadsafe(_wake, group)


def _wake(group: list[_Job]) -> None:
    for job in group:
        job.done.set()
