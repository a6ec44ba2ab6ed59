"""Writes that an engine must know the outcome of: what it has taken, and what it moved itself.

Whatever cancels whoever waits for one of them, it is seen to its end; else nobody would know what
the engine holds. A plan is then asked for once more, which gives its first outcome: so what nobody
cancels, the most frequent by far, needs no shield. Leaving waits for those that are on their way,
and at some point no more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress

import anyio
from attrs import define, field

from .committer import Committer
from .errors import FlowstateError
from .executions import Keeper
from .leases import Claimed
from .plan import Plan
from .query import Unreadable
from .state import State

logger = logging.getLogger("flowstate")


@define(eq=False)
class Writes:
    """The writes of one engine that are seen to their end."""

    committer: Committer
    keeper: Keeper
    _scopes: set[anyio.CancelScope] = field(factory=set[anyio.CancelScope], init=False)
    """Of those that are on their way."""
    _pending: dict[str, Plan] = field(factory=dict[str, Plan], init=False)
    """commit id -> plan, of those that are being stored."""
    _answered: anyio.Event | None = field(default=None, init=False)
    """There is one only while leaving waits."""
    _unanswered: set[str] = field(factory=set[str], init=False)
    """The claims whose answers were lost."""
    _are_shielded: bool = field(default=True, init=False)

    async def store(self, plan: Plan) -> tuple[State, ...]:
        """Store a plan that takes something, or moves what was taken."""
        keeper = self.keeper
        if not self.committer.driver.attends:
            await self.committer.driver.attend()
        call = keeper.call_begins()
        self._pending[plan.commit_id] = plan
        try:
            return await self.committer.store(plan)
        except anyio.get_cancelled_exc_class():
            if self._are_shielded:
                with self.shield(), suppress(FlowstateError):  # then it wrote nothing that is known
                    await self._release_taken(await self.committer.store(plan))
            raise
        finally:
            del self._pending[plan.commit_id]
            keeper.call_ends(call)
            self._tell_if_answered()

    def is_pending(self, id: str) -> bool:
        """Whether a version of that state is being stored, and the answer is on its way."""
        return any(id == write.state.id for plan in self._pending.values() for write in plan.writes)

    async def claim(
        self, claim: str, ask: Callable[[], Awaitable[tuple[Claimed | Unreadable, ...]]]
    ) -> tuple[Claimed, ...]:
        """Have the store give this engine something to run, under this claim. *ask* asks for it,
        and gives the same when it asks again. What cannot be read is told and passed by."""
        if not self.committer.driver.attends:
            await self.committer.driver.attend()
        with self.shield():
            await self._release_unanswered()
            try:
                given = await ask()
            except Exception:
                self._unanswered.add(claim)
                raise
            except anyio.get_cancelled_exc_class():
                self._unanswered.add(claim)
                if self._are_shielded:  # asyncio's own cancellation passes every shield
                    await self._release_unanswered()
                raise
        return self._readable(given, claim)

    @contextmanager
    def shield(self) -> Generator[None]:
        """Nothing cancels what is inside, until leaving has waited long enough for it."""
        call = self.keeper.call_begins()
        with anyio.CancelScope(shield=self._are_shielded) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
                self.keeper.call_ends(call)
                self._tell_if_answered()

    async def wait(self, patience_s: float) -> None:
        """Wait for what is on its way, and after that many seconds no more: the store does not
        answer."""
        with anyio.move_on_after(patience_s, shield=True):
            while self._is_waiting:
                self._answered = anyio.Event()
                await self._answered.wait()
        self._are_shielded = False
        self.unshield()

    def unshield(self) -> None:
        """Let what is on its way be cancelled, as far as somebody has asked for that."""
        for scope in self._scopes:
            scope.shield = False

    @property
    def _is_waiting(self) -> bool:
        """Whether something is on its way."""
        return bool(self._scopes or self._pending)

    def _tell_if_answered(self) -> None:
        if self._answered is not None and not self._is_waiting:
            self._answered.set()

    async def _release_taken(self, written: tuple[State, ...]) -> None:
        """Give back what was taken and is not run: whoever took it was cancelled."""
        by_id = self.keeper.by_id
        await self.keeper.release(
            [(state.id, state.rev, "") for state in written if state.id not in by_id]
        )

    async def _release_unanswered(self) -> None:
        """Give back what claims took whose answers were lost. Raises what the store raises."""
        claims = frozenset(self._unanswered)
        if claims:
            holdings = await self.committer.driver.holdings(self.committer.owner)
            held = [each.held for each in holdings if each.place.claim in claims]
            await self.keeper.release(held)
            self._unanswered -= claims

    def _readable(self, given: tuple[Claimed | Unreadable, ...], claim: str) -> tuple[Claimed, ...]:
        claimed = tuple([each for each in given if isinstance(each, Claimed)])
        if len(claimed) < len(given):
            for each in given:
                if isinstance(each, Unreadable):
                    logger.error("%s; it is ready, and passed by", each.error())
                    self.keeper.pass_by((each.id, each.rev, claim))
        return claimed
