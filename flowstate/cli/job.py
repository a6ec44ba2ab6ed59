"""The run itself: takes lines, has their states executed, and counts what became of them."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import define, field

from flowstate import (
    Commit,
    Engine,
    EngineClosedError,
    InvalidValueError,
    RevMismatchError,
    State,
    Status,
    StoreError,
    Transit,
)

from .lines import Line, LineError, parse, read_lines
from .loading import where
from .screen import Screen
from .tally import Tally


@define(eq=False)
class Job:
    """One run over one input. ``engine`` is not yet open; its driver is.

    At most ``concurrency`` states are executed at the same time, so no more lines are held in
    memory. What is counted is what is stored when nothing runs any more.
    """

    engine: Engine
    start: str
    """The flow where new states begin."""
    screen: Screen
    concurrency: int
    stop_on_error: bool
    tally: Tally = field(factory=Tally, init=False)
    errors: int = field(default=0, init=False)
    """Lines that were rejected and flows that raised, in this run."""
    is_interrupted: bool = field(default=False, init=False)
    executing: int = field(default=0, init=False)
    _slots: anyio.Semaphore = field(init=False)
    _taking: anyio.CancelScope = field(init=False)
    """Cancelled to take no more lines."""
    _working: anyio.CancelScope = field(init=False)
    """Cancelled to leave the engine, which lets flows that run now finish."""
    _busy: dict[str, anyio.Event] = field(factory=dict[str, anyio.Event], init=False)
    """The ids that are being executed: a second line of the same id waits for the first."""
    _resting: list[str] = field(factory=list[str], init=False)
    """Ids that came to rest without having ended; something else may still move them."""

    async def run(self, file: int) -> None:
        """Take every line of the file descriptor, unless interrupted or stopped by an error."""
        self._slots = anyio.Semaphore(self.concurrency)
        self._taking = anyio.CancelScope()
        self._working = anyio.CancelScope()
        async with anyio.create_task_group() as states, self.engine:
            with self._working:
                with self._taking:
                    await self._take_lines(file, states)
                await self._finish()
        for id in self._resting:
            self.tally.count(await self.engine.get(id))

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
        """Return once all states rest, those too that the flows have made."""
        for _ in range(self.concurrency):
            await self._slots.acquire()
        await self.engine.idle()

    async def _work(self, line: Line, state: State) -> None:
        while busy := self._busy.get(state.id):
            await busy.wait()
        done = self._busy[state.id] = anyio.Event()
        try:
            await self._bring_to_rest(line, state)
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
            self._resting.append(state.id)
        self._advance(line)

    async def _begin(self, state: State) -> State:
        """The state's first version, or its newest one if it is already there."""
        try:
            (begun,) = await self.engine.do(Commit(Transit(state, self.start)))
        except RevMismatchError:
            return await self.engine.get(state.id)
        return begun

    async def _execute(self, line: Line, state: State) -> None:
        self.executing += 1
        try:
            await self.engine.execute(state)
        except StoreError:
            raise  # without a store there is nothing to go on with
        except EngineClosedError:
            pass  # interrupted: it was left where it is, for the next run
        except Exception as error:  # noqa: BLE001  (a flow may raise anything)
            told = f"{type(error).__name__}: {error}{where(error)}"
            self._error(f"line {line.number}, state {state.id!r}: {told}")
        finally:
            self.executing -= 1

    def _reject(self, line: Line, reason: str) -> None:
        self.tally.reject(reason)
        self._error(f"line {line.number} rejected, nothing of it is stored: {reason}")
        self._advance(line)

    def _error(self, told: str) -> None:
        self.errors += 1
        self.screen.say(told)
        if self.stop_on_error:
            self._taking.cancel()

    def _advance(self, line: Line) -> None:
        self.screen.advance(line.size, self.tally.total + len(self._resting))
