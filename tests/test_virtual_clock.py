"""The clock that tests move: what waits by it wakes at its instant, in order, whatever it costs."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from flowstate import (
    Command,
    Commit,
    Driver,
    Engine,
    Flows,
    RetryPolicy,
    State,
    Status,
    Transit,
    connect,
)
from flowstate.drivers.memory import MemoryDriver
from flowstate.recovery import Recoverer
from flowstate.testing.transcript import Transcript
from flowstate.testing.virtual import START_MS, TimedDriver, VirtualClock, all_blocked

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def test_time_stands_still_until_it_is_moved(clock: VirtualClock) -> None:
    """Nothing but the test makes time go by."""
    with anyio.move_on_after(0.01) as real:
        await clock.wait_until(START_MS + 1)
    assert (True, START_MS) == (real.cancelled_caught, clock.now())


async def test_sleepers_wake_at_their_instants_soonest_first(clock: VirtualClock) -> None:
    """Whatever the order in which they went to sleep, each sees exactly its own time."""
    woke: list[tuple[str, int]] = []

    async def sleep(name: str, seconds: int) -> None:
        await clock.wait_until(START_MS + seconds * 1000)
        woke.append((name, (clock.now() - START_MS) // 1000))

    async with anyio.create_task_group() as tasks:
        for name, seconds in [("c", 30), ("a", 10), ("b", 20), ("d", 40)]:
            tasks.start_soon(sleep, name, seconds)
        await clock.advance(30)
        assert [("a", 10), ("b", 20), ("c", 30)] == woke
        await clock.advance(10)
    assert ("d", 40) == woke[-1]


async def test_at_one_instant_the_first_to_sleep_wakes_first(clock: VirtualClock) -> None:
    """And what follows from one waking happens before the next one wakes."""
    woke: list[str] = []

    async def sleep(n: int) -> None:
        await clock.wait_until(START_MS + 1000)
        woke.append(f"{n} wakes")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        woke.append(f"{n} is done")

    async with anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(sleep, n)
            await all_blocked()
        await clock.advance(1)
    assert [f"{n} {what}" for n in range(5) for what in ("wakes", "is done")] == woke


async def test_who_sleeps_again_while_time_moves_is_woken_again(clock: VirtualClock) -> None:
    """``advance`` goes through every instant of its span, also those that were not there before."""
    woke: list[int] = []

    async def tick() -> None:
        for _ in range(5):
            await clock.wait_until(clock.now() + 1000)
            woke.append(clock.now() - START_MS)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await clock.advance(3.5)
        assert ([1000, 2000, 3000], START_MS + 3500) == (woke, clock.now())
        await clock.advance(10)
    assert [1000, 2000, 3000, 4000, 5000] == woke


async def test_an_event_wakes_before_the_time_and_is_not_set_by_it(clock: VirtualClock) -> None:
    """The event is the caller's: the clock listens to it and leaves it alone."""
    early, never = anyio.Event(), anyio.Event()
    woke: list[int] = []

    async def sleep(event: anyio.Event) -> None:
        await clock.wait_until(START_MS + 9000, event)
        woke.append(clock.now() - START_MS)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep, early)
        tasks.start_soon(sleep, never)
        await clock.advance(1)
        early.set()
        await clock.advance(1)
        assert ([1000], 1) == (woke, clock.sleepers)
        await clock.advance(10)
    assert ([1000, 9000], False) == (woke, never.is_set())


async def test_a_cancelled_sleeper_is_forgotten(clock: VirtualClock) -> None:
    """Time does not stop at the instant of someone who no longer waits."""
    with anyio.move_on_after(0):
        await clock.wait_until(START_MS + 1000)
    assert 0 == clock.sleepers
    async with clock.running():
        await clock.wait_until(START_MS + 5000)
    assert START_MS + 5000 == clock.now()


async def test_the_past_returns_at_once_and_lets_others_run(clock: VirtualClock) -> None:
    """A loop that waits for the past is no spin that stops the world."""
    ran = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            ran.set()

        tasks.start_soon(run)
        while not ran.is_set():
            await clock.wait_until(START_MS - 1)
    assert START_MS == clock.now()


async def test_running_jumps_to_the_next_instant(clock: VirtualClock) -> None:
    """Ten years take no time."""
    async with clock.running():
        await clock.wait_until(START_MS + 3650 * DAY_S * 1000)
    assert START_MS + 3650 * DAY_S * 1000 == clock.now()


async def test_running_stands_still_while_held(clock: VirtualClock) -> None:
    """Work that is no task, such as a thread, takes no virtual time."""
    async with clock.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(clock.wait_until, START_MS + 1000)
        with clock.held():
            await anyio.to_thread.run_sync(time.sleep, 0.02)
            assert START_MS == clock.now()
    assert START_MS + 1000 == clock.now()


async def test_running_stands_still_while_busy(clock: VirtualClock) -> None:
    """``engine.threads`` tells of plain functions that run in threads."""
    limiter = anyio.CapacityLimiter(1)
    clock.stand_still_while(lambda: limiter.borrowed_tokens > 0)
    async with clock.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(clock.wait_until, START_MS + 1000)
        await anyio.to_thread.run_sync(time.sleep, 0.02, limiter=limiter)
        assert START_MS == clock.now()
    assert START_MS + 1000 == clock.now()


async def test_a_driver_in_threads_takes_no_virtual_time(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """Hundreds of commits to SQLite happen at one instant, though somebody waits for the next."""
    inner = connect(f"sqlite:///{tmp_path}/store.db")
    inner.clock = clock  # type: ignore[attr-defined]
    async with (
        clock.running(),
        TimedDriver(inner, clock) as driver,
        Engine(driver, clock=clock) as engine,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(clock.wait_until, START_MS + 1)
        state = State("a")
        with clock.held():  # between two calls, too
            for _ in range(200):
                (state,) = await engine.do(Commit(Transit(state, "nowhere")))
        assert (START_MS, 200) == (state.committed_at, driver.calls["commit"])


async def test_it_cannot_be_moved_by_two(clock: VirtualClock) -> None:
    """Each would wait for the other for ever; so the second is told."""
    async with clock.running():
        with pytest.raises(RuntimeError, match="moved already"):
            await clock.advance(1)


async def test_all_blocked_sees_a_chain_of_wakings(clock: VirtualClock) -> None:
    """However many tasks hand on to each other, all of it is over."""
    events = [anyio.Event() for _ in range(100)]

    async def hand_on(n: int) -> None:
        await events[n].wait()
        events[n + 1].set()

    async with anyio.create_task_group() as tasks:
        for n in range(99):
            tasks.start_soon(hand_on, n)
        await all_blocked()
        events[0].set()
        await all_blocked()
        assert events[99].is_set()


async def test_a_day_of_retries_passes_on_the_virtual_clock() -> None:
    """A flow that fails 288 times at five minutes each: a day, through engine and recoverer."""
    clock = VirtualClock()
    flows = Flows()

    @flows.flow
    async def fails(state: State, engine: Engine) -> Command:
        raise OSError("still down")

    policy = RetryPolicy(backoff=300, max_backoff=300, max_attempts=289)
    async with (
        clock.running(),
        MemoryDriver(clock=clock) as driver,
        Engine(driver, flows, clock=clock, retry=policy, chance=lambda: 0.0) as engine,
        Recoverer(engine, lease=3600),
    ):
        (state,) = await engine.do(Commit(Transit(State("a"), "fails")))
        await engine.start(state)
        failed = await engine.wait("a", Status.FAILED)
    assert (288, 288 * 300_000) == (failed.transition.attempt, failed.committed_at - START_MS)


async def test_a_transcript_is_waited_for(clock: VirtualClock, driver: Driver) -> None:
    """``wait_for`` returns when the line is there, whether it came before or comes later."""
    transcript = Transcript(clock)

    async def tell() -> None:
        await clock.wait_until(START_MS + 1500)
        transcript.note("a", "begins")
        await clock.wait_until(START_MS + 2500)
        transcript.note("a", "begins")

    async with clock.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(tell)
        await transcript.wait_for("a: begins")
        assert START_MS + 1500 == clock.now()
        await transcript.wait_for("begins", times=2)
        await transcript.wait_for("begins")
    assert "    1.500  a: begins\n    2.500  a: begins\n" == transcript.text()
