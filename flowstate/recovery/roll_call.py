"""Who has died, on stores that know it at once."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
from attrs import define, field

from flowstate import Engine

LOOK_MS = 100
"""Between two looks, while anybody else has taken something or could."""
MISSING_MS = 200
"""For how long an owner is missed before it counts as dead: its session may only have been lost,
and be there again at once."""


@define(eq=False)
class RollCall:
    """Looks who of those that have taken something is still there.

    Nothing rests on it: whoever is taken for dead and lives loses an attempt of what it runs, and
    whoever is dead and seems to live is found by its leases.
    """

    engine: Engine
    dead: frozenset[str] = field(default=frozenset(), init=False)
    """The owners that count as dead now."""
    living: frozenset[str] = field(default=frozenset(), init=False)
    """Those that are known to be there."""
    _missing: Mapping[str, int] = field(factory=dict[str, int], init=False)
    """Owner -> since when it is missed (ms)."""
    looked: anyio.Event = field(factory=anyio.Event, init=False)
    """Set after the next look."""

    async def look(self) -> None:
        """Look once, and return when it is time to look again: soon, or if nobody else has
        anything, once something changes. Raises what the store raises."""
        timers = self.engine.timers
        owners = await timers.owners()
        now = self.engine.clock.now()
        self._missing = {
            owner: self._missing.get(owner, now)
            for owner, is_there in owners.items()
            if is_there is False
        }
        self.dead = frozenset(
            owner for owner, since in self._missing.items() if now - since >= MISSING_MS
        )
        self.living = frozenset(owner for owner, is_there in owners.items() if is_there)
        looked, self.looked = self.looked, anyio.Event()
        looked.set()
        if not owners:
            head = await timers.head()  # whatever is taken by a commit from now on wakes it
            if not (await timers.line() or await timers.owners()):
                await timers.wait_for_change(head)
                return
        await timers.pause(LOOK_MS)

    async def death(self, owner: str) -> None:
        """Return once that owner counts as dead."""
        while owner not in self.dead:
            await self.looked.wait()
