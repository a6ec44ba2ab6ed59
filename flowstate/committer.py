"""The committer: whatever an engine writes is decided and written here.

It plans a commit (``transitions``), holds it against the engine's limits, has the driver store it,
and asks again where the answer was lost. It runs nothing.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any, TypeAlias, TypeVar

from attrs import Factory, define, field
from msgspec.structs import replace

from . import transitions
from .clock import Clock
from .codec import encode_state
from .commands import Commit, Require
from .data import DataRef, checksum
from .driver import Driver
from .errors import (
    CommitIdReusedError,
    EngineClosedError,
    InvalidValueError,
    StateNotFoundError,
    StoreCorruptError,
    StoreError,
    TooLargeError,
    UnknownOutcomeError,
)
from .keys import is_same, key_of
from .leases import Due, Place, ready
from .payloads import PayloadCache
from .plan import CommitKey, Plan, Record, RecordedError
from .state import KERNEL_PREFIX, RetryPolicy, State
from .transitions import Failure, PlaceOf

T = TypeVar("T")

COMMIT_RETRIES = 5
"""How often a plan is committed again whose outcome is unknown."""
COMMIT_BACKOFF_MS = 50
"""The wait before the first of them; it doubles."""
MAX_CACHED = 16 << 20
"""Bytes of payloads that an engine need not read again."""


Listener: TypeAlias = Callable[[Plan, tuple[State, ...]], None]


def new_prefix() -> str:
    """What makes the commit ids of one engine its own."""
    return os.urandom(8).hex()


def new_owner() -> str:
    """What an engine is called, as an owner of what it runs: where it is, and which it is there."""
    return f"{socket.gethostname()}/{os.getpid()}/{os.urandom(4).hex()}"


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
    owner: str = ""
    """What this engine is called as the owner of what it runs."""
    is_open: bool = field(default=False, init=False)
    listeners: list[Listener] = field(factory=list[Listener], init=False)
    """Called with each plan that was stored and its versions, before whoever commits goes on. May
    not raise."""
    payloads: PayloadCache = field(
        default=Factory(lambda self: PayloadCache(self.clock, MAX_CACHED), takes_self=True),
        init=False,
    )
    _numbers: Iterator[int] = field(factory=lambda: count(1), init=False)
    """What tells its commits apart."""

    def check_open(self) -> None:
        if not self.is_open:
            raise EngineClosedError("the engine is not open; use it inside `async with Engine(…)`")

    async def commit(self, commit: Commit, key: CommitKey | None = None) -> tuple[State, ...]:
        """Store what a ``Commit`` writes, all that it leaves RUNNING as ready, and give the state
        of each command."""
        return outcome(commit, await self.store(self.plan(commit, key=key)))

    async def once(
        self,
        commit: Commit,
        commit_id: object,
        store: Callable[[CommitKey], Awaitable[T]],
        again: Callable[[tuple[State, ...]], Awaitable[T]],
    ) -> T:
        """Have a commit stored, by *store*, unless one with the same id was before; then *again*
        goes on with its outcome.

        The id is looked up before the commit is planned: what was legal the first time may not be
        legal now. It is looked up once more where the commit is stored, for somebody else may do
        the same now.
        """
        key = key_of(commit, commit_id)
        record = await self.driver.record(key.id)
        if record is None:
            try:
                return await store(key)
            except RecordedError as known:
                if known.id != key.id:
                    raise
                record = known.record
        return await again(await self._recall(commit, key, record))

    async def _recall(self, commit: Commit, key: CommitKey, record: Record) -> tuple[State, ...]:
        """The outcome of a commit, as it is stored: the versions that it wrote. In place of one
        that compaction has removed comes the current version of its state."""
        rev = record.first_rev
        if not is_same(key.digest, record.digest):
            raise CommitIdReusedError(key.id, rev)
        written: list[State] = []
        commands: tuple[Any, ...] = commit.commands
        for command in commands:
            if type(command) is Require:
                continue
            id: str = command.state.id
            state = await self.driver.get(id, rev) or await self.driver.get(id)
            if state is None:
                raise StateNotFoundError(
                    f"state {id!r} any more: it was stored at revision {rev} by the commit with "
                    f"commit_id {key.id!r}, and compaction has removed it since"
                )
            written.append(state)
            rev += 1
        return outcome(commit, tuple(written))

    def plan(
        self,
        commit: Commit,
        place_of: PlaceOf = ready,
        key: CommitKey | None = None,
        *,
        is_internal: bool = False,
    ) -> Plan:
        """What a ``Commit`` writes. Only the kernel may write its own states."""
        commit_id = f"{self.prefix}-{next(self._numbers)}"  # new_id, without the call
        plan = transitions.plan(commit, commit_id, self.clock.now(), self.policy, place_of)
        if not is_internal:
            limit = self.max_state_size
            for write in plan.writes:
                state = write.state
                if state.id.startswith(KERNEL_PREFIX):
                    raise _kernels_own(state)
                if (size := len(encode_state(state))) > limit:
                    raise TooLargeError(f"state {state.id!r}", size, limit, "max_state_size")
            if plan.payloads:
                _check_payloads(plan, self.max_data_size)
        return plan if key is None else replace(plan, key=key)

    def plan_failure(self, state: State, failure: Failure, policy: RetryPolicy) -> Plan | None:
        """What is written for a state whose flow raised (``transitions.after_error``); None if it
        is to be left alone."""
        moved = transitions.after_error(state, failure, self.clock.now(), policy, self.chance())
        return None if moved is None else self._plan_state(moved, policy, ready)

    def plan_firing(self, due: Due, place_of: PlaceOf | None = None) -> Plan | None:
        """What is written for a state that is due (``transitions.fire``); None if it is to be left
        alone. It goes on by the policy of the engine which committed it. What it leaves RUNNING is
        ready since the alarm that it is for, if nothing else is said."""
        # it was due when that was asked: a clock that was set back since makes no death of an alarm
        now = max(self.clock.now(), due.at)
        policy = due.policy or self.policy  # what flowstate 0.1 committed has none beside it
        fired = transitions.fire(due.state, now, policy, self.chance())
        if fired is None:
            return None
        if place_of is None:
            alarm = transitions.alarm_that_came(due.state.transition, now)
            place_of = ready if alarm is None else _ready_since(alarm.at)
        return self._plan_state(fired, policy, place_of)

    def plan_ready(self, state: State) -> Plan:
        """What is written for a state as a flow left it in memory, for others to go on with."""
        return self._plan_state(state, self.policy, ready)

    def taken(self, state: State, now: int, lease: int) -> Place:  # noqa: ARG002  (a ``PlaceOf``)
        """Taken by this engine."""
        return Place(None, self.owner, "", now + lease if lease else None)

    async def store(self, plan: Plan) -> tuple[State, ...]:
        """Have a plan stored and tell the listeners; gives the versions. A plan that is stored
        already gives its first outcome."""
        if not self.is_open:
            self.check_open()
        try:
            written = await self.driver.commit(plan)
        except UnknownOutcomeError as lost:
            written = await self._ask_again(plan, lost)
        if plan.payloads:
            for checksum, content in plan.payloads.items():
                self.payloads.put(written[0].rev, checksum, content)
        for listener in self.listeners:
            listener(plan, written)
        return written

    # ------------------------------------------------------------ inside

    def _plan_state(self, state: State, policy: RetryPolicy, place_of: PlaceOf) -> Plan:
        return transitions.plan_state(state, self.new_id(), self.clock.now(), policy, place_of)

    def new_id(self) -> str:
        """An id for a commit or a claim of this engine's."""
        return f"{self.prefix}-{next(self._numbers)}"

    async def load(self, ref: DataRef) -> bytes:
        """A stored payload, checked against its checksum once. Raises ``DataNotFoundError``, or
        ``StoreCorruptError`` if it is not what was stored."""
        content = self.payloads.get(ref)
        if content is None:
            forgettings = self.payloads.forgettings
            content = await self.driver.load(ref)
            if checksum(content) != ref.checksum:
                raise StoreCorruptError(
                    f"payload {ref.checksum} stored at revision {ref.rev}",
                    "does not match its checksum",
                )
            if forgettings == self.payloads.forgettings:
                self.payloads.put(ref.rev, ref.checksum, content)
        return content

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


def _ready_since(instant: int) -> PlaceOf:
    return lambda _state, _now, _lease: Place(instant)


def outcome(commit: Commit, written: tuple[State, ...]) -> tuple[State, ...]:
    """The state of each command: what was written, and what was only required as it was given."""
    if len(written) == len(commit.commands):
        return written
    versions = iter(written)
    return tuple(
        command.state if isinstance(command, Require) else next(versions)
        for command in commit.commands
    )


def _kernels_own(state: State) -> InvalidValueError:
    return InvalidValueError(
        f"state id {state.id!r}",
        f"begins with {KERNEL_PREFIX!r}, as the kernel's own states do; choose another",
    )


def _check_payloads(plan: Plan, limit: int) -> None:
    for write in plan.writes:
        for name, ref in write.state.data.items():
            if isinstance(ref, DataRef) and not ref.rev and ref.size > limit:
                where = f"data {name!r} of state {write.state.id!r}"
                raise TooLargeError(where, ref.size, limit, "max_data_size")
    for content in plan.payloads.values():  # those of stacked states
        if len(content) > limit:
            raise TooLargeError("data of a stacked state", len(content), limit, "max_data_size")
