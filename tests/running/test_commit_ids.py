"""Commits under an id of their caller's: a program that is run again does nothing twice."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstate import (
    Command,
    Commit,
    CommitIdReusedError,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    InvalidValueError,
    Noop,
    Pause,
    Query,
    Require,
    Resume,
    RevMismatchError,
    State,
    StateNotFoundError,
    Status,
    Transit,
)
from flowstate.testing.faults import Fault, FaultDriver
from flowstate.testing.virtual import VirtualClock

from . import add, ends, history

pytestmark = pytest.mark.anyio

PATIENCE_S = 30


def begins(**more: Any) -> Commit:
    return Commit(Transit(State("a"), "work", **more))


# ---------------------------------------------------------------- do


async def test_a_commit_that_is_done_again_gives_what_was_stored(engine: Engine) -> None:
    """Though its states have moved on, and nothing that it expects holds."""
    commit = Commit(
        Transit(State("a").attach("order", {"pears": 2}), "work", timeout=5), Pause(State("b"))
    )
    first = await engine.do(commit, commit_id="mine")
    await engine.do(Commit(End(first[0])))
    assert await engine.do(commit, commit_id="mine") == first
    assert [state.rev for state in first] == [1, 2]
    assert await engine.driver.head() == 3


async def test_what_is_no_longer_legal_may_be_done_again(engine: Engine) -> None:
    """A handler reads the state each time; the second time it has ended."""
    await engine.do(Commit(Pause(State("a"), "work")))

    async def handle() -> State:
        state = await engine.get("a")
        (resumed,) = await engine.do(Commit(Resume(state)), commit_id="request-1")
        return resumed

    first = await handle()
    assert first.transition.status is Status.RUNNING
    await engine.do(Commit(End(first)))
    assert await handle() == first


async def test_what_was_required_is_given_as_it_is_given(engine: Engine) -> None:
    (guard,) = await engine.do(Commit(Pause(State("guard"))))
    commit = Commit(Pause(State("a")), Require(guard), Pause(State("b")))
    first = await engine.do(commit, commit_id="mine")
    await engine.do(Commit(End(guard)))
    assert await engine.do(commit, commit_id="mine") == first
    assert [state.id for state in first] == ["a", "guard", "b"]


async def test_other_content_under_the_same_id_is_refused(engine: Engine) -> None:
    (a,) = await engine.do(begins(), commit_id="mine")
    for other in (
        Commit(Transit(State("b"), "work")),
        Commit(Transit(State("a"), "other")),
        Commit(Transit(State("a").attach("order", b"pears"), "work")),
        Commit(Transit(a, "work"), Transit(State("b"), "work")),
    ):
        with pytest.raises(CommitIdReusedError) as refused:
            await engine.do(other, commit_id="mine")
        assert (refused.value.commit_id, refused.value.rev) == ("mine", a.rev)
    assert await engine.driver.head() == a.rev


async def test_a_refused_commit_may_be_done_again(engine: Engine) -> None:
    """Only what was stored counts."""
    (a,) = await engine.do(Commit(Pause(State("a"))))
    (newer,) = await engine.do(Commit(Pause(a)))
    with pytest.raises(RevMismatchError):
        await engine.do(Commit(End(a)), commit_id="mine")
    (ended,) = await engine.do(Commit(End(newer)), commit_id="mine")
    assert await engine.do(Commit(End(a)), commit_id="mine") == (ended,)


async def test_other_ids_are_other_commits(engine: Engine) -> None:
    (a,) = await engine.do(Commit(Pause(State("a"))), commit_id="1")
    (b,) = await engine.do(Commit(Pause(a)), commit_id="2")
    (c,) = await engine.do(Commit(Pause(b)), commit_id="3")
    assert [a.rev, b.rev, c.rev] == [1, 2, 3]


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_lost_answer_is_asked_for_as_ever(
    store: Driver, flows: Flows, clock: VirtualClock, fault: Fault
) -> None:
    """What was stored is this very commit: what it has taken is run, and not waited for."""
    given = add(flows, "work", ends)
    unsure = FaultDriver(store, [fault])
    async with Engine(unsure, flows, clock=clock) as engine:
        with anyio.fail_after(PATIENCE_S):
            ended = await engine.execute(begins(), commit_id="mine")
        assert ended.transition.status is Status.ENDED
    assert unsure.lost == 1
    assert len(given) == 1
    assert ended.rev == 2


async def test_of_two_engines_at_once_one_does_it(
    store: Driver, engine: Engine, clock: VirtualClock
) -> None:
    """The other gets what that has stored."""
    got: list[tuple[State, ...]] = []

    async def do(engine: Engine) -> None:
        got.append(await engine.do(begins(), commit_id="mine"))

    async with Engine(store, clock=clock) as other, anyio.create_task_group() as tasks:
        for each in (engine, other) * 5:
            tasks.start_soon(do, each)
    assert got == [got[0]] * 10
    assert await store.head() == 1


@pytest.mark.parametrize("command", [Noop(), Pause(State("a")), State("a")])
@pytest.mark.parametrize("method", ["do", "execute", "start"])
async def test_only_commits_have_ids(engine: Engine, method: str, command: Any) -> None:
    with pytest.raises(InvalidValueError, match="commit_id: is only for a Commit"):
        await getattr(engine, method)(command, commit_id="mine")


@pytest.mark.parametrize("commit", [Commit(), Commit(Noop())])  # type: ignore[arg-type]
async def test_what_is_no_commit_is_refused_as_ever(engine: Engine, commit: Commit) -> None:
    with pytest.raises(InvalidValueError, match="Commit"):
        await engine.do(commit, commit_id="mine")


# ---------------------------------------------------------------- execute and start


async def test_a_program_can_be_run_again(engine: Engine, flows: Flows) -> None:
    given = add(flows, "work", ends)
    first = await engine.execute(begins(), commit_id="order-1")
    again = await engine.execute(begins(), commit_id="order-1")
    await engine.start(begins(), commit_id="order-1")
    await engine.idle()
    assert first == again
    assert first.transition.status is Status.ENDED
    assert len(given) == 1


@pytest.mark.parametrize("method", ["execute", "start"])
async def test_what_was_left_goes_on_from_its_newest_version(
    engine: Engine, flows: Flows, method: str
) -> None:
    """The first run came as far as the second step."""
    add(flows, "work", ends)
    last = add(flows, "last", ends)
    (state,) = await engine.do(begins(), commit_id="mine")
    (newest,) = await engine.do(Commit(Transit(state, "last")))
    await getattr(engine, method)(begins(), commit_id="mine")
    await engine.idle()
    assert last == [newest]
    assert [state.rev for state in await history(engine, "a")] == [1, 2, 3]


@pytest.mark.parametrize("method", ["execute", "start"])
async def test_what_rested_then_and_runs_now_goes_on(
    engine: Engine, flows: Flows, method: str
) -> None:
    """The newest version counts, whatever the commit stored."""
    given = add(flows, "work", ends)
    commit = Commit(Pause(State("a"), "work"))
    (paused,) = await engine.do(commit, commit_id="mine")
    (resumed,) = await engine.do(Commit(Resume(paused)))
    await getattr(engine, method)(commit, commit_id="mine")
    await engine.idle()
    assert given == [resumed]


async def test_what_rests_is_given_as_it_rests(engine: Engine, flows: Flows) -> None:
    def waits(state: State) -> Command[Any]:
        return Commit(Delay(state, to="work", after=60))

    given = add(flows, "work", waits)
    first = await engine.execute(begins(), commit_id="mine")
    assert await engine.execute(begins(), commit_id="mine") == first
    await engine.start(begins(), commit_id="mine")
    await engine.idle()
    assert first.transition.status is Status.DELAYED
    assert len(given) == 1


async def test_what_somebody_else_runs_is_waited_for(
    store: Driver, flows: Flows, engine: Engine, clock: VirtualClock
) -> None:
    """The same program, twice at the same time: the flow runs once, and both get how it ends."""
    given = add(flows, "work", ends)
    got: list[State] = []

    async def execute(engine: Engine) -> None:
        got.append(await engine.execute(begins(), commit_id="mine"))

    async with Engine(store, flows, clock=clock) as other, anyio.create_task_group() as tasks:
        tasks.start_soon(execute, engine)
        tasks.start_soon(execute, other)
    assert len(given) == 1
    assert [state.rev for state in got] == [2, 2]


# ---------------------------------------------------------------- compaction


async def test_in_place_of_what_was_removed_comes_what_is_current(
    engine: Engine, clock: VirtualClock
) -> None:
    commit = Commit(Pause(State("a")), Pause(State("b")))
    a, b = await engine.do(commit, commit_id="mine")
    (newest,) = await engine.do(Commit(Pause(a)))
    await clock.wait_until(clock.now() + 1_000)
    await engine.compact(0).finish()
    assert await engine.driver.get("a", a.rev) is None
    assert await engine.do(commit, commit_id="mine") == (newest, b)


async def test_what_went_whole_is_not_done_again(engine: Engine, clock: VirtualClock) -> None:
    """The id is remembered: it was done, and there is nothing to give."""
    await engine.do(Commit(End(State("a"))), commit_id="mine")
    await engine.do(Commit(Pause(State("newest"))))
    await clock.wait_until(clock.now() + 1_000)
    await engine.compact(0, ended=True).finish()
    with pytest.raises(StateNotFoundError, match="compaction has removed it since"):
        await engine.do(Commit(End(State("a"))), commit_id="mine")
    assert [state.id async for state in engine.states(Query())] == ["newest"]


async def test_ids_are_remembered_for_as_long_as_is_asked(
    engine: Engine, clock: VirtualClock
) -> None:
    """Seven days, if nothing else is said."""
    day = 24 * 3_600_000
    commit = Commit(End(State("a")))
    await engine.do(commit, commit_id="mine")
    await engine.do(Commit(Pause(State("newest"))))
    await clock.wait_until(clock.now() + 7 * day)
    await engine.compact(0, ended=True).finish()
    assert await engine.driver.record("mine") is not None
    await clock.wait_until(clock.now() + 1)
    await engine.compact(0, dry_run=True).finish()
    assert await engine.driver.record("mine") is not None
    await engine.compact(0).finish()
    assert await engine.driver.record("mine") is None
    (again,) = await engine.do(commit, commit_id="mine")
    assert again.rev == 3
    await clock.wait_until(clock.now() + 1)
    await engine.compact(30 * day, commit_ids=0).finish()
    assert await engine.driver.record("mine") is None


async def test_any_number_of_ids_is_forgotten(engine: Engine, clock: VirtualClock) -> None:
    """A run ends when there is none left, though no version is removed."""
    for n in range(250):
        await engine.do(Commit(Pause(State(f"{n}"))), commit_id=f"{n}")
    await clock.wait_until(clock.now() + 1)
    await engine.compact(clock.now() / 1_000, commit_ids=0).finish()
    assert [await engine.driver.record(f"{n}") for n in range(250)] == [None] * 250
    assert len([state async for state in engine.states(Query())]) == 250
