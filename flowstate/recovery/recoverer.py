"""Acting on what is due, while this process leads; and working on what is ready."""

from __future__ import annotations

import logging
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
from attrs import define, field, frozen

from flowstate import (
    Cause,
    Due,
    Engine,
    InvalidValueError,
    RevMismatchError,
    State,
    Status,
)
from flowstate.leases import renewal_ms

from .elector import Elector, Event, Role
from .pace import BACKOFF_MS, Backoff, Lookout
from .roll_call import RollCall
from .worker import Worker

logger = logging.getLogger("flowstate.recovery")

BATCH = 1_000
"""States that one look gives, and that are fired at the same time."""


@frozen
class Stats:
    """What a recoverer has done since it was opened."""

    role: Role
    leader: str
    """Who leads, by name, as far as is known here; empty: nobody."""
    term: int
    """That of this recoverer; 0 if another leads."""
    running: int
    """States that it runs now."""
    claimed: int
    """States that were ready, and that it has run or runs."""
    fired: int
    """Alarms: delays, timeouts and retries after an error."""
    retried: int
    """Leases that had run out."""
    gave_up: int
    """States whose attempts were used up."""
    lost_races: int
    """States that had moved on before they could be acted on."""
    errors: int
    """Times that the store failed, that a flow raised, or that something due could not be read."""
    late_ms: int
    """How late the last alarm fired."""
    max_late_ms: int


@define(eq=False)
class Recoverer:
    """A worker that also stands for election: ``async with Recoverer(engine): ...``.

    One of all that are open on a store leads: it acts on what is due, for all flows, whether its
    engine has them or not. All work: each runs at most *concurrency* states at a time; with 0 it
    only leads. *lease* is how many seconds a leader is waited for that hangs, or of which the store
    cannot tell that it died.
    """

    engine: Engine
    concurrency: int = field(default=100, kw_only=True)
    lease: float = field(default=10.0, kw_only=True)
    name: str = field(
        factory=lambda: f"{socket.gethostname()}/{secrets.token_hex(4)}", kw_only=True
    )
    tell: Callable[[Event, int], None] = field(default=lambda _event, _term: None, kw_only=True)
    """Called with every event of the election and its term."""

    _elector: Elector = field(init=False, repr=False)
    _roll: RollCall = field(init=False, repr=False)
    _worker: Worker | None = field(default=None, init=False, repr=False)
    _services: AsyncExitStack = field(init=False, repr=False)
    _tasks: anyio.abc.TaskGroup = field(init=False, repr=False)
    _serving: anyio.CancelScope = field(factory=anyio.CancelScope, init=False, repr=False)
    _served: anyio.Event = field(factory=anyio.Event, init=False, repr=False)
    _unreadable: set[int] = field(factory=set[int], init=False, repr=False)
    """The revisions of what was due and could not be read: each is told once."""
    _counts: Counter[str] = field(factory=Counter[str], init=False, repr=False)
    _late_ms: int = field(default=0, init=False)
    _max_late_ms: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if type(self.concurrency) is not int or self.concurrency < 0:
            problem = f"takes a whole number from 0, not {self.concurrency!r}"
            raise InvalidValueError("Recoverer.concurrency", problem)
        if self.lease < 1:
            raise InvalidValueError("Recoverer.lease", "takes at least 1 second")
        self._roll = RollCall(self.engine)
        lease_ms = round(self.lease * 1000)
        self._elector = Elector(self.engine, self.name, lease_ms, self.tell, self._roll)
        if self.concurrency:
            look = renewal_ms(lease_ms) / 1000
            self._worker = Worker(self.engine, concurrency=self.concurrency, look=look)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as services:
            if self._worker is not None:
                await services.enter_async_context(self._worker)
            self._tasks = await services.enter_async_context(anyio.create_task_group())
            self._tasks.start_soon(self._serve)
            if self.engine.driver.session:
                self._tasks.start_soon(self._call_the_roll)
            self._services = services.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hand the term over, let what runs finish for the engine's ``grace`` seconds, and stop.

        What did not finish goes on elsewhere once this engine is left.
        """
        self._serving.cancel()
        try:
            with anyio.CancelScope(shield=True):  # whoever resigns no longer stands or renews
                await self._served.wait()
            await self._elector.resign()
        finally:
            self._tasks.cancel_scope.cancel()
            await self._services.__aexit__(exc_type, exc, traceback)

    def stats(self) -> Stats:
        """What it has done so far, and who it is."""
        worker = self._worker
        return Stats(
            role=self._elector.role,
            leader=self._elector.leader,
            term=self._elector.term,
            running=worker.running if worker else 0,
            claimed=worker.claimed if worker else 0,
            fired=self._counts["fired"],
            retried=self._counts["retried"],
            gave_up=self._counts["gave up"] + (worker.gave_up if worker else 0),
            lost_races=self._counts["lost races"],
            errors=self._counts["errors"] + (worker.errors if worker else 0),
            late_ms=self._late_ms,
            max_late_ms=self._max_late_ms,
        )

    # ------------------------------------------------------------ leading

    async def _serve(self) -> None:
        """Stand, lead, and stand again, until it is left."""
        try:
            with self._serving:
                await self._stand_and_lead()
        finally:
            self._served.set()

    async def _stand_and_lead(self) -> None:
        backoff = Backoff(self.engine, "the election")
        while True:
            try:
                await self._elector.win()
                backoff.succeeded()
                await self._lead()
            except Exception as error:  # noqa: BLE001  (a recoverer lives, whatever the store does)
                self._counts["errors"] += 1
                await backoff.failed(error)

    async def _call_the_roll(self) -> None:
        """Know who has died, also while another leads: then this one can stand at once."""
        backoff = Backoff(self.engine, "looking who is there")
        while True:
            try:
                await self._roll.look()
                backoff.succeeded()
            except Exception as error:  # noqa: BLE001  (as above)
                self._counts["errors"] += 1
                await backoff.failed(error)

    async def _bury(self) -> None:
        """End the leases of the dead, so that what they ran is due: once for each of them."""
        backoff = Backoff(self.engine, "recovery of what the dead ran")
        ended: set[str] = set()
        while True:
            # whoever takes something after that is not dead, whatever the store says
            ended -= self._roll.living
            looked = self._roll.looked  # a look that comes meanwhile counts
            try:
                for owner in sorted(self._roll.dead - ended):
                    if self._elector.leads:
                        await self.engine.timers.end_leases(owner)
                        ended.add(owner)
            except Exception as error:  # noqa: BLE001  (as above)
                self._counts["errors"] += 1
                await backoff.failed(error)
            else:
                backoff.succeeded()
                await looked.wait()

    async def _lead(self) -> None:
        """Act on what is due for as long as the term lasts."""
        async with anyio.create_task_group() as term:

            async def keep() -> None:
                await self._elector.keep()
                term.cancel_scope.cancel()

            term.start_soon(keep)
            term.start_soon(self._bury)
            backoff = Backoff(self.engine, "recovery")
            lookout = Lookout(self.engine, self._act)
            while True:
                try:
                    await lookout.keep_looking(backoff)
                except Exception as error:  # noqa: BLE001  (as above)
                    self._counts["errors"] += 1
                    await backoff.failed(error)

    async def _act(self) -> int:
        """Fire what is due; gives when to look again, if nothing wakes it: at the next due time,
        and after a third of a lease, since a wake-up may be lost and the clock may have been
        wrong."""
        clock = self.engine.clock
        looked = clock.now()
        page = await self.engine.timers.due(BATCH)
        for version in page.unreadable:
            if version.rev not in self._unreadable:
                self._unreadable.add(version.rev)
                self._counts["errors"] += 1
                logger.error("%s; it is due, and passed by", version.error())
        async with anyio.create_task_group() as tasks:
            for due in page.due:
                if self._elector.leads:
                    tasks.start_soon(self._fire, due)
        latest = looked + renewal_ms(self._elector.lease_ms)
        return latest if page.next is None else min(latest, page.next)

    # ------------------------------------------------------------ one state

    async def _fire(self, due: Due) -> None:
        try:
            fired = await self.engine.timers.fire(due)
        except RevMismatchError:
            self._counts["lost races"] += 1
        except Exception:
            self._counts["errors"] += 1
            logger.warning("state %r could not be recovered", due.state.id, exc_info=True)
            await self.engine.timers.pause(BACKOFF_MS)  # it is still due
        else:
            if fired is not None:
                self._count(due, fired)

    def _count(self, due: Due, fired: State) -> None:
        before, after = due.state.transition, fired.transition
        if after.cause is Cause.GAVE_UP:
            self._counts["gave up"] += 1
            logger.error("state %r: flow %r: %s", fired.id, before.to, after.reason)
        elif before.status is Status.RUNNING and after.cause is Cause.LOST:
            self._counts["retried"] += 1
        else:
            self._counts["fired"] += 1
            self._late_ms = max(0, self.engine.clock.now() - due.at)
            self._max_late_ms = max(self._max_late_ms, self._late_ms)
