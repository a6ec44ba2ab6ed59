"""The committer: whatever an engine writes is decided and written here.

It plans a commit (``transitions``), holds it against the engine's limits, has the driver store it,
and asks again where the answer was lost. It runs nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from itertools import count

from attrs import define, field

from . import transitions
from .clock import Clock
from .codec import encode_state
from .commands import Commit, Require
from .data import DataRef
from .driver import Driver
from .errors import EngineClosedError, StoreError, TooLargeError, UnknownOutcomeError
from .leases import Due
from .plan import Plan
from .state import RetryPolicy, State

COMMIT_RETRIES = 5
"""How often a plan is committed again whose outcome is unknown."""
COMMIT_BACKOFF_MS = 50
"""The wait before the first of them; it doubles."""


def new_prefix() -> str:
    """What makes the commit ids of one engine its own."""
    return os.urandom(8).hex()


@define(eq=False)
class Committer:
    """Commits for one engine, while it is open.

    ``policy`` is that of states without their own. ``max_state_size`` and ``max_data_size`` are in
    bytes, encoded.
    """

    driver: Driver
    clock: Clock
    policy: RetryPolicy
    max_state_size: int
    max_data_size: int
    chance: Callable[[], float] = random.random
    """Gives a number from 0 to 1: what spreads the retries of states that failed together."""
    prefix: str = field(factory=new_prefix)
    """What makes its commit ids its own."""
    is_open: bool = field(default=False, init=False)
    listeners: list[Callable[[tuple[State, ...]], None]] = field(
        factory=list[Callable[[tuple[State, ...]], None]], init=False
    )
    """Called with the versions of each commit, before whoever commits goes on. May not raise."""
    _numbers: Iterator[int] = field(factory=lambda: count(1), init=False)
    """What tells its commits apart."""

    def check_open(self) -> None:
        if not self.is_open:
            raise EngineClosedError("the engine is not open; use it inside `async with Engine(…)`")

    def commit(self, commit: Commit) -> Awaitable[tuple[State, ...]]:
        """Decides what a ``Commit`` writes, at once; writes it when awaited."""
        commit_id = f"{self.prefix}-{next(self._numbers)}"
        plan = transitions.plan(
            commit, commit_id=commit_id, now=self.clock.now(), policy=self.policy
        )
        return self._store(plan) if not plan.requires else self._store_some(plan, commit)

    async def commit_retry(self, state: State, error: str) -> None:
        """Commit what ``transitions.retry`` makes of a state whose flow raised."""
        retried = transitions.retry(state, error, self.clock.now(), self.policy, self.chance())
        if retried is not None:
            await self._commit_state(retried)

    async def fire(self, due: Due) -> State | None:
        """Commit what ``transitions.fire`` makes of a state that is due, and give it; None if it is
        to be left alone."""
        fired = transitions.fire(
            due.state, self.clock.now(), self.policy, is_released=due.is_released
        )
        return None if fired is None else await self._commit_state(fired)

    # ------------------------------------------------------------ inside

    async def _commit_state(self, state: State) -> State:
        commit_id = f"{self.prefix}-{next(self._numbers)}"
        plan = transitions.plan_state(
            state, commit_id=commit_id, now=self.clock.now(), policy=self.policy
        )
        (committed,) = await self._store(plan)
        return committed

    async def _store(self, plan: Plan) -> tuple[State, ...]:
        """Commit a plan and tell the listeners."""
        if not self.is_open:
            self.check_open()
        for write in plan.writes:
            size = len(encode_state(write.state))
            if size > self.max_state_size:
                where = f"state {write.state.id!r}"
                raise TooLargeError(where, size, self.max_state_size, "max_state_size")
        if plan.payloads:
            _check_payloads(plan, self.max_data_size)
        try:
            written = await self.driver.commit(plan)
        except UnknownOutcomeError as lost:
            written = await self._ask_again(plan, lost)
        for listener in self.listeners:
            listener(written)
        return written

    async def _store_some(self, plan: Plan, commit: Commit) -> tuple[State, ...]:
        """Commit a plan that only requires some of its states; they are given back as they are."""
        written = iter(await self._store(plan))
        return tuple(
            command.state if isinstance(command, Require) else next(written)
            for command in commit.commands
        )

    async def _ask_again(self, plan: Plan, lost: UnknownOutcomeError) -> tuple[State, ...]:
        """Commit a plan again whose outcome is unknown: the same commit id, so never twice."""
        for attempt in range(COMMIT_RETRIES):
            await self.clock.wait_until(self.clock.now() + COMMIT_BACKOFF_MS * 2**attempt)
            try:
                return await self.driver.commit(plan)
            except UnknownOutcomeError as again:
                lost = again
            except StoreError:
                continue  # this try wrote nothing; what the one before did is as unknown as it was
        raise lost


def _check_payloads(plan: Plan, limit: int) -> None:
    for write in plan.writes:
        for name, ref in write.state.data.items():
            if isinstance(ref, DataRef) and not ref.rev and ref.size > limit:
                where = f"data {name!r} of state {write.state.id!r}"
                raise TooLargeError(where, ref.size, limit, "max_data_size")
    for content in plan.payloads.values():  # those of stacked states
        if len(content) > limit:
            raise TooLargeError("data of a stacked state", len(content), limit, "max_data_size")
