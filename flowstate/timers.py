"""Timers: what is due, what is ready, and acting on it.

What recovery and the command line need of an engine beyond what its users call. A timer is whatever
makes a version due: its alarm, or the end of its lease.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import anyio
from attrs import frozen
from msgspec.structs import replace

from .background import COMMIT_TIMEOUT_S, Background, Ended
from .clock import pause
from .commands import Commit
from .committer import Committer
from .leases import Due, DuePage, Held, Holding, Place, Renewal
from .state import KERNEL_PREFIX, State


@frozen(eq=False)
class Timers:
    """The timers of the store that an engine is open on: ``engine.timers``."""

    _committer: Committer
    _background: Background

    # ------------------------------------------------------------ what is due

    async def due(self, limit: int) -> DuePage:
        """The states that are due now, soonest first, and when to look again. A *limit* of 0 asks
        for that time alone. Those of the kernel's own are left out."""
        page = await self._committer.driver.due(self._committer.clock.now(), limit)
        due = tuple([each for each in page.due if not each.state.id.startswith(KERNEL_PREFIX)])
        return page if len(due) == len(page.due) else replace(page, due=due)

    async def fire(self, due: Due) -> State | None:
        """Commit what has become of a state that is due, and give it; None if nothing has.

        Its alarm fires, or its lease has run out. What is RUNNING then is ready. Raises
        ``RevMismatchError`` if it has moved on.
        """
        firing = self._committer.plan_firing(due)
        return None if firing is None else (await self._committer.store(firing))[0]

    # ------------------------------------------------------------ what is ready

    def room(self, flows: Iterable[str], most: int) -> Mapping[str, int]:
        """How many more states of each of these flows this engine can run now, *most* in all."""
        return self._background.room.of(flows, most)

    async def room_freed(self) -> None:
        """Return when there is more room than now."""
        await self._background.room.freed()

    async def claim(self, room: Mapping[str, int], limit: int, ended: Ended) -> int:
        """Take what is ready, *limit* states at most, and run it in the background; nothing for
        flows that are held. Gives how many states these are; *ended* is called at the end of each.
        """
        return await self._background.claim(room, limit, ended)

    async def stop(self, stopped: anyio.Event) -> None:
        """Return once who claims has stopped, which it was told to. A claim that is on its way is
        waited for, and after ``COMMIT_TIMEOUT_S`` no more: what it takes then waits for its lease,
        if this engine does not find and release it before."""
        with anyio.move_on_after(COMMIT_TIMEOUT_S, shield=True):
            await stopped.wait()
            return
        self._background.executor.writes.unshield()

    async def line(self) -> Mapping[str, int]:
        """The flows that something is ready for, also those of other processes, each with the
        instant (ms) since which the first in its line is ready."""
        return await self._committer.driver.line()

    async def owners(self) -> Mapping[str, bool | None]:
        """Everybody who has taken something but this engine, and whether they are there; False if
        they are known to be dead, None if this cannot be told."""
        committer = self._committer
        if not committer.driver.attends:  # who is not there cannot tell who else is
            await committer.driver.attend()
        owners = dict(await committer.driver.owners())
        owners.pop(committer.owner, None)
        return owners

    async def end_leases(self, owner: str) -> None:
        """Have the leases of somebody who died end now, so that what they ran is due."""
        committer = self._committer
        await committer.driver.end_leases(owner, committer.clock.now())

    async def holdings(self) -> tuple[Holding, ...]:
        """What is taken, by any engine."""
        return await self._committer.driver.holdings()

    async def place(self, id: str) -> Place | None:
        """Where the current version of a state stands; None unless it is RUNNING."""
        return await self._committer.driver.place(id)

    def executing(self) -> list[State]:
        """The states that this engine executes, as they were last committed."""
        return self._background.executor.executing()

    # ------------------------------------------------------------ the kernel's own states

    async def commit(self, commit: Commit) -> tuple[State, ...]:
        """Commit states of the kernel's own, which nobody else may write, as taken by this
        engine."""
        committer = self._committer
        if not committer.driver.attends:
            await committer.driver.attend()
        return await committer.store(committer.plan(commit, committer.taken, is_internal=True))

    async def renew(self, held: Collection[Held]) -> Renewal:
        """Move the ends of the leases of these, which this engine has taken."""
        committer = self._committer
        return await committer.driver.renew(held, committer.owner, committer.clock.now())

    # ------------------------------------------------------------ waking up

    async def head(self) -> int:
        """The newest revision."""
        return await self._committer.driver.head()

    async def wait_for_change(self, after: int) -> int:
        """Return once there is a revision above *after*, or something was released; gives the
        newest revision that was heard of. A hint: it may return early."""
        return await self._committer.driver.wait(after)

    async def pause(self, wait_ms: int) -> None:
        """Wait for so long, by a clock that may be wrong."""
        await pause(self._committer.clock, wait_ms)
