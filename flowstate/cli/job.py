"""The run itself: takes lines, has their states executed, and counts how they ended.

A ``Recoverer`` acts on what becomes due meanwhile. It is begun only when there is something to
recover: a run in which nothing fails and nothing was left behind elects no leader and commits
nothing of flowstate's own.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import define, field

from flowstate import (
    Cause,
    Commit,
    Engine,
    EngineClosedError,
    InvalidValueError,
    Query,
    RevMismatchError,
    State,
    Status,
    StoreError,
    Transit,
    UnreadableVersionError,
)
from flowstate.recovery import Recoverer

from .lines import Line, LineError, parse, read_lines
from .loading import where
from .reading import Readable
from .screen import SPOKEN_FOR, Screen
from .tally import Tally

RECOVERY_LEASE_S = 5.0
"""How long the next run waits for one that died in the middle of recovering (s)."""
LOOK_MS = 500
"""The interval in which a run looks whether it has to begin to recover (ms)."""


@define(eq=False)
class Job:
    """A run over an input. ``engine`` is not open yet; its driver is.

    At most ``concurrency`` states are executed at the same time, so no more lines are held in
    memory. States are counted as they are stored when nothing runs any more.
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
    executing: int = field(default=0, init=False)
    _slots: anyio.Semaphore = field(init=False)
    _taking: anyio.CancelScope = field(init=False)
    """Cancelled to take no more lines."""
    _working: anyio.CancelScope = field(init=False)
    """Cancelled to leave the engine, which lets flows that run now finish."""
    _busy: dict[str, anyio.Event] = field(factory=dict[str, anyio.Event], init=False)
    """id that is being executed -> the event for which another line of the same id waits"""
    _resting: dict[str, int] = field(factory=dict[str, int], init=False)
    """id of each line's state that came to rest without having ended -> its revision then. It may
    still be moved by something else."""
    _began: int = field(default=0, init=False)
    _readable: Readable = field(factory=Readable, init=False)
    _over: anyio.Event = field(factory=anyio.Event, init=False)
    _recovered: anyio.Event = field(factory=anyio.Event, init=False)
    """Set once recovery has ended and runs nothing any more."""

    async def run(self, file: int) -> None:
        """Take every line of the file descriptor, unless interrupted or stopped by an error."""
        self._slots = anyio.Semaphore(self.concurrency)
        self._taking = anyio.CancelScope()
        self._working = anyio.CancelScope()
        self._began = self.engine.clock.now()
        async with anyio.create_task_group() as states, self.engine:
            states.start_soon(self._recover)
            with self._working:
                with self._taking:
                    await self._take_lines(file, states)
                await self._finish()
            self._over.set()
            await self._recovered.wait()
        for id in self._resting:
            try:
                self.tally.count(await self.engine.get(id))
            except UnreadableVersionError as error:
                self._pass_by(error)

    @property
    def is_stopped(self) -> bool:
        """Whether it took no more lines because of an error."""
        return self.stop_on_error and self.errors > 0

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
        while (fork := await self._forked(until)) is not None:
            with suppress(UnreadableVersionError):
                await self._settled(fork, until)
            await self.engine.idle()

    # ------------------------------------------------------------ what comes later

    async def _recover(self) -> None:
        """Act on what is due, from the first time that something is, until the run is over."""
        engine, clock = self.engine, self.engine.clock
        flows = sorted(flow.name for flow in engine.flows)
        # runs that have the same flows can take over from each other, and others cannot
        group = f"run-{hashlib.sha256(repr(flows).encode()).hexdigest()[:8]}"
        while not self._over.is_set():
            due = (await engine.timers.due(flows, 0)).next_at
            look = clock.now() + LOOK_MS
            if due is not None and due <= clock.now():
                async with Recoverer(
                    engine, group, lease=RECOVERY_LEASE_S, concurrency=self.concurrency
                ):
                    await self._over.wait()
            else:
                await clock.wait_until(look if due is None else min(due, look), self._over)
        self._recovered.set()

    async def _settled(self, state: State, until: int) -> None:
        """Return once the state rests, and nothing moves it before *until*."""
        if self._is_awaited(state, until):
            await self.engine.wait(state.id, lambda newer: not self._is_awaited(newer, until))

    async def _forked(self, until: int) -> State | None:
        """A state that was delayed or paused in this run, whichever flow made it, and that the run
        waits for; None if there is none."""
        flows = [flow.name for flow in self.engine.flows]
        if (await self.engine.timers.due(flows, 0)).next is None:
            return None
        resting = Query(status=[Status.DELAYED, Status.PAUSED], since=self._began, latest=True)
        async for state in self._readable.of(self.engine.states(resting)):
            if self._is_awaited(state, until):
                return state
        return None

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
        try:
            state = await self._begin(state)
        except InvalidValueError as error:  # too large: the engine says so at the commit
            self._reject(line, str(error))
            return
        if state.transition.status is Status.RUNNING:
            await self._execute(line, state)
            state = await self.engine.get(state.id)
        elif state.transition.status is Status.ENDED:
            self.tally.ended_before += 1
        if state.transition.status is Status.ENDED:
            self.tally.count(state)
        else:
            self._resting[state.id] = state.rev
        self._advance(line)

    async def _begin(self, state: State) -> State:
        """The first version of a state, or the newest one if the state is already there."""
        try:
            (begun,) = await self.engine.do(Commit(Transit(state, self.start)))
        except RevMismatchError:
            return await self.engine.get(state.id)
        return begun

    async def _execute(self, line: Line, state: State) -> None:
        self.executing += 1
        spoken_for = SPOKEN_FOR.set(state.id)
        try:
            await self.engine.execute(state)
        except UnreadableVersionError as error:  # what the flow has read
            self._error(f"line {line.number}, state {state.id!r}: {error}{where(error)}")
        except StoreError:
            raise  # without a store there is nothing to go on with
        except EngineClosedError:
            pass  # interrupted: the state was left where it is, for the next run
        except Exception as error:  # noqa: BLE001  (a flow may raise anything)
            message = f"{type(error).__name__}: {error}{where(error)}"
            self._error(f"line {line.number}, state {state.id!r}: {message}")
        finally:
            SPOKEN_FOR.reset(spoken_for)
            self.executing -= 1

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
