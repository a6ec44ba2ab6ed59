"""The engine: decides with ``transitions``, acts through a driver, reads, and has flows executed.

``do`` records; ``execute`` and ``start`` run. How a flow is run is in ``executor.py``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, cast, overload

import anyio
from attrs import define, field
from msgspec.structs import replace

from . import clock, codec, transitions
from .clock import Clock, SystemClock
from .codec import encode_state
from .commands import Command, Commit, Execute, Noop, Require
from .compaction import CompactionRun
from .data import JSON, Data, DataRef, checksum
from .driver import Driver, Due, Labels, Plan, Query, Retention, check_rev, instant_of
from .errors import (
    CompactedError,
    DataNotFoundError,
    DecodeError,
    EngineClosedError,
    InvalidValueError,
    StateNotFoundError,
    StoreCorruptError,
    StoreError,
    TooLargeError,
    UnknownOutcomeError,
)
from .executor import Executor
from .flows import Flows
from .state import RetryPolicy, State, Status, check_id
from .watch import Tail, Versions, Watcher

R = TypeVar("R")
T = TypeVar("T")
Until: TypeAlias = Status | Collection[Status] | Callable[[State], bool]

COMMIT_RETRIES = 5
"""How often a plan is committed again whose outcome is unknown."""
COMMIT_BACKOFF_MS = 50
"""The wait before the first of them; it doubles."""


@define(eq=False)
class Engine:
    """Executes commands against a driver and runs flows. Open while inside ``async with``.

    ``retry`` is the policy of states without their own. ``max_background`` bounds the executions
    in the background, ``max_threads`` the worker threads of plain ``def`` flows. ``grace`` is how
    many seconds running flows get to finish when the engine is left. ``max_state_size`` and
    ``max_data_size`` are in bytes, encoded.
    """

    driver: Driver
    flows: Flows = field(factory=Flows)
    retry: RetryPolicy = field(factory=RetryPolicy, kw_only=True)
    clock: Clock = field(factory=SystemClock, kw_only=True)
    max_background: int = field(default=1_000, kw_only=True)
    max_threads: int = field(default=40, kw_only=True)
    grace: float = field(default=10.0, kw_only=True)
    max_state_size: int = field(default=1 << 20, kw_only=True)
    max_data_size: int = field(default=16 << 20, kw_only=True)
    chance: Callable[[], float] = field(default=random.random, kw_only=True, repr=False)
    """Gives a number from 0 to 1: what spreads the retries of states that failed together."""
    commit_prefix: str = field(factory=lambda: os.urandom(8).hex(), kw_only=True, repr=False)
    """What makes this engine's commit ids its own."""

    threads: anyio.CapacityLimiter = field(init=False, repr=False)
    """Bounds the worker threads; the flows use it."""
    _executor: Executor = field(init=False, repr=False)
    _tail: Tail = field(init=False, repr=False)
    _is_open: bool = field(default=False, init=False)
    _commits: int = field(default=0, init=False)

    async def __aenter__(self) -> Self:
        if self._is_open:
            raise EngineClosedError("the engine is already open; make another one")
        self.threads = anyio.CapacityLimiter(self.max_threads)
        self._tail = Tail(self.driver)
        self._executor = Executor(self, self.max_background)
        await self._executor.open()
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take no more work, let running flows finish for ``grace`` seconds, cancel the rest and
        give up their leases, so that another engine can go on with them at once."""
        try:
            await self._executor.close(self.grace)
        finally:
            self._is_open = False

    # ------------------------------------------------------------ doing

    async def do(self, command: Command[R]) -> R:
        """Do a command and give what it gives. Records; does not run flows (but ``Execute``).

        A bare ``Transit``, ``Pause``, ``Resume``, ``Delay`` or ``End`` is done in memory only: its
        state is stored by the commit that carries it. Raises ``IllegalTransitionError``,
        ``InvalidValueError``, ``RevMismatchError`` or ``StoreError``; nothing has changed then.
        """
        kind = type(command)
        move = transitions.MOVES.get(kind)
        if move is not None:
            return cast("R", move(command, self.clock.now()))
        if kind is Commit:
            return cast("R", await self.commit(cast("Commit", command)))
        if kind is Execute:
            return cast("R", await self.start(cast("Execute", command).state))
        if kind is Noop:
            return cast("R", None)
        if kind is Require:
            raise InvalidValueError("Require", "is only for inside a Commit")
        raise InvalidValueError("command", f"takes one of flowstate's commands, not {command!r}")

    def commit(self, commit: Commit) -> Awaitable[tuple[State, ...]]:
        """What ``do`` does with a ``Commit``: decides at once, acts when awaited."""
        plan = transitions.plan(
            commit, commit_id=self._commit_id(), now=self.clock.now(), policy=self.retry
        )
        return self._store(plan) if not plan.requires else self._store_some(plan, commit)

    async def commit_retry(self, state: State, error: str) -> None:
        """Commit what ``transitions.retry`` makes of a state whose flow raised."""
        retried = transitions.retry(state, error, self.clock.now(), self.retry, self.chance())
        if retried is not None:
            await self._commit_state(retried)

    async def fire(self, due: Due) -> State | None:
        """Commit what has become of a state that is due, and give it; None if nothing has.

        Its alarm fires, or its lease has run out or was given up. Raises ``RevMismatchError`` if
        it has moved on.
        """
        fired = transitions.fire(
            due.state, self.clock.now(), self.retry, is_released=due.is_released
        )
        return None if fired is None else await self._commit_state(fired)

    async def execute(self, state: State) -> State:
        """Run the state's flows until it rests, and give it as it is then.

        If someone else moves it meanwhile, this ends quietly and gives the newest version. Raises
        what its flow raises; a state that was ever committed is then retried later.
        """
        self._check_open()
        return await self._executor.execute(state)

    async def start(self, state: State) -> None:
        """Run the state in the background. Waits while ``max_background`` states are running."""
        self._check_open()
        await self._executor.start(state)

    def executing(self) -> list[State]:
        """The states that are being executed here, as they were last committed."""
        return self._executor.executing()

    async def idle(self) -> None:
        """Return once nothing is running here, in the foreground or the background."""
        self._check_open()
        await self._executor.idle()

    # ------------------------------------------------------------ reading

    async def get(self, id: str, rev: int | None = None) -> State:
        """The latest version of a state, or exactly that one. Raises ``StateNotFoundError``."""
        check_id(id)
        if rev is not None:
            check_rev("rev", rev)
        state = await self.driver.get(id, rev)
        if state is None:
            raise StateNotFoundError(
                f"state {id!r}" if rev is None else f"revision {rev} of state {id!r}"
            )
        return state

    async def find(self, query: Query | Labels) -> State:
        """The newest state whose current version matches. Raises ``StateNotFoundError``."""
        wanted = _query(query)
        state = await self.driver.find(wanted)
        if state is None:
            raise StateNotFoundError(f"state matches {wanted!r}")
        return state

    def states(self, query: Query | Labels | None = None) -> Versions:
        """The versions that match, in revision order, as an async iterator that ends.

        With ``Query(latest=True)`` the current version of each state; one that moves while it is
        being listed may be left out (``watch`` misses none).
        """
        return Versions(self.driver, _query(query))

    def watch(self, query: Query | Labels | None = None, *, after: int | None = None) -> Watcher:
        """The versions that match, as an async iterator that goes on with those to come.

        *after* is a resume token (``watcher.rev``): everything up to it was seen. It overrides
        where the query says to start.
        """
        self._check_open()
        wanted = _query(query)
        if after is not None:
            check_rev("after", after)
            wanted = replace(wanted, after=after, from_now=False, latest=False)
        return Watcher(self.driver, wanted, tail=self._tail)

    async def wait(self, id: str, until: Until | None = None) -> State:
        """The first version from now on that is as wanted; the current one counts.

        *until* is a status, several of them, or a function of the state; by default: it rests
        (is not RUNNING). Raises ``StateNotFoundError`` if there is no such state now. That its
        history was compacted is no error, unless it moved and versions of it went before they
        could be looked at: then ``CompactedError``.
        """
        is_wanted = _predicate(until)
        state = await self.get(id)
        after = state.rev
        while not is_wanted(state):
            try:
                async for state in self.watch(Query(id=id), after=after):
                    if is_wanted(state):
                        break
            except CompactedError:
                known = state.rev
                after = await self.driver.head()
                state = await self.get(id)
                if state.rev != known and not is_wanted(state):
                    raise  # what it was in between nobody knows
        return state

    @overload
    async def data(self, state: State, name: str) -> Any: ...
    @overload
    async def data(self, state: State, name: str, type: type[T]) -> T: ...

    async def data(self, state: State, name: str, type: Any = Any) -> Any:
        """The payload *name* of a state: JSON decoded as *type*, anything else as bytes.

        ``type=bytes`` gives any payload as it is stored. Raises ``DataNotFoundError``,
        ``DecodeError`` if it is not of that type, ``StoreCorruptError`` if it is not what was
        stored.
        """
        payload = state.data.get(name)
        where = f"data {name!r} of state {state.id!r}"
        if payload is None:
            has = ", ".join(map(repr, state.data)) or "none"
            raise DataNotFoundError(f"{where} (it has: {has})")
        if isinstance(payload, Data):
            content = payload.content
        else:
            content = await self.driver.load(payload)
            if checksum(content) != payload.checksum:
                raise StoreCorruptError(where, "the payload does not match its checksum")
        is_json = payload.content_type == JSON or payload.content_type.endswith("+json")
        if type is bytes or (type is Any and not is_json):
            return content
        if not is_json:
            problem = f"is {payload.content_type}, not JSON; ask for type=bytes"
            raise DecodeError(where, problem)
        return codec.decode(content, type, where)

    async def due(self, flows: Collection[str], limit: int) -> tuple[Due, ...]:
        """The states that are due now for one of these flows, soonest first."""
        return await self.driver.due(self.clock.now(), flows, limit)

    async def next_due(self, flows: Collection[str]) -> int | None:
        """When the next state is due for one of these flows (ms); None if none will ever be."""
        due = await self.driver.next_due(flows)
        return None if due is None else instant_of(due)

    async def due_flows(self) -> tuple[str, ...]:
        """The flows, also of other processes, for which states are or will be due, by name."""
        return await self.driver.due_flows()

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        """Move the due times of these (id, rev); gives the ids that have moved on."""
        return await self.driver.renew(leases, until)

    def compact(
        self,
        before: datetime | timedelta | float,
        keep: int = 1,
        *,
        ended: bool = False,
        dry_run: bool = False,
    ) -> CompactionRun:
        """Remove history, as an async iterator that does a batch at a time and gives what it has
        come to.

        Superseded versions go that were committed before *before*: a time, or an age (seconds or
        timedelta). The *keep* newest versions of each state stay whatever their age. With *ended*,
        states that had ended before go whole: their ids are free again. Payloads go with the last
        version that refers to them. With *dry_run* all is only counted.
        """
        self._check_open()
        if isinstance(before, datetime):
            instant = clock.instant("before", before)
        else:
            age = clock.milliseconds(clock.seconds("before", before))
            instant = max(0, self.clock.now() - age)
        retention = Retention(instant, keep, ended)
        return CompactionRun(self.driver, self.clock, retention, dry_run=dry_run)

    async def head(self) -> int:
        """The newest revision."""
        return await self.driver.head()

    async def changed(self, after: int) -> None:
        """Return once there is a revision above *after*. A hint: it may return early."""
        await self.driver.wait(after)

    # ------------------------------------------------------------ inside

    async def _commit_state(self, state: State) -> State:
        plan = transitions.plan_state(
            state, commit_id=self._commit_id(), now=self.clock.now(), policy=self.retry
        )
        (committed,) = await self._store(plan)
        return committed

    def _commit_id(self) -> str:
        self._commits += 1
        return f"{self.commit_prefix}-{self._commits}"

    async def _store(self, plan: Plan) -> tuple[State, ...]:
        """Commit a plan and tell the executor."""
        if not self._is_open:
            self._check_open()
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
        self._executor.moved(written)
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

    def _check_open(self) -> None:
        if not self._is_open:
            raise EngineClosedError("the engine is not open; use it inside `async with Engine(…)`")


def _check_payloads(plan: Plan, limit: int) -> None:
    for write in plan.writes:
        for name, ref in write.state.data.items():
            if isinstance(ref, DataRef) and not ref.rev and ref.size > limit:
                where = f"data {name!r} of state {write.state.id!r}"
                raise TooLargeError(where, ref.size, limit, "max_data_size")
    for content in plan.payloads.values():  # those of stacked states
        if len(content) > limit:
            raise TooLargeError("data of a stacked state", len(content), limit, "max_data_size")


def _query(query: Query | Labels | None) -> Query:
    if isinstance(query, Query):
        return query
    return Query() if query is None else Query(labels=query)


def _predicate(until: Until | None) -> Callable[[State], bool]:
    if until is None:
        return lambda state: state.transition.status is not Status.RUNNING
    if isinstance(until, Status):
        return lambda state: state.transition.status is until
    if callable(until):
        return until
    statuses = frozenset(until)
    return lambda state: state.transition.status in statuses
