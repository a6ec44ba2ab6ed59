"""Holds: the flows that no worker of a store is to begin with, and why.

They are in one state of the kernel's own, ``HELD_ID``, that every worker reads before it claims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from .checks import check_flow, check_text
from .commands import Commit, Pause, Save
from .committer import Committer
from .errors import RevMismatchError
from .flow import Flow
from .state import KERNEL_PREFIX, State, Status

HELD_ID = f"{KERNEL_PREFIX}held"
"""The id of the state whose annotations are the flows that are held: flow -> reason."""


@frozen(eq=False)
class Holds:
    """The holds of one store."""

    _committer: Committer

    async def read(self) -> Mapping[str, str]:
        """The flows that are held, each with the reason."""
        return (await self._state()).annotations

    async def hold(self, flow: str | Flow, reason: str) -> None:
        """Have nobody begin with states at this flow; held before, it has this reason now."""
        name, reason = check_flow("flow", flow), check_text("reason", reason)
        await self._change(lambda held: held.with_annotations({name: reason}))

    async def release(self, flow: str | Flow) -> None:
        """Have them begun again; a flow that is not held is no error."""
        name = check_flow("flow", flow)
        await self._change(lambda held: held.without_annotations(name))

    async def _change(self, change: Callable[[State], State]) -> None:
        committer = self._committer
        while True:
            held = await self._state()
            changed = change(held)
            if changed == held:
                return
            is_new = held.transition.status is Status.NEW
            command = Pause(changed, reason="held flows") if is_new else Save(changed)
            plan = committer.plan(Commit(command), is_internal=True)
            try:
                await committer.store(plan)
            except RevMismatchError:
                continue  # somebody held or released another one at the same moment
            return

    async def _state(self) -> State:
        return await self._committer.driver.get(HELD_ID) or State(HELD_ID)
