"""Timers: what is due, and acting on it.

What recovery and the command line need of an engine beyond what its users call. A timer is whatever
makes a version due: its alarm, or the end of its lease.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from .commands import Commit
from .committer import Committer
from .executor import Executor
from .leases import Due, DuePage
from .state import RetryPolicy, State


@frozen(eq=False)
class Timers:
    """The timers of the store that an engine is open on: ``engine.timers``."""

    _committer: Committer
    _executor: Executor

    async def due(self, flows: Collection[str], limit: int) -> DuePage:
        """The states that are due now for one of these flows, soonest first, and when to look
        again. A *limit* of 0 asks for that time alone."""
        return await self._committer.driver.due(self._committer.clock.now(), flows, limit)

    async def due_flows(self) -> tuple[str, ...]:
        """The flows, also of other processes, for which states are or will be due, by name."""
        return await self._committer.driver.due_flows()

    async def fire(self, due: Due) -> State | None:
        """Commit what has become of a state that is due, and give it; None if nothing has.

        Its alarm fires, or its lease has run out or was released. Raises ``RevMismatchError`` if it
        has moved on.
        """
        firing = self._committer.plan_firing(due)
        return None if firing is None else (await self._committer.store(firing))[0]

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        """Move the ends of the leases of these (id, rev) to *until* (ms); gives the ids that have
        moved on."""
        return await self._committer.driver.renew(leases, until)

    async def commit(self, commit: Commit) -> tuple[State, ...]:
        """Commit states of the kernel's own: nobody else may write them."""
        return await self._committer.commit(commit, is_internal=True)

    async def run(self, state: State, policy: RetryPolicy | None) -> BaseException | None:
        """Run a state until it rests, and give what came out of its flow; None if nothing went
        wrong. That was logged and counted as an attempt already, and ends nothing else.

        *policy* is what is stored beside the state, as it was fired by that of its ``Due``.
        """
        return await self._executor.run(state, policy)

    def timeouts(self) -> list[tuple[str, Due]]:
        """The timeouts of what this engine executes, whether they have come or not, each with the
        flow that it leads to."""
        return self._executor.timeouts()

    async def head(self) -> int:
        """The newest revision."""
        return await self._committer.driver.head()

    async def wait_for_commit(self, after: int) -> None:
        """Return once there is a revision above *after*. A hint: it may return early."""
        await self._committer.driver.wait(after)
