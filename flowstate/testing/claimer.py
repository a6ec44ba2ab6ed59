"""A process that claims what is ready and moves it on, until nothing is left.

    python -m flowstate.testing.claimer URL OWNER

It prints a line when the store is open, reads one before it begins, and prints one after each claim
that gave it something. It fails if anybody else has a part in what it has claimed. Imports no test
library, so that it starts fast.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import anyio
import anyio.to_thread
from attrs import define, field

from ..commands import Command, Commit, End, Transit
from ..driver import Driver
from ..drivers import connect
from ..leases import Claimed, ready
from ..query import Query
from ..state import RetryPolicy, State, Status
from ..transitions import plan

FLOWS: tuple[str, ...] = ("first", "second", "third")
"""What each state goes through, from flow to flow."""
RELEASE_EVERY = 3
"""Of so many claims, one has what it was given first released."""
LOOK_EVERY_S = 0.005
"""While others have all that there is. A release may come between a look and ``Driver.wait``."""


@define(eq=False)
class Claimer:
    """Claims, renews, releases and commits as *owner*, one claim after the other."""

    driver: Driver
    owner: str
    claims: int = field(default=0, init=False)

    async def work(self) -> None:
        """Go on until nothing is to be run, by whomever."""
        while await self.driver.find(Query(status=Status.RUNNING)) is not None:
            self.claims += 1
            claim = f"{self.owner}/{self.claims}"
            if states := await self._claim(claim):
                print(claim, flush=True)  # noqa: T201  (its parent reads it)
                assert await self._claim(claim) == states, (
                    "asked again, a claim gave something else"
                )
                await self._go_on(list(states.values()), claim)
            else:
                await anyio.sleep(LOOK_EVERY_S)

    async def _claim(self, claim: str) -> dict[str, State]:
        given = await self.driver.claim(dict.fromkeys(FLOWS, 2), 4, self.owner, claim, 0)
        return {each.state.id: each.state for each in given if isinstance(each, Claimed)}

    async def _go_on(self, states: list[State], claim: str) -> None:
        """Release one now and then, commit the others, and come late with all of them."""
        every = [(state.id, state.rev, claim) for state in states]
        released = self.claims % RELEASE_EVERY == 0
        renewal = await self.driver.renew(every, self.owner, 0)
        assert not renewal.moved | renewal.lost, f"others had what was claimed: {renewal}"
        await self.driver.release(every[:released], self.owner, 0)
        await self._commit(states[released:], claim)
        late = await self.driver.renew(every, self.owner, 0)
        assert late.moved | late.lost == {id for id, *_ in every}, f"it was let go: {late}"
        await self.driver.release(every, self.owner, 0)

    async def _commit(self, states: list[State], commit_id: str) -> None:
        """Move these on to the next flow, and end what was at the last."""
        following: dict[str, str] = dict(pairwise(FLOWS))
        moves: list[Command[State]] = []
        for state in states:
            flow = following.get(state.transition.to)
            moves.append(End(state) if flow is None else Transit(state, flow))
        commit = Commit(*moves)
        if moves:
            await self.driver.commit(
                plan(commit, commit_id=commit_id, now=0, policy=RetryPolicy(), place_of=ready)
            )


async def main(url: str, owner: str) -> None:
    """Claim, once all others are there."""
    async with connect(url) as driver:
        print("open", flush=True)  # noqa: T201  (its parent reads it)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        await Claimer(driver, owner).work()


if __name__ == "__main__":
    _, url, owner = sys.argv
    anyio.run(main, url, owner)
