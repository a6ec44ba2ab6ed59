"""The engine: what users call. It does commands, has flows executed, and reads.

What is committed goes through ``committer.py``; how a flow is run is in ``executor.py``, and in the
background in ``background.py``. What recovery needs is ``Engine.timers``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, cast, overload

import anyio
from attrs import define, field
from msgspec.structs import replace

from . import clock, codec
from .background import Background
from .checks import check_flag, check_name, check_rev, check_whole
from .clock import Clock, SystemClock
from .commands import Command, Commit, Execute, Noop, Require
from .committer import Committer, new_owner, new_prefix
from .compaction import CompactionRun
from .data import JSON, Data
from .driver import Driver
from .errors import (
    CompactedError,
    DataNotFoundError,
    DecodeError,
    EngineClosedError,
    InvalidValueError,
    StateNotFoundError,
    shown,
)
from .executions import runs_flow
from .flow import Flow
from .flows import Flows
from .forgetting import Forgotten, payloads_of
from .holds import Holds
from .leases import check_owner, owner_in
from .leaving import Leaving
from .query import Labels, Page, Query
from .retention import Retention
from .state import RetryPolicy, State, Status, check_id
from .timers import Timers
from .transitions import MOVES
from .watch import Current, Tail, Versions, Watcher

if TYPE_CHECKING:
    from typing_extensions import TypeForm

SLICE_MS = 10_000
"""How long ``sleep_until`` sleeps at a time, for the clock may have been wrong when it began."""

R = TypeVar("R")
T = TypeVar("T")
Until: TypeAlias = Status | Collection[Status] | Callable[[State], bool]


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
    commit_prefix: str = field(factory=new_prefix, kw_only=True, repr=False)
    """What makes this engine's commit ids its own."""
    owner: str = field(factory=new_owner, kw_only=True, repr=False)
    """What this engine is called as the owner of what it runs: no two may have the same name."""

    threads: anyio.CapacityLimiter = field(init=False, repr=False)
    """Bounds the worker threads; the flows use it."""
    timers: Timers = field(init=False, repr=False)
    """What is due, and acting on it: for recovery, and for tools."""
    _committer: Committer = field(init=False, repr=False)
    _background: Background = field(init=False, repr=False)
    _tail: Tail = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_whole("Engine.max_background", self.max_background, 1)
        check_whole("Engine.max_threads", self.max_threads, 1)
        check_owner("Engine.owner", self.owner)
        self._committer = Committer(
            self.driver,
            self.clock,
            self.retry,
            self.max_state_size,
            self.max_data_size,
            self.chance,
            self.commit_prefix,
        )

    async def __aenter__(self) -> Self:
        if self._committer.is_open:
            raise EngineClosedError("the engine is already open; make another one")
        self.threads = anyio.CapacityLimiter(self.max_threads)
        self._committer.owner = owner_in(self.owner, self.driver.session)
        self._background = Background(self._committer, self.flows, self, self.max_background)
        await self._background.open()
        executor = self._background.executor
        self._tail = Tail(self.driver, self._committer.listeners, executor.noticed)
        self.timers = Timers(self._committer, self._background)
        self._committer.is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take no more work, let running flows finish for ``grace`` seconds, cancel the rest and
        release their leases, so that another engine can go on with them at once."""
        try:
            await self._background.close(self.grace)
        finally:
            self._committer.is_open = False

    # ------------------------------------------------------------ doing

    async def do(self, command: Command[R], *, commit_id: str | None = None) -> R:
        """Do a command and give what it gives. Records; does not run flows (but ``Execute``).

        What a commit leaves RUNNING is ready then, for whoever works; only a flow that moves its
        own state keeps it. A bare command that moves or saves a state is done in memory only: its
        state is stored by the commit that carries it. Raises ``IllegalTransitionError``,
        ``InvalidValueError``, ``RevMismatchError`` or ``StoreError``; nothing has changed then.

        With a ``commit_id``, an id of the caller's own, a ``Commit`` can be done again: it gives
        what was stored the first time, whatever has become of its states, until compaction forgets
        the id (``compact``). In place of a version that compaction has removed it gives the current
        one, and if there is none raises ``StateNotFoundError``. Raises ``CommitIdReusedError`` if
        the commit is not the same: other commands, states or flows, or new states that hold
        something else. Revisions and times do not count.
        """
        kind = type(command)
        if commit_id is not None:
            commit = _check_commit(command)
            self._committer.check_open()
            commits = self._background.executor.commit
            return cast(
                "R",
                await self._committer.once(
                    commit, commit_id, lambda key: commits(commit, key), _given
                ),
            )
        move = MOVES.get(kind)
        if move is not None:
            return cast("R", move(command, self.clock.now(), self.retry))
        if kind is Commit:
            self._committer.check_open()
            return cast("R", await self._background.executor.commit(cast("Commit", command)))
        if kind is Execute:
            return cast("R", await self.start(cast("Execute", command).state))
        if kind is Noop:
            return cast("R", None)
        if kind is Require:
            raise InvalidValueError("Require", "is only for inside a Commit")
        raise InvalidValueError("command", f"takes one of flowstate's commands, not {command!r}")

    async def execute(self, work: State | Command[Any], *, commit_id: str | None = None) -> State:
        """Run a state's flows here until it rests, and give it as it is then.

        A ``Commit`` is committed and its first state run, in one write; a bare command that moves a
        state is done in memory. What somebody else runs is waited for; of what has moved on since,
        the newest version counts. Raises what a flow raises that runs here; a state that was ever
        committed is then retried later.

        With a ``commit_id`` a ``Commit`` can be executed again, as ``do`` can: it goes on with the
        newest version of the first state.
        """
        self._committer.check_open()
        executor = self._background.executor
        if commit_id is not None:
            commit = _check_commit(work)
            return await self._committer.once(
                commit,
                commit_id,
                lambda key: executor.execute_commit(commit, key),
                executor.go_on,
            )
        if isinstance(work, Commit):
            return await executor.execute_commit(work)
        return await executor.execute(await self._to_run(work))

    async def start(self, work: State | Command[Any], *, commit_id: str | None = None) -> None:
        """The same in the background. Waits while ``max_background`` states are running."""
        self._committer.check_open()
        background = self._background
        if commit_id is not None:
            commit = _check_commit(work)
            await self._committer.once(
                commit,
                commit_id,
                lambda key: background.start_commit(commit, key),
                background.go_on,
            )
            return
        if isinstance(work, Commit):
            await background.start_commit(work)
        else:
            await background.start(await self._to_run(work))

    async def _to_run(self, work: State | Command[Any]) -> State:
        if isinstance(work, State):
            return work
        if isinstance(work, Execute):
            return work.state
        moved: object = await self.do(work)
        if not isinstance(moved, State):
            raise InvalidValueError("command", f"moves no state that could be run: {work!r}")
        return moved

    @property
    def closing(self) -> anyio.Event:
        """Set as soon as the engine begins to be left. ``watch``, ``wait`` and ``sleep_until``
        inside flows raise ``EngineClosedError`` then, which gives the flow's state back without
        an attempt."""
        self._committer.check_open()
        return self._leaving.event

    async def sleep_until(self, at: datetime | int) -> None:
        """Return at that time: an aware datetime, or milliseconds since the epoch. For short waits
        of a flow; a ``Delay`` is one that needs no process."""
        self._committer.check_open()
        instant = clock.instant("sleep_until", at)
        with self._leaving.ends_this() if runs_flow() else nullcontext():
            while (now := self.clock.now()) < instant:
                await self.clock.wait_until(min(instant, now + SLICE_MS))

    async def hold(self, flow: str | Flow, reason: str = "") -> None:
        """Have no worker of the store begin with states at this flow, until it is released. What
        runs already goes on to its next commit; what comes to the flow is ready, and waits. All
        know it within milliseconds. Held already, it has another reason then."""
        self._committer.check_open()
        await Holds(self._committer).hold(flow, reason)

    async def release(self, flow: str | Flow) -> None:
        """Have workers begin with a flow that was held again; one that is not is no error."""
        self._committer.check_open()
        await Holds(self._committer).release(flow)

    async def held(self) -> Mapping[str, str]:
        """The flows that are held, each with the reason."""
        return await Holds(self._committer).read()

    async def idle(self) -> None:
        """Return once nothing is running here, in the foreground or the background."""
        self._committer.check_open()
        await self._background.idle()

    @property
    def _leaving(self) -> Leaving:
        return self._background.executor.leaving

    # ------------------------------------------------------------ reading

    async def get(self, id: str, rev: int | None = None) -> State:
        """The latest version of a state, or exactly that one. Raises ``StateNotFoundError``."""
        state = await self.peek(id, rev)
        if state is None:
            raise StateNotFoundError(
                f"state {id!r}" if rev is None else f"revision {rev} of state {id!r}"
            )
        return state

    async def peek(self, id: str, rev: int | None = None) -> State | None:
        """The same; None if there is none."""
        return await self.driver.get(check_id(id), None if rev is None else check_rev("rev", rev))

    async def find(self, query: Query | Labels) -> State:
        """The newest state whose current version matches. Raises ``StateNotFoundError``."""
        wanted = _query(query)
        state = await self.driver.find(wanted)
        if state is None:
            raise StateNotFoundError(f"state matches {wanted!r}")
        return state

    def states(
        self,
        query: Query | Labels | None = None,
        *,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Versions:
        """The versions that match, in revision order or the newest first, as an async iterator that
        ends, after *limit* of them at the latest.

        With ``Query(latest=True)`` the current version of each state: every state that matched when
        reading began and still does, once. What moves while it is being listed may come last.
        """
        wanted = _query(query)
        check_flag("newest_first", newest_first)
        if limit is not None:
            check_whole("limit", limit)
        kind = Current if wanted.latest else Versions
        return kind(self.driver, wanted, newest_first=newest_first, limit=limit)

    async def page(
        self,
        query: Query | Labels | None = None,
        after: int | None = None,
        limit: int = 100,
        *,
        newest_first: bool = False,
    ) -> Page:
        """As many of the versions that match as fit on a page, or all that there are; the next page
        is the one after ``page.upto``.

        With *newest_first* pages go down, from the head on or from below *after*. A page of current
        versions (``latest``) is of its own moment: what moves between two pages is on none of them
        or on both; ``states`` misses none, and ``watch`` goes on.
        """
        start = None if after is None else check_rev("after", after)
        check_whole("limit", limit, 1, "a number of versions")
        check_flag("newest_first", newest_first)
        versions = Versions(
            self.driver, _query(query), newest_first=newest_first, limit=limit, start=start
        )
        return await versions.page()

    async def count(
        self, query: Query | Labels | None = None, by: Literal["status", "flow"] = "status"
    ) -> Mapping[str, int]:
        """How many states there are whose current versions match, by the values of their statuses
        or the names of their flows; what has ended is at none, the flow ``""``."""
        if by not in ("status", "flow"):
            raise InvalidValueError("by", f"takes 'status' or 'flow', not {shown(by)}")
        return await self.driver.count(_query(query), by)

    def watch(self, query: Query | Labels | None = None, *, after: int | None = None) -> Watcher:
        """The versions that match, as an async iterator that goes on with those to come.

        *after* is a resume token (``watcher.rev``): everything up to it was seen. It overrides
        where the query says to start.
        """
        self._committer.check_open()
        wanted = _query(query)
        if after is not None:
            wanted = replace(wanted, after=check_rev("after", after), from_now=False, latest=False)
        if not runs_flow():
            return Watcher(self.driver, wanted, tail=self._tail)
        return Watcher(self.driver, wanted, tail=self._tail, waiting=self._leaving.ends_this)

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
                seen = state.rev
                after = await self.driver.head()
                state = await self.get(id)
                if state.rev != seen and not is_wanted(state):
                    raise  # what it was in between nobody knows
        return state

    @overload
    async def data(self, state: State, name: str) -> Any: ...
    @overload
    async def data(self, state: State, name: str, type: TypeForm[T]) -> T: ...

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
            content = await self._committer.load(payload)
        is_json = payload.content_type == JSON or payload.content_type.endswith("+json")
        if type is bytes or (type is Any and not is_json):
            return content
        if not is_json:
            problem = f"is {payload.content_type}, not JSON; ask for type=bytes"
            raise DecodeError(where, problem)
        return codec.decode(content, type, where)

    async def forget(self, id: str, *names: str) -> Forgotten:
        """Remove the content of these data of a state, in every version of it, also inside what is
        stacked in them, and also if it has ended.

        Its versions and their references stay, with sizes and checksums, and no new version is
        made; ``data`` raises ``DataForgottenError`` from then on. A payload that other states refer
        to is gone for them too: what is given tells how many that are. Another process may give
        it for a minute from what it remembers. Raises ``StateNotFoundError``, ``DataNotFoundError``
        for a name that no version has, and then forgets nothing.
        """
        self._committer.check_open()
        wanted = [check_name("forget", name) for name in names]
        if not wanted:
            raise InvalidValueError("forget", "takes the names of the data to forget")
        await self.get(id)
        payloads = await payloads_of(self.driver, check_id(id), wanted)
        try:
            states = await self.driver.forget(id, payloads)
        finally:  # who was cancelled, or lost the connection, may have forgotten them all the same
            self._committer.payloads.forget(payloads)
        return Forgotten(len(payloads), states)

    def compact(  # noqa: PLR0913  (each is told for itself, by its name)
        self,
        before: datetime | timedelta | float,
        keep: int = 1,
        *,
        ended: bool = False,
        failed: bool = False,
        commit_ids: datetime | timedelta | float = timedelta(days=7),
        dry_run: bool = False,
    ) -> CompactionRun:
        """Remove history, as an async iterator that does a batch at a time and gives what it has
        come to.

        Superseded versions go that were committed before *before*: a time, or an age (seconds or
        timedelta). The *keep* newest versions of each state stay whatever their age. With *ended*,
        states that had ended before go whole, and with *failed* those that had failed: their ids
        are free again. Payloads go with the last version that refers to them. The ``commit_id`` of
        a commit is forgotten once that is older than *commit_ids*, and by nothing else. With
        *dry_run* all is only counted.
        """
        self._committer.check_open()
        retention = Retention(self._instant("before", before), keep, ended, failed)
        forget_before = self._instant("commit_ids", commit_ids)
        return CompactionRun(self.driver, self.clock, retention, forget_before, dry_run=dry_run)

    def _instant(self, name: str, time: datetime | timedelta | float) -> int:
        """A time, or an age, in ms since the epoch."""
        if isinstance(time, datetime):
            return clock.instant(name, time)
        return max(0, self.clock.now() - clock.milliseconds(clock.seconds(name, time)))


def _check_commit(work: object) -> Commit:
    if not isinstance(work, Commit):
        raise InvalidValueError(
            "commit_id", f"is only for a Commit, for nothing else is stored; not {shown(work)}"
        )
    return work


async def _given(states: tuple[State, ...]) -> tuple[State, ...]:
    return states


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
