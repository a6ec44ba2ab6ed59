"""The parts of a simulated cluster: processes that die, freeze and leave, and the store that they
share, which fails. ``simulation`` puts them together."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NoReturn, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
from attrs import define, field

from ..clock import Clock
from ..drivers.memory import MemoryDriver
from ..engine import Engine
from ..errors import FlowstateError, StoreError, UnknownOutcomeError
from ..flows import Flows
from ..leases import owner_in, session_of
from ..plan import Plan
from ..query import Query
from ..recovery import Event, Recoverer, Worker
from ..state import RetryPolicy, State
from .history import Acknowledged, RecordingDriver, Seen
from .places import PlaceRecorder
from .scenario import POLICY
from .transcript import Transcript
from .virtual import VirtualClock

R = TypeVar("R")

TERM_S = 5.0
"""The lease of a leader of recovery (s)."""
MAX_DELAY_MS = 40
"""Bound of what a call to the store takes that is not slow (ms)."""
SLOW_MS = 8_000
"""Bound of what a slow call to the store takes (ms): longer than a lease."""
LOST_WAKEUP_MS = 15_000
"""Bound of how late a waiter hears of a commit when its wake-up is lost (ms)."""
ERRORS, SLOW, LOST_WAKEUPS, DELAYS, REPEATS = 0.02, 0.004, 0.1, 0.3, 0.02
"""The probabilities of an error, a slow call, a lost wake-up and a delay, for each call; and that
one which may come twice does."""
REPEATED = frozenset({"claim", "take", "renew", "release", "end_leases"})
"""What may reach the store a second time, when everybody has the answer to the first."""


class Duty(enum.Enum):
    """What a process does besides what it is asked for."""

    RECOVER = "recover"
    LEAD = "lead"
    """It stands for election, and runs nothing that is ready."""
    WORK = "work"


@define(eq=False)
class World:
    """What all processes share: the store, the clock, the source of chance, and the records."""

    chance: random.Random
    clock: VirtualClock = field(factory=VirtualClock)
    store: MemoryDriver = field(init=False)
    places: PlaceRecorder = field(init=False)
    """The store as all processes reach it."""
    transcript: Transcript = field(init=False)
    plans: list[Plan] = field(factory=list[Plan])
    acknowledged: list[Acknowledged] = field(factory=list[Acknowledged])
    seen: list[Seen] = field(factory=list[Seen])
    calls: Counter[str] = field(factory=Counter[str])
    """Method of the driver -> how often a process called it."""
    errors: dict[str, Exception] = field(factory=dict[str, Exception])
    """Method of the driver -> what it raises, for every process."""
    outage_until: int = 0
    """The instant (ms) until which the store answers no process."""
    presence: bool = False
    """Whether the store can tell who is there."""
    sessions: dict[str, Process] = field(factory=dict[str, "Process"])
    """Session -> the process that has it, or had it."""
    is_healed: bool = False
    """Whether the faults have ended."""
    later: anyio.abc.TaskGroup | None = None
    """Where messages are under way whose senders no longer wait for an answer."""

    def __attrs_post_init__(self) -> None:
        self.store = MemoryDriver(clock=self.clock)
        self.places = PlaceRecorder(self.store, self.clock)
        self.transcript = Transcript(self.clock)

    async def log(self, query: Query = Query()) -> list[State]:  # noqa: B008  (a value)
        """The versions that are stored, read without faults."""
        head = await self.store.head()
        versions: list[State] = []
        upto = 0
        while upto < head:
            page = await self.store.read(query, upto, head)
            versions += page.versions
            upto = page.upto
        return versions

    def happens(self, probability: float) -> bool:
        """Whether a fault happens now."""
        return not self.is_healed and self.chance.random() < probability

    async def sleep(self, ms: int) -> None:
        end = self.clock.now() + ms
        while self.clock.now() < end:
            await self.clock.wait_until(end)


@define(eq=False)
class Process(Clock):
    """A process: it works until it dies or leaves, and may be frozen for a while.

    It is a clock too: a frozen process does not notice the time, and another's may go
    *ahead_ms* before that of the store.
    """

    world: World
    name: str
    flows: Flows
    """All that the processes have: this one may lack some of them."""
    without: Collection[str] = ()
    """Those that it lacks."""
    duty: Duty = Duty.RECOVER
    concurrency: int = 20
    max_background: int = 1_000
    ahead_ms: int = 0
    policy: RetryPolicy = field(default=POLICY, kw_only=True)
    scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    told_to_leave: anyio.Event = field(factory=anyio.Event, init=False)
    frozen_until: int = field(default=0, init=False)
    """The instant (ms) until which it does nothing."""
    cut_until: int = field(default=0, init=False)
    """The instant (ms) until which it does not reach the store."""
    wrong_until: int = field(default=0, init=False)
    """The instant (ms) until which its clock is wrong by ``wrong_by_ms``."""
    wrong_by_ms: int = field(default=0, init=False)
    dies_at_claim: bool = field(default=False, init=False)
    """Whether it dies as soon as it is given something to run."""
    missed_until: int = field(default=0, init=False)
    """The instant (ms) until which the store takes it for dead, though it lives."""
    seems_there: bool = field(default=False, init=False)
    """Whether the store takes it for alive when it is dead."""
    is_dead: bool = field(default=False, init=False)
    engine: Engine = field(init=False)
    recoverer: Recoverer = field(init=False)

    def __attrs_post_init__(self) -> None:
        world = self.world
        line = Line(world.places, world.plans, world.acknowledged, process=self)
        world.sessions[self.name] = self
        self.engine = Engine(
            line,
            world.places.recorded(self.flows, owner_in(self.name, line.session), self.without),
            retry=self.policy,
            clock=self,
            grace=2,
            chance=self.world.chance.random,
            commit_prefix=self.name,
            owner=self.name,
            max_background=self.max_background,
        )
        note = self.world.transcript.of(self.name)

        def note_if_alive(event: Event, term: int) -> None:
            if not self.is_dead:
                note(event, term)

        self.recoverer = Recoverer(
            self.engine,
            lease=TERM_S,
            concurrency=0 if self.duty is Duty.LEAD else self.concurrency,
            name=self.name,
            tell=note_if_alive,
        )

    def now(self) -> int:
        now = self.world.clock.now()
        return now + self.ahead_ms + (self.wrong_by_ms if now < self.wrong_until else 0)

    async def wait_until(self, instant: int, event: anyio.Event | None = None) -> None:
        # for as long as the clock says now, whatever it says later
        left = instant - self.now()
        await self.world.clock.wait_until(self.world.clock.now() + left, event)
        await self.thaw()

    @property
    def is_in_thread(self) -> bool:
        """Whether one of its flows works in a thread."""
        threads: anyio.CapacityLimiter | None = getattr(self.engine, "threads", None)
        return threads is not None and threads.borrowed_tokens > 0

    @property
    def is_seen(self) -> bool:
        """Whether the store takes it for alive, rightly or not."""
        if self.is_dead:
            return self.seems_there
        return self.world.clock.now() >= self.missed_until

    async def thaw(self) -> None:
        """Return once it is not frozen."""
        while self.world.clock.now() < self.frozen_until:
            await self.world.clock.wait_until(self.frozen_until)

    async def live(self) -> None:
        """Work until it is killed or leaves."""
        works = self.duty is Duty.WORK
        service = Worker(self.engine, concurrency=self.concurrency) if works else self.recoverer
        with self.scope:
            async with self.engine, service:
                await self.told_to_leave.wait()
        self.is_dead = True

    def kill(self) -> None:
        """Die: nothing that it does from now on reaches the store."""
        self.is_dead = True
        self.scope.cancel()


@define(eq=False)
class Line(RecordingDriver):
    """The connection of a process to the store: slow, and sometimes broken."""

    process: Process = field(kw_only=True)

    async def open(self) -> None:
        """The store is open."""

    async def close(self) -> None:
        """The store outlives its processes."""

    @property
    def session(self) -> str:
        return self.process.name if self.process.world.presence else ""

    async def owners(self) -> Mapping[str, bool | None]:
        owners = await super().owners()
        sessions = self.process.world.sessions
        names = {owner: session_of(owner) for owner in owners}
        return {owner: sessions[name].is_seen if name else None for owner, name in names.items()}

    async def around(self, name: str, call: Callable[[], Awaitable[R]]) -> R:
        world = self.process.world
        world.calls[name] += 1
        await self._cross()
        if name == "wait" and world.happens(LOST_WAKEUPS):
            # a commit meanwhile has moved the head, so the wait then returns at once
            await world.sleep(world.chance.randrange(LOST_WAKEUP_MS))
        if world.happens(ERRORS):
            self._break()
        if name in world.errors:
            raise world.errors[name]
        try:
            answer = await call()
        except FlowstateError:
            await self._return(name)
            raise
        if name in REPEATED and world.later is not None and world.happens(REPEATS):
            world.later.start_soon(self._repeat, call)
        if name == "claim" and answer and self.process.dies_at_claim:
            world.transcript.note(self.process.name, "is killed by what it was given")
            self.process.kill()
        await self._return(name)
        return answer

    async def _repeat(self, call: Callable[[], Awaitable[object]]) -> None:
        """Have a message come once more, when others have overtaken it."""
        world = self.process.world
        await world.sleep(world.chance.randrange(SLOW_MS))
        await call()

    async def _return(self, name: str) -> None:
        """Bring the answer back, or lose it."""
        try:
            await self._cross()
            if self.process.world.happens(ERRORS):
                self._break()
        except StoreError as error:
            if name != "commit":
                raise
            raise UnknownOutcomeError("the simulated store", "the answer was lost") from error

    @staticmethod
    def _break() -> NoReturn:
        raise StoreError("the simulated store", "the line broke")

    async def _cross(self) -> None:
        """Take the time that a message to the store, or an answer, takes; or fail."""
        self._check()
        world = self.process.world
        if world.happens(DELAYS):
            slow = world.happens(SLOW / DELAYS)
            await world.sleep(world.chance.randrange(SLOW_MS if slow else MAX_DELAY_MS))
        else:
            for _ in range(world.chance.randrange(3)):  # others come first, or do not
                await anyio.lowlevel.checkpoint()
        await self.process.thaw()
        self._check()

    def _check(self) -> None:
        if self.process.is_dead:
            raise StoreError("the simulated store", "this process is dead")
        world = self.process.world
        if world.clock.now() < max(world.outage_until, self.process.cut_until):
            raise StoreError("the simulated store", "the store is out")
