"""Running what is ready, for the flows that this process has."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
import anyio.abc
from attrs import define, field

from flowstate import Cause, Engine, InvalidValueError, State

from .pace import Backoff, Lookout

BATCH = 25
"""States that are claimed at once: few, so that those who wake at the same moment share them."""


@define(eq=False)
class Worker:
    """Runs what is ready, for the flows that its engine has: ``async with Worker(engine): ...``.

    Any number may work on one store, in any number of processes: each state is given to one of
    them. It runs at most *concurrency* states at a time, in places of its engine (of which there
    are ``max_background``), and claims no more than it can begin; of each flow it takes the first
    in line before it takes more of any.
    """

    engine: Engine
    concurrency: int = field(default=100, kw_only=True)
    look: float = field(default=10.0, kw_only=True)
    """How many seconds it sleeps at most before it looks again, if nothing wakes it."""

    claimed: int = field(default=0, init=False)
    """States that it has claimed."""
    running: int = field(default=0, init=False)
    """States that it runs now."""
    gave_up: int = field(default=0, init=False)
    """States whose attempts were used up here."""
    errors: int = field(default=0, init=False)
    """Times that the store failed, or that a flow raised."""
    _tasks: anyio.abc.TaskGroup = field(init=False, repr=False)
    _working: anyio.CancelScope = field(init=False, repr=False)
    """Cancelled when it is left."""
    _stopped: anyio.Event = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if type(self.concurrency) is not int or self.concurrency < 1:
            raise InvalidValueError(
                "Worker.concurrency", f"takes a whole number from 1, not {self.concurrency!r}"
            )

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._working, self._stopped = anyio.CancelScope(), anyio.Event()
        self._tasks.start_soon(self._serve)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Claim no more, within five seconds, whatever the store does. What runs goes on, until
        its engine is left."""
        self._working.cancel()
        try:
            await self.engine.timers.stop(self._stopped)
        finally:
            await self._tasks.__aexit__(None, None, None)

    async def _serve(self) -> None:
        try:
            with self._working:
                await self._work()
        finally:
            self._stopped.set()

    async def _work(self) -> None:
        backoff = Backoff(self.engine, "working")
        lookout = Lookout(self.engine, self._claim, self.engine.timers.room_freed)
        while True:
            try:
                await lookout.keep_looking(backoff)
            except Exception as error:  # noqa: BLE001  (a worker lives, whatever the store does)
                self.errors += 1
                await backoff.failed(error)

    async def _claim(self) -> int:
        """Claim what there is room for; gives when to look again, if nothing wakes it."""
        engine, timers = self.engine, self.engine.timers
        flows = [flow.name for flow in engine.flows]
        most = min(self.concurrency - self.running, BATCH)
        claimed = await timers.claim(timers.room(flows, most), most, self._ended)
        self.claimed += claimed
        self.running += claimed
        if claimed == most > 0:
            return engine.clock.now()  # there may be more
        # a wake-up may be lost, and the clock may be wrong
        return engine.clock.now() + round(self.look * 1000)

    def _ended(self, failed: State | None) -> None:
        self.running -= 1
        if failed is not None:
            self.errors += 1
            self.gave_up += failed.transition.cause is Cause.GAVE_UP
