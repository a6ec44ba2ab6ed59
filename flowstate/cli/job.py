"""The run itself: takes lines, has their states executed, and counts how they ended.

It also works: what is ready for its flows is run, whoever made it so. It stands for election only
when something is due: a run in which nothing fails and nothing was left behind commits nothing of
flowstate's own.
"""

from __future__ import annotations

from contextlib import suppress

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from flowstate import (
    Cause,
    Commit,
    CompactedError,
    Engine,
    EngineClosedError,
    InvalidValueError,
    Query,
    RevMismatchError,
    State,
    StateNotFoundError,
    Status,
    StoreError,
    Transit,
    UnreadableVersionError,
)
from flowstate.leases import owner_in
from flowstate.recovery import Recoverer, Worker

from .lines import Line, LineError, parse, read_lines
from .loading import where
from .reading import Readable
from .screen import SPOKEN_FOR, Screen
from .tally import Tally

LEADER_LEASE_S = 5.0
"""How long the next run waits for one that died while it was leading (s)."""
LOOK_MS = 500
"""The interval in which a run looks whether it has to stand for election (ms)."""
LINE_MS = 50
"""The interval in which a run that is about to end looks whether anything is still ready (ms)."""


@define(eq=False)
class Job:
    """A run over an input. ``engine`` is not open yet; its driver is.

    At most ``concurrency`` lines are executed at the same time, so no more are held in memory, and
    as many states of the engine's ``max_background`` beside them. States are counted as they are
    stored when nothing runs any more.
    """

    engine: Engine
    start: str
    """The flow where new states begin."""
    screen: Screen
    concurrency: int
    wait_ms: int
    """The time after the last line within which delays and timeouts are waited for."""
    stop_on_error: bool
    tally: Tally = field(factory=Tally, init=False)
    errors: int = field(default=0, init=False)
    """How many lines were rejected and how many flows raised, in this run."""
    is_interrupted: bool = field(default=False, init=False)
    _slots: anyio.Semaphore = field(init=False)
    _taking: anyio.CancelScope = field(init=False)
    """Cancelled to take no more lines."""
    _working: anyio.CancelScope = field(init=False)
    """Cancelled to leave the engine, which lets flows that run now finish."""
    _busy: dict[str, anyio.Event] = field(factory=dict[str, anyio.Event], init=False)
    """id that is being executed -> the event for which another line of the same id waits"""
    _waiting: dict[str, tuple[int, anyio.CancelScope]] = field(
        factory=dict[str, tuple[int, anyio.CancelScope]], init=False
    )
    """id that is being executed -> from which revision on, and what to cancel once it is at a flow
    that is not here"""
    _resting: dict[str, int] = field(factory=dict[str, int], init=False)
    """id of each line's state that came to rest without having ended -> its revision then. It may
    still be moved by something else."""
    _began: int = field(default=0, init=False)
    _began_after: int = field(default=0, init=False)
    """The newest revision when it began."""
    _readable: Readable = field(factory=Readable, init=False)

    async def run(self, file: int) -> None:
        """Take every line of the file descriptor, unless interrupted or stopped by an error."""
        self._slots = anyio.Semaphore(self.concurrency)
        self._taking = anyio.CancelScope()
        self._working = anyio.CancelScope()
        self._began = self.engine.clock.now()
        async with anyio.create_task_group() as states, self.engine:
            self._began_after = await self.engine.timers.head()
            with self._working:
                async with (
                    Worker(self.engine, concurrency=self.concurrency),
                    anyio.create_task_group() as beside,
                ):
                    beside.start_soon(self._lead)
                    beside.start_soon(self._leave_unmoved)
                    await beside.start(self._leave_to_others)
                    with self._taking:
                        await self._take_lines(file, states)
                    await self._finish()
                    beside.cancel_scope.cancel()
        for id in self._resting:
            try:
                self.tally.count(await self.engine.get(id))
            except UnreadableVersionError as error:
                self._pass_by(error)

    @property
    def is_stopped(self) -> bool:
        """Whether it took no more lines because of an error."""
        return self.stop_on_error and self.errors > 0

    @property
    def executing(self) -> int:
        """How many states are run now."""
        return len(self.engine.timers.executing())

    def interrupt(self) -> None:
        """Take no more lines and let what runs finish within the engine's grace period."""
        self.is_interrupted = True
        self._working.cancel()

    async def _take_lines(self, file: int, states: TaskGroup) -> None:
        async for line in read_lines(file):
            try:
                state = parse(line)
            except LineError as error:
                self._reject(line, str(error))
                await anyio.lowlevel.checkpoint()  # a stop takes effect here
            else:
                await self._slots.acquire()
                states.start_soon(self._work, line, state)

    async def _finish(self) -> None:
        """Return once all states rest, including those that flows have made."""
        for _ in range(self.concurrency):
            await self._slots.acquire()
        await self.engine.idle()
        until = self.engine.clock.now() + self.wait_ms
        for id, rev in self._resting.items():
            with suppress(UnreadableVersionError):  # it is told when it is counted
                state = await self.engine.get(id)
                if state.transition.status is not Status.RUNNING or state.rev != rev:
                    await self._settled(state, until)
        while True:
            if (fork := await self._forked(until)) is not None:
                with suppress(UnreadableVersionError):
                    await self._settled(fork, until)
            elif await self._is_in_line(until):
                await self.engine.clock.wait_until(self.engine.clock.now() + LINE_MS)
            else:
                return
            await self.engine.idle()

    # ------------------------------------------------------------ what comes later

    async def _lead(self) -> None:
        """Stand for election, from the first time that something is due, until cancelled."""
        engine, clock = self.engine, self.engine.clock
        while (due := (await engine.timers.due(0)).next) is None or due > clock.now():
            look = clock.now() + LOOK_MS
            await clock.wait_until(look if due is None else min(due, look))
        async with Recoverer(engine, concurrency=0, lease=LEADER_LEASE_S):
            await anyio.sleep_forever()

    async def _leave_to_others(self, *, task_status: TaskStatus[None]) -> None:
        """Wait no longer for states that come to a flow which is not here: perhaps nobody has it.
        Until cancelled."""
        running = Query(status=Status.RUNNING, from_now=True)
        while True:
            with suppress(CompactedError):
                async with self.engine.watch(running) as watcher:
                    task_status.started()
                    async for state in self._readable.of(watcher):
                        if (
                            state.id in self._waiting
                            and state.rev > (waiting := self._waiting[state.id])[0]
                            and state.transition.to not in self.engine.flows
                        ):
                            waiting[1].cancel()

    async def _leave_unmoved(self) -> None:
        """Wait no longer for states that a flow here has left where they were, which are retried
        once their lease has run out: whoever forgot a Commit wants to know now. Until cancelled."""
        engine, clock = self.engine, self.engine.clock
        owner = owner_in(engine.owner, engine.driver.session)
        seen: set[str] = set()
        while True:
            await clock.wait_until(clock.now() + LOOK_MS)
            running = {state.id for state in engine.timers.executing()}
            unmoved: set[str] = set()
            for id in self._waiting.keys() - running:
                place = await engine.timers.place(id)
                if place is not None and place.owner == owner:
                    unmoved.add(id)
            for id in unmoved & seen & self._waiting.keys():  # seen twice: it may just have begun
                self._waiting[id][1].cancel()
            seen = unmoved

    async def _settled(self, state: State, until: int) -> None:
        """Return once the state rests, and nothing moves it before *until*."""
        if self._is_awaited(state, until):
            await self.engine.wait(state.id, lambda newer: not self._is_awaited(newer, until))

    async def _forked(self, until: int) -> State | None:
        """A state that was delayed or paused in this run, whichever flow made it, and that the run
        waits for; None if there is none."""
        if (await self.engine.timers.due(0)).next is None:
            return None
        resting = Query(status=[Status.DELAYED, Status.PAUSED], since=self._began, latest=True)
        async for state in self._readable.of(self.engine.states(resting)):
            if self._is_awaited(state, until):
                return state
        return None

    async def _is_in_line(self, until: int) -> bool:
        """Whether anything that this run waits for is ready, and is not run yet."""
        line = await self.engine.timers.line()
        return any(flow in self.engine.flows and since <= until for flow, since in line.items())

    def _is_awaited(self, state: State, until: int) -> bool:
        """Whether the run waits for a state: one that is running, or will be soon, at a flow that
        is here.

        A retry is waited for however long its backoff is, since it is a part of running. A delay or
        timeout that a flow has set is waited for only if it is over before *until*.
        """
        transition, alarm = state.transition, state.transition.alarm
        if transition.status is Status.RUNNING:
            return transition.to in self.engine.flows
        if alarm is None or alarm.to not in self.engine.flows:
            return False
        is_retry = transition.cause in {Cause.RETRY, Cause.LOST}
        return is_retry or alarm.at <= until

    async def _work(self, line: Line, state: State) -> None:
        while busy := self._busy.get(state.id):
            await busy.wait()
        done = self._busy[state.id] = anyio.Event()
        try:
            await self._bring_to_rest(line, state)
        except UnreadableVersionError as error:
            self._pass_by(error)
            self._advance(line)
        finally:
            del self._busy[state.id]
            done.set()
            self._slots.release()

    async def _bring_to_rest(self, line: Line, state: State) -> None:
        await self._execute(line, state)
        try:
            state = await self.engine.get(state.id)
        except StateNotFoundError:
            return  # it was rejected
        if state.transition.status is not Status.ENDED:
            self._resting[state.id] = state.rev
        else:
            self.tally.count(state)
            self.tally.ended_before += state.rev <= self._began_after
        self._advance(line)

    async def _execute(self, line: Line, state: State) -> None:
        """Begin a state, or go on with it if it is there already, until it rests or is left to
        others."""
        spoken_for = SPOKEN_FOR.set(state.id)
        try:
            await self._begin(state)
        except UnreadableVersionError as error:  # what the flow has read
            self._error(f"line {line.number}, state {state.id!r}: {error}{where(error)}")
        except StoreError:
            raise  # without a store there is nothing to go on with
        except EngineClosedError:
            pass  # interrupted: the state was left where it is, for the next run
        except Exception as error:  # noqa: BLE001  (a flow may raise anything)
            await self._raised(line, state, error)
        finally:
            SPOKEN_FOR.reset(spoken_for)

    async def _begin(self, state: State) -> None:
        try:
            await self._run(state, Commit(Transit(state, self.start)))
        except RevMismatchError as error:
            if state.id not in error.conflicts:
                raise  # by a flow
            try:
                newest = await self.engine.get(state.id)
            except UnreadableVersionError:
                return  # it is told when it is counted
            transition = newest.transition
            if transition.status is Status.RUNNING and transition.to in self.engine.flows:
                await self._run(newest, newest)

    async def _run(self, state: State, work: State | Commit) -> None:
        """Run it until it rests, or comes to a flow that is not here."""
        with anyio.CancelScope() as scope:
            self._waiting[state.id] = state.rev, scope
            try:
                await self.engine.execute(work)
            finally:
                del self._waiting[state.id]

    async def _raised(self, line: Line, state: State, error: Exception) -> None:
        """Say what a line came to that could not become a state, or whose flow raised."""
        is_refused = isinstance(error, InvalidValueError)  # too large: the commit says so
        if is_refused and not await self._is_stored(state):
            self._reject(line, str(error))
            return
        message = f"{type(error).__name__}: {error}{where(error)}"
        self._error(f"line {line.number}, state {state.id!r}: {message}")

    async def _is_stored(self, state: State) -> bool:
        try:
            await self.engine.get(state.id)
        except StateNotFoundError:
            return False
        return True

    def _pass_by(self, error: UnreadableVersionError) -> None:
        self.tally.pass_by(error)
        self._error(str(error))

    def _reject(self, line: Line, reason: str) -> None:
        self.tally.reject(reason)
        self._error(f"line {line.number} rejected, nothing of it is stored: {reason}")
        self._advance(line)

    def _error(self, message: str) -> None:
        self.errors += 1
        self.screen.say(message)
        if self.stop_on_error:
            self._taking.cancel()

    def _advance(self, line: Line) -> None:
        self.screen.advance(line.size, self.tally.total + len(self._resting))
