"""Leases: how an engine shows that it is still working on what it runs.

Every committed RUNNING version is leased to whoever executes it, from the moment of its commit. The
keeper renews the leases of an engine's executions, all that need it in one call, once a third of
their time is gone. It costs an execution nothing: when a lease began is told by the state itself.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from .errors import FlowstateError
from .state import State

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("flowstate")

RENEW_AFTER = 1 / 3
"""The part of a lease that may go by before it is renewed."""
PAUSE_AFTER_ERROR_MS = 200
"""Between two attempts while the store fails."""


@define(eq=False)
class Execution:
    """One state being run by an engine."""

    state: State
    """As it was last committed: that is what has a lease, and perhaps a timeout."""
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    renewed_at: int = 0
    """When its lease was last renewed (ms); a commit renews it too."""
    seen: tuple[int, int] = (0, 0)
    """The last revision that was committed at a time still to come, and when that was noticed."""
    suspect: int = 0
    """The revision at which the store said that the state has moved on; 0 if it did not."""


@define(eq=False)
class LeaseKeeper:
    """Renews the leases of executions, and cancels those that lost theirs."""

    engine: Engine
    executions: Collection[Execution]
    _sleeps_until: int = field(default=0, init=False)
    _awake: anyio.Event = field(factory=anyio.Event, init=False)

    def watch(self, execution: Execution) -> None:
        """A new execution: look at it in time."""
        due = self._renewal(execution)
        if due is not None and due < self._sleeps_until:
            self._awake.set()

    async def run(self) -> None:
        """Keep leases until cancelled."""
        clock = self.engine.clock
        while True:
            renewals = [due for one in self.executions if (due := self._renewal(one)) is not None]
            self._sleeps_until = min(renewals, default=NEVER)
            self._awake = anyio.Event()
            if self._sleeps_until > clock.now():
                await clock.wait_until(self._sleeps_until, self._awake)
                continue
            try:
                await self.renew()
            except FlowstateError:
                logger.warning("leases could not be renewed; trying again", exc_info=True)
                await clock.wait_until(clock.now() + PAUSE_AFTER_ERROR_MS)

    async def renew(self) -> None:
        """Renew what needs it now: one call to the driver for each length of lease."""
        now = self.engine.clock.now()
        batches: dict[int, list[Execution]] = {}
        for execution in self.executions:
            due = self._renewal(execution)
            if due is not None and due <= now:
                until = now + self._lease_ms(execution.state)
                alarm = execution.state.transition.alarm
                batches.setdefault(min(until, alarm.at) if alarm else until, []).append(execution)
        for until, batch in batches.items():
            leases = [(one.state.id, one.state.rev) for one in batch]
            moved = await self.engine.driver.renew(leases, until)
            for execution, (id, rev) in zip(batch, leases, strict=True):
                execution.renewed_at = now
                if id in moved:
                    _lost(execution, rev)

    def _renewal(self, execution: Execution) -> int | None:
        """When to tell the store that it is being executed, or to learn from the store that it is
        no longer: also some time after its timeout, which may have fired elsewhere."""
        state = execution.state
        lease = self._lease_ms(state)
        if not lease:
            return None
        began = max(self._committed_at(execution), execution.renewed_at)
        alarm = state.transition.alarm
        if alarm is not None and alarm.at <= began + lease:
            began = max(began, alarm.at)
        return began + int(lease * RENEW_AFTER)

    def _committed_at(self, execution: Execution) -> int:
        """When its state was committed, by the engine's clock, by which leases are counted. The
        store's may be ahead of it: then, when it was noticed, at most one look too late."""
        state = execution.state
        now = self.engine.clock.now()
        if state.committed_at <= now:
            return state.committed_at
        if execution.seen[0] != state.rev:
            execution.seen = (state.rev, now)
        return execution.seen[1]

    def _lease_ms(self, state: State) -> int:
        policy = state.retry or self.engine.retry
        return int(policy.lease * 1000) if state.rev and policy.enabled else 0


def _lost(execution: Execution, rev: int) -> None:
    """The store says that the state has moved on from that revision.

    Perhaps by the execution's own commit, whose answer is on its way: so the second time counts.
    """
    if execution.state.rev != rev:
        return
    if execution.suspect == rev:
        execution.scope.cancel()
    execution.suspect = rev


NEVER = 253_402_300_799_999
"""The end of time, as an instant."""
