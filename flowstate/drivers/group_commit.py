"""Group commit: one thread writes what has queued up, in one transaction with one sync.

Plans that tasks commit in the same turn of the event loop reach the thread together; while it
writes them, the next group gathers. So throughput grows with load, while a single commit still
costs one sync.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from ..plan import Plan
from ..state import State
from .loop import Loop, Waiter
from .plans import Outcome

T = TypeVar("T")

MAX_GROUP_SIZE = 1_000
"""Plans in one transaction."""


@define(eq=False)
class _Job:
    """Something for the thread to do, and what wakes the task that waits for it."""

    done: Waiter
    plan: Plan | None
    call: Callable[[], Any] | None = None
    outcome: Any = None


@define(eq=False)
class GroupCommitter:
    """The only thread of this process that writes to a store.

    ``write`` is called in the thread with up to ``MAX_GROUP_SIZE`` plans and gives one outcome for
    each; what it raises is the outcome of all. ``name`` is that of the thread. Open on one event
    loop.
    """

    write: Callable[[Sequence[Plan]], Sequence[Outcome]]
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
        """Write what was handed in, then end the thread."""
        self._hand_over()
        self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        """Have the plan written with whatever else there is. Raises its outcome if it failed.

        Cancelling this does not take the plan back.
        """
        job = self._put(_Job(self._loop.waiter(), plan))
        await job.done.wait()
        outcome: Outcome = job.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def run(self, call: Callable[[], T]) -> T:
        """Call something in the thread, between groups."""
        job = self._put(_Job(self._loop.waiter(), None, call))
        await job.done.wait()
        if isinstance(job.outcome, Exception):
            raise job.outcome
        result: T = job.outcome
        return result

    def _put(self, job: _Job) -> _Job:
        if not self._gathering:
            self._loop.soon(self._hand_over)
        self._gathering.append(job)
        return job

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
            group = self._take(waiting)
            if group:
                self._act(group)
                self._answer(group)
                if self.answered is not None:
                    self.answered(bool(waiting) or not self._queue.empty())

    def _take(self, waiting: deque[_Job]) -> list[_Job]:
        """The next group: one call, or as many plans as come before the next call."""
        group: list[_Job] = []
        while waiting and len(group) < MAX_GROUP_SIZE:
            if waiting[0].call is not None and group:
                break
            group.append(waiting.popleft())
            if group[0].call is not None:
                break
        return group

    def _act(self, group: list[_Job]) -> None:
        call = group[0].call
        if call is not None:
            try:
                group[0].outcome = call()
            except Exception as error:  # noqa: BLE001  (it is raised where it was asked for)
                group[0].outcome = error
        else:
            try:
                outcomes = self.write([job.plan for job in group if job.plan is not None])
            except Exception as error:  # noqa: BLE001  (a mistake in a driver: nobody may hang)
                outcomes = [error] * len(group)
            for job, outcome in zip(group, outcomes, strict=True):
                job.outcome = outcome

    def _answer(self, group: list[_Job]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.soon_threadsafe(_wake, group)


def _wake(group: list[_Job]) -> None:
    for job in group:
        job.done.set()
