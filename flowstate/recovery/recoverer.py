"""Acting on what is due, for one group, while this process leads it."""

from __future__ import annotations

import logging
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
from attrs import define, field, frozen

from flowstate import (
    Cause,
    Due,
    DuePage,
    Engine,
    FlowstateError,
    InvalidValueError,
    RetryPolicy,
    RevMismatchError,
    State,
    Status,
)
from flowstate.leases import renewal_ms

from .elector import BACKOFF_MS, MAX_BACKOFF_MS, Elector, Event, Role

logger = logging.getLogger("flowstate.recovery")

MIN_INTERVAL_MS = 5
"""Between two looks at the index, however many commits there are."""
BATCH = 1_000
"""States that one look gives, for each flow."""


@frozen
class Stats:
    """What a recoverer has done since it was opened."""

    role: Role
    leader: str
    """Who leads the group, by name, as far as is known here; empty: nobody."""
    term: int
    """That of this recoverer; 0 if another leads."""
    running: int
    """States that it runs now."""
    fired: int
    """Alarms: delays, timeouts and retries after an error."""
    retried: int
    """Leases that had run out."""
    taken_over: int
    """Leases that were released, by an engine that was left or lacks the flow."""
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
    """A background service of an engine: ``async with Recoverer(engine): ...``.

    One per *group* acts; the rest stand by. It acts on the flows that its engine has, runs at most
    *concurrency* states at a time, and leaves each flow at least one place. *lease* is how many
    seconds a leader that died is waited for.
    """

    engine: Engine
    group: str = "default"
    lease: float = field(default=10.0, kw_only=True)
    concurrency: int = field(default=100, kw_only=True)
    name: str = field(
        factory=lambda: f"{socket.gethostname()}/{secrets.token_hex(4)}", kw_only=True
    )
    tell: Callable[[Event, int], None] = field(default=lambda _event, _term: None, kw_only=True)
    """Called with every event of the election and its term."""

    _elector: Elector = field(init=False, repr=False)
    _tasks: anyio.abc.TaskGroup = field(init=False, repr=False)
    _serving: anyio.CancelScope = field(factory=anyio.CancelScope, init=False, repr=False)
    _served: anyio.Event = field(factory=anyio.Event, init=False, repr=False)
    _busy: Counter[str] = field(factory=Counter[str], init=False, repr=False)
    """flow -> states of it that are being run, if there are any."""
    _taken: set[tuple[str, int]] = field(factory=set[tuple[str, int]], init=False, repr=False)
    """The (id, rev) that were due: the same state may be due again while it runs."""
    _unreadable: set[int] = field(factory=set[int], init=False, repr=False)
    """The revisions of what was due and could not be read: each is told once."""
    _done: anyio.Event = field(factory=anyio.Event, init=False, repr=False)
    _counts: Counter[str] = field(factory=Counter[str], init=False, repr=False)
    _late_ms: int = field(default=0, init=False)
    _max_late_ms: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.group:
            raise InvalidValueError("Recoverer.group", "may not be empty")
        if self.concurrency < 1:
            raise InvalidValueError("Recoverer.concurrency", "takes at least 1")
        if self.lease < 1:
            raise InvalidValueError("Recoverer.lease", "takes at least 1 second")
        lease_ms = round(self.lease * 1000)
        self._elector = Elector(self.engine, self.group, self.name, lease_ms, self.tell)

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._serve)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hand the term over, let what runs finish for the engine's ``grace`` seconds, and stop.

        What did not finish goes on in whoever recovers it, once this engine is left.
        """
        self._serving.cancel()
        try:
            with anyio.CancelScope(shield=True):  # whoever resigns no longer stands or renews
                await self._served.wait()
            await self._elector.resign()
            await self._finish(self.engine.clock.now() + round(self.engine.grace * 1000))
        finally:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)

    async def _finish(self, end: int) -> None:
        """Return when nothing runs any more, at the latest at *end*."""
        while self._busy.total() and self.engine.clock.now() < end:
            self._done = anyio.Event()
            await self.engine.clock.wait_until(end, self._done)

    def stats(self) -> Stats:
        """What it has done so far, and who it is."""
        return Stats(
            role=self._elector.role,
            leader=self._elector.leader,
            term=self._elector.term,
            running=self._busy.total(),
            fired=self._counts["fired"],
            retried=self._counts["retried"],
            taken_over=self._counts["taken over"],
            gave_up=self._counts["gave up"],
            lost_races=self._counts["lost races"],
            errors=self._counts["errors"],
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
        backoff = BACKOFF_MS
        while True:
            try:
                await self._elector.win()
                backoff = BACKOFF_MS
                await self._lead()
            except Exception:
                self._counts["errors"] += 1
                logger.exception("recovery of group %r goes on in %d ms", self.group, backoff)
                await self._pause(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_MS)

    async def _lead(self) -> None:
        """Act on what is due for as long as the term lasts."""
        async with anyio.create_task_group() as term:

            async def keep() -> None:
                await self._elector.keep()
                term.cancel_scope.cancel()

            term.start_soon(keep)
            backoff = BACKOFF_MS
            while True:
                try:
                    await self._act()
                    backoff = BACKOFF_MS
                except FlowstateError:
                    self._counts["errors"] += 1
                    logger.warning("the store failed; going on in %d ms", backoff, exc_info=True)
                    await self._pause(backoff)
                    backoff = min(2 * backoff, MAX_BACKOFF_MS)

    async def _act(self) -> None:
        """Take what is due, or sleep until there may be something."""
        clock, timers = self.engine.clock, self.engine.timers
        looked = clock.now()
        head = await timers.head()
        news = self._done = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def wait_for_commit(task_status: anyio.abc.TaskStatus[None]) -> None:
                task_status.started()
                await timers.wait_for_commit(head)
                news.set()

            # it waits before the index is read: what changes in between wakes it
            await tasks.start(wait_for_commit)
            flows = self._open_flows()
            soonest = (await self._due(flows, 0)).next_at
            if not await self._take_due(flows, soonest, looked):
                await clock.wait_until(self._next_look(soonest, looked), news)
            tasks.cancel_scope.cancel()
        # from now on, at most: the clock may have been wrong when it looked
        await clock.wait_until(min(looked, clock.now()) + MIN_INTERVAL_MS)

    async def _take_due(self, flows: list[str], soonest: int | None, now: int) -> int:
        """Begin with as much of what is due as there is room for, and give how much that is."""
        taken = 0
        if soonest is not None and soonest <= now:
            for flow in flows:
                taken += await self._take_flow(flow)
        if len(flows) < len(self.engine.flows):
            # ending what runs needs no place, and were all places held by flows that hang, it is
            # what everything else waits for
            for flow, timeout in self.engine.timers.timeouts():
                taken += self._take(flow, [timeout], 1) if timeout.at <= now else 0
        return taken

    async def _take_flow(self, flow: str) -> int:
        room = self._room(flow)
        page = await self._due([flow], min(BATCH, room + len(self._taken)))
        return self._take(flow, page.due, room)

    async def _due(self, flows: list[str], limit: int) -> DuePage:
        """What is due; what cannot be read is told and passed by."""
        page = await self.engine.timers.due(flows, limit)
        for version in page.unreadable:
            if version.rev not in self._unreadable:
                self._unreadable.add(version.rev)
                self._counts["errors"] += 1
                logger.error("%s; it is due, and passed by", version.error())
        return page

    def _next_look(self, soonest: int | None, looked: int) -> int:
        """When to look again, if nothing wakes it: at the next due time, and after a third of a
        lease, since a wake-up may be lost and the clock may have been wrong."""
        timeouts = [timeout.at for _, timeout in self.engine.timers.timeouts()]
        to_come = [at for at in timeouts if at > looked]
        latest = looked + renewal_ms(self._elector.lease_ms)
        # what is due already is being committed at this moment
        if soonest is not None and soonest > looked:
            to_come.append(soonest)
        return min([latest, *to_come])

    def _open_flows(self) -> list[str]:
        """The flows that have room; the others are looked at again when a state is done."""
        return [flow.name for flow in self.engine.flows if self._room(flow.name)]

    def _room(self, flow: str) -> int:
        """How many more states of a flow may run.

        Of the free places one is kept for each other flow that runs nothing, at most half of all;
        so a flow with a thousand due states does not starve the others.
        """
        free = self.concurrency - self._busy.total()
        idle = len(self.engine.flows) - len(self._busy) - (flow not in self._busy)
        kept = min(idle, self.concurrency // 2)
        return max(free - kept, 0 if flow in self._busy else min(free, 1))

    def _take(self, flow: str, due: Iterable[Due], room: int) -> int:
        taken = 0
        for each in due:
            if taken == room:
                break
            version = (each.state.id, each.state.rev)
            if version not in self._taken and self._elector.leads:
                self._taken.add(version)
                self._busy[flow] += 1
                taken += 1
                self._tasks.start_soon(self._recover, flow, each)
        return taken

    # ------------------------------------------------------------ one state

    async def _recover(self, flow: str, due: Due) -> None:
        """Commit what has become of a state that is due, and run it."""
        state = due.state
        try:
            fired = await self._fire(due)
            if fired is None:
                await self._pause(BACKOFF_MS)  # it is still due: look at it again, but not at once
            elif fired.transition.status is Status.RUNNING:
                await self._run(fired, due.policy)
        except RevMismatchError:
            self._counts["lost races"] += 1
        finally:
            self._taken.discard((state.id, state.rev))
            self._busy[flow] -= 1
            if not self._busy[flow]:
                del self._busy[flow]
            self._done.set()

    async def _fire(self, due: Due) -> State | None:
        if self._is_left_to_others(due):
            return None
        try:
            fired = await self.engine.timers.fire(due)
        except RevMismatchError:
            raise
        except Exception:
            self._counts["errors"] += 1
            logger.warning("state %r could not be recovered", due.state.id, exc_info=True)
            return None
        if fired is not None:
            self._count(due, fired)
        return fired

    def _is_left_to_others(self, due: Due) -> bool:
        """Whether its lease was released, and only its timeout, which is to come, leads here."""
        transition = due.state.transition
        alarm = transition.alarm
        is_to_come = alarm is None or alarm.at > self.engine.clock.now()
        return due.is_released and is_to_come and transition.to not in self.engine.flows

    async def _run(self, state: State, policy: RetryPolicy | None) -> None:
        error = await self.engine.timers.run(state, policy)
        if error is not None:
            self._counts["errors"] += 1
            with suppress(FlowstateError):
                newest = await self.engine.get(state.id)
                self._counts["gave up"] += newest.transition.cause is Cause.GAVE_UP

    async def _pause(self, wait_ms: int) -> None:
        clock = self.engine.clock
        end = clock.now() + wait_ms
        while (now := clock.now()) < end:
            # in slices: a clock that was wrong when this began costs no more than one of them
            await clock.wait_until(min(end, now + wait_ms))

    def _count(self, due: Due, fired: State) -> None:
        before, after = due.state.transition, fired.transition
        if after.cause is Cause.GAVE_UP:
            self._counts["gave up"] += 1
            logger.error("state %r: flow %r: %s", fired.id, before.to, after.reason)
        elif after == before:
            self._counts["taken over"] += 1
        elif before.status is Status.RUNNING and after.cause is Cause.LOST:
            self._counts["retried"] += 1
        else:
            self._counts["fired"] += 1
            if before.alarm is not None:
                self._late_ms = max(0, self.engine.clock.now() - before.alarm.at)
                self._max_late_ms = max(self._max_late_ms, self._late_ms)
