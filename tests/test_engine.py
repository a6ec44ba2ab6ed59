"""The engine: what ``do`` gives, what reading gives, and what is refused."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import anyio
import pytest
from msgspec import Struct

from flowstate import (
    Alarm,
    Commit,
    DataNotFoundError,
    DataRef,
    DecodeError,
    Delay,
    Driver,
    End,
    Engine,
    EngineClosedError,
    Execute,
    Flows,
    IllegalTransitionError,
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
    StoreCorruptError,
    TooLargeError,
    Transit,
    UnknownOutcomeError,
)
from flowstate.drivers.memory import MemoryDriver
from flowstate.plan import Plan
from flowstate.testing import Fault, FaultDriver, VirtualClock

from .helpers import NOW, FixedClock, begin

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------- do


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (Transit(State("a"), "x"), Status.RUNNING),
        (Pause(State("a")), Status.PAUSED),
        (Delay(State("a"), "x", after=1), Status.DELAYED),
        (End(State("a")), Status.ENDED),
    ],
)
async def test_a_bare_move_is_done_in_memory_only(
    engine: Engine, command: Any, expected: Status
) -> None:
    state = await engine.do(command)
    assert expected is state.transition.status
    assert await engine.driver.head() == 0


async def test_a_commit_stores_and_gives_its_states_in_order(engine: Engine) -> None:
    first, second = await engine.do(Commit(Pause(State("a")), Transit(State("b"), "x")))
    assert (first.id, first.rev, second.id, second.rev) == ("a", 1, "b", 2)
    assert first == await engine.get("a")
    assert second == await engine.get("b")


async def test_a_commit_is_all_or_nothing(engine: Engine) -> None:
    (stored,) = await engine.do(Commit(Pause(State("a"))))
    with pytest.raises(RevMismatchError) as raised:
        await engine.do(Commit(Pause(State("new")), Pause(State("a")), End(State("gone", rev=7))))
    assert raised.value.conflicts == {"a": (0, stored.rev), "gone": (7, 0)}
    assert await engine.driver.head() == stored.rev
    with pytest.raises(StateNotFoundError):
        await engine.get("new")


async def test_an_illegal_command_in_a_commit_changes_nothing(engine: Engine) -> None:
    with pytest.raises(IllegalTransitionError):
        await engine.do(Commit(Pause(State("a")), Resume(State("b"))))
    assert await engine.driver.head() == 0


async def test_do_records_and_does_not_run(engine: Engine, flows: Flows) -> None:
    @flows.flow
    async def never(state: State, engine: Engine) -> Any:
        raise AssertionError("do runs no flow")

    state = await begin(engine, "a", "never")
    await anyio.wait_all_tasks_blocked()
    assert state == await engine.get("a")


async def test_execute_as_a_command_runs_the_state_in_the_background(
    engine: Engine, flows: Flows
) -> None:
    @flows.flow
    async def finish(state: State, engine: Engine) -> Any:
        return Commit(End(state))

    state = await begin(engine, "a", "finish")
    await engine.do(Execute(state))
    assert (await engine.wait("a", Status.ENDED)).transition.status is Status.ENDED


async def test_noop_does_nothing(engine: Engine) -> None:
    await engine.do(Noop())
    assert await engine.driver.head() == 0


async def test_the_time_of_an_alarm_is_by_the_engine_s_clock(
    engine: Engine, clock: FixedClock
) -> None:
    clock.ms = NOW + 5
    delayed = await engine.do(Delay(State("a"), "x", after=1))
    assert delayed.transition.alarm == Alarm(NOW + 1_005, "x")


# ---------------------------------------------------------------- Require


async def test_require_holds_and_gives_its_state_back_in_its_place(engine: Engine) -> None:
    """What is required is neither written nor changed; results keep the order of commands."""
    (lock,) = await engine.do(Commit(Pause(State("lock"))))
    first, required, last = await engine.do(
        Commit(Pause(State("a")), Require(lock), Pause(State("b")))
    )
    assert (first.id, last.id) == ("a", "b")
    assert required is lock
    assert lock == await engine.get("lock")


async def test_require_fails_if_its_state_has_moved_on(engine: Engine) -> None:
    (lock,) = await engine.do(Commit(Pause(State("lock"))))
    (moved,) = await engine.do(Commit(Pause(lock)))
    with pytest.raises(RevMismatchError) as raised:
        await engine.do(Commit(Pause(State("a")), Require(lock)))
    assert raised.value.conflicts == {"lock": (lock.rev, moved.rev)}
    with pytest.raises(StateNotFoundError):
        await engine.get("a")


async def test_requiring_a_state_that_was_never_committed_means_that_it_must_not_exist(
    engine: Engine,
) -> None:
    await engine.do(Commit(Pause(State("a")), Require(State("absent"))))
    (present,) = await engine.do(Commit(Pause(State("absent"))))
    with pytest.raises(RevMismatchError) as raised:
        await engine.do(Commit(Pause(State("b")), Require(State("absent"))))
    assert raised.value.conflicts == {"absent": (0, present.rev)}


async def test_a_commit_may_only_require(engine: Engine) -> None:
    (lock,) = await engine.do(Commit(Pause(State("lock"))))
    assert await engine.do(Commit(Require(lock))) == (lock,)
    assert await engine.driver.head() == lock.rev


# ---------------------------------------------------------------- limits


async def test_a_state_over_the_limit_is_refused_and_nothing_is_stored(engine: Engine) -> None:
    """1 MiB, encoded, unless the engine is told otherwise."""
    large = State("a", annotations={"note": "x" * (1 << 20)})
    with pytest.raises(TooLargeError, match=r"state 'a': is .* the limit is 1,048,576") as raised:
        await engine.do(Commit(Pause(State("b")), Pause(large)))
    assert (raised.value.limit, raised.value.option) == (1 << 20, "max_state_size")
    assert await engine.driver.head() == 0


async def test_data_over_the_limit_is_refused_and_nothing_is_stored(engine: Engine) -> None:
    """16 MiB unless the engine is told otherwise."""
    large = State("a").attach("film", bytes((16 << 20) + 1))
    with pytest.raises(TooLargeError, match="data 'film' of state 'a': is 16,777,217") as raised:
        await engine.do(Commit(Pause(large)))
    assert (raised.value.limit, raised.value.option) == (16 << 20, "max_data_size")
    assert await engine.driver.head() == 0


async def test_data_of_a_stacked_state_has_the_same_limit(driver: Driver) -> None:
    async with Engine(driver, max_data_size=10) as engine:
        carrying = State("a").stack("caller", State("b").attach("film", bytes(11)))
        with pytest.raises(TooLargeError, match="data of a stacked state"):
            await engine.do(Commit(Pause(carrying)))


async def test_the_limits_are_options_of_the_engine(driver: Driver) -> None:
    async with Engine(driver, max_state_size=300, max_data_size=10) as engine:
        await engine.do(Commit(Pause(State("a").attach("d", bytes(10)))))
        with pytest.raises(TooLargeError, match="the limit is 10"):
            await engine.do(Commit(Pause(State("b").attach("d", bytes(11)))))
        with pytest.raises(TooLargeError, match="the limit is 300"):
            await engine.do(Commit(Pause(State("b", annotations={"note": "x" * 300}))))


async def test_data_that_is_stored_already_is_not_measured_again(driver: Driver) -> None:
    async with Engine(driver) as engine:
        (state,) = await engine.do(Commit(Pause(State("a").attach("large", bytes(100)))))
    async with Engine(driver, max_data_size=10) as engine:
        (state,) = await engine.do(Commit(Pause(state.attach("small", bytes(10)))))
        assert await engine.data(state, "large") == bytes(100)


# ---------------------------------------------------------------- data


class Order(Struct, frozen=True):
    item: str
    count: int


async def test_data_is_decoded_as_the_type_that_is_asked_for(engine: Engine) -> None:
    (state,) = await engine.do(Commit(Pause(State("a").attach("order", Order("tea", 2)))))
    assert await engine.data(state, "order", type=Order) == Order("tea", 2)
    assert await engine.data(state, "order") == {"item": "tea", "count": 2}
    assert await engine.data(state, "order", type=bytes) == b'{"item":"tea","count":2}'


async def test_pending_data_can_be_read_before_it_is_stored(engine: Engine) -> None:
    state = State("a").attach("order", Order("tea", 2))
    assert await engine.data(state, "order", type=Order) == Order("tea", 2)


async def test_data_of_another_type_is_a_decode_error_that_names_it(engine: Engine) -> None:
    state = State("a").attach("order", {"item": "tea"})
    with pytest.raises(DecodeError, match="data 'order' of state 'a': does not decode as Order"):
        await engine.data(state, "order", type=Order)


async def test_bytes_decode_as_nothing_else(engine: Engine) -> None:
    state = State("a").attach("scan", b"raw")
    assert await engine.data(state, "scan") == b"raw"
    with pytest.raises(DecodeError, match="is application/octet-stream, not JSON; ask for type="):
        await engine.data(state, "scan", type=Order)


async def test_json_by_another_name_is_decoded_too(engine: Engine) -> None:
    state = State("a").attach("order", b'{"x":1}', content_type="application/vnd.x+json")
    assert await engine.data(state, "order") == {"x": 1}


async def test_data_that_a_state_does_not_have_is_an_error_that_says_what_it_has(
    engine: Engine,
) -> None:
    state = State("a").attach("order", 1)
    with pytest.raises(DataNotFoundError, match=r"no data 'x' of state 'a' \(it has: 'order'\)"):
        await engine.data(state, "x")


async def test_data_that_the_store_does_not_have_is_an_error(engine: Engine) -> None:
    state = State("a").attach("gone", DataRef(9, 1, "text/plain", "c" * 64))
    with pytest.raises(DataNotFoundError, match=r"no payload c{64} stored at revision 9"):
        await engine.data(state, "gone")


async def test_data_that_is_not_what_was_stored_is_an_error(engine: Engine) -> None:
    class Rotten(MemoryDriver):
        async def load(self, _: DataRef) -> bytes:
            return b"rotten"

    async with Rotten() as driver, Engine(driver) as other:
        async with Engine(driver) as writer:  # whoever wrote it need not read it again
            (state,) = await writer.do(Commit(Pause(State("a").attach("d", b"fresh"))))
        with pytest.raises(StoreCorruptError, match="does not match its checksum"):
            await other.data(state, "d")


# ---------------------------------------------------------------- reading


async def test_an_id_or_revision_that_cannot_be_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidValueError, match="state id: may not be empty"):
        await engine.get("")
    with pytest.raises(InvalidValueError, match="rev: takes a revision"):
        await engine.get("a", rev=-1)
    with pytest.raises(InvalidValueError, match="after: takes a revision"):
        engine.watch(after=-1)


async def test_find_takes_labels_or_a_query(engine: Engine) -> None:
    (first,) = await engine.do(Commit(Pause(State("a", labels={"x": "1"}))))
    (second,) = await engine.do(Commit(End(State("b", labels={"x": "1"}))))
    assert second == await engine.find({"x": "1"})
    assert first == await engine.find(Query(labels={"x": "1"}, status=Status.PAUSED))


async def test_states_end_at_the_head_as_it_was_when_reading_began(engine: Engine) -> None:
    await engine.do(Commit(Pause(State("a")), Pause(State("b"))))
    seen: list[str] = []
    async for state in engine.states():
        seen.append(state.id)
        await engine.do(Commit(Pause(State(f"while {state.id}"))))
    assert seen == ["a", "b"]


async def test_states_tell_where_reading_may_go_on(engine: Engine) -> None:
    await engine.do(Commit(Pause(State("a", labels={"x": "1"})), Pause(State("b"))))
    versions = engine.states({"x": "1"})
    assert [state.id async for state in versions] == ["a"]
    assert versions.rev == 2  # also what was looked at and did not match


async def test_a_query_takes_one_place_to_start_at_most() -> None:
    with pytest.raises(InvalidValueError, match="at most one of after=…, from_now=True and"):
        Query(after=1, latest=True)


# ---------------------------------------------------------------- wait


async def test_wait_gives_the_current_version_if_it_is_as_wanted(engine: Engine) -> None:
    (paused,) = await engine.do(Commit(Pause(State("a"))))
    assert paused == await engine.wait("a", Status.PAUSED)


async def test_wait_waits_by_default_until_the_state_rests(engine: Engine) -> None:
    running = await begin(engine, "a", "x")
    found: list[State] = []

    async def wait() -> None:
        found.append(await engine.wait("a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        (running,) = await engine.do(Commit(Transit(running, "y")))
        await anyio.wait_all_tasks_blocked()
        assert found == []
        (paused,) = await engine.do(Commit(Pause(running)))
    assert found == [paused]


async def test_wait_takes_several_statuses(engine: Engine) -> None:
    (paused,) = await engine.do(Commit(Pause(State("a"))))
    assert paused == await engine.wait("a", [Status.ENDED, Status.PAUSED])


async def test_wait_takes_a_predicate(engine: Engine) -> None:
    (state,) = await engine.do(Commit(Pause(State("a"))))
    found: list[State] = []

    async def wait() -> None:
        found.append(await engine.wait("a", lambda state: state.labels.get("n") == "2"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        for n in "123":
            await anyio.wait_all_tasks_blocked()
            (state,) = await engine.do(Commit(Pause(state.with_labels(n=n))))
    assert [state.labels["n"] for state in found] == ["2"]


async def test_wait_misses_no_version_however_fast_they_come(engine: Engine) -> None:
    (state,) = await engine.do(Commit(Pause(State("a"))))
    found: list[State] = []

    async def wait() -> None:
        found.append(await engine.wait("a", lambda state: state.labels.get("n") == "2"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        for n in "123":  # all of them before the waiting task has its turn
            (state,) = await engine.do(Commit(Pause(state.with_labels(n=n))))
    assert [state.labels["n"] for state in found] == ["2"]


async def test_wait_for_a_state_that_is_not_there_is_an_error(engine: Engine) -> None:
    with pytest.raises(StateNotFoundError, match="no state 'a'"):
        await engine.wait("a", Status.ENDED)


# ---------------------------------------------------------------- a lost answer


@pytest.mark.parametrize("fault", Fault)
async def test_a_commit_whose_answer_was_lost_is_done_again_and_happens_once(
    driver: Driver, fault: Fault
) -> None:
    losing = FaultDriver(driver, [fault, fault])
    async with Engine(losing) as engine:
        (state,) = await engine.do(Commit(Pause(State("a"))))
        assert losing.lost == 2
        assert state == await engine.get("a")
        assert await driver.head() == 1


async def test_a_commit_that_lost_a_race_and_its_answer_is_told_so_in_the_end(
    driver: Driver,
) -> None:
    async with Engine(FaultDriver(driver, [None, Fault.AFTER])) as engine:
        await engine.do(Commit(Pause(State("a"))))
        with pytest.raises(RevMismatchError):
            await engine.do(Commit(End(State("a"))))


async def test_an_answer_that_is_lost_again_and_again_is_given_up(driver: Driver) -> None:
    losing = FaultDriver(driver, cycle([Fault.BEFORE]))
    clock = VirtualClock()
    async with clock.running(), Engine(losing, clock=clock) as engine:
        with pytest.raises(UnknownOutcomeError, match="was lost on purpose"):
            await engine.do(Commit(Pause(State("a"))))
        assert losing.lost == 6


class Recorder(MemoryDriver):
    """Notes the ids of the commits that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[str] = []

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        self.commits.append(plan.commit_id)
        return await super().commit(plan)


async def test_every_commit_has_an_id_of_its_own_also_of_another_engine() -> None:
    async with Recorder() as driver:
        for name in "ab":
            async with Engine(driver) as engine:
                (state,) = await engine.do(Commit(Pause(State(name))))
                await engine.do(Commit(Pause(state)))
        assert len(driver.commits) == len(set(driver.commits)) == 4


# ---------------------------------------------------------------- open and closed


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_engine_that_is_not_open_does_nothing_and_says_so(
    driver: Driver, when: str
) -> None:
    engine = Engine(driver)
    if when == "after":
        async with engine:
            pass
    running = await engine.do(Transit(State("a"), "x"))
    with pytest.raises(EngineClosedError, match="use it inside `async with Engine"):
        await engine.do(Commit(Pause(State("a"))))
    with pytest.raises(EngineClosedError):
        await engine.execute(running)
    with pytest.raises(EngineClosedError):
        await engine.start(running)
    with pytest.raises(EngineClosedError):
        engine.watch()
    assert await driver.head() == 0


async def test_an_engine_is_opened_once(engine: Engine) -> None:
    with pytest.raises(EngineClosedError, match="already open"):
        await engine.__aenter__()


async def test_an_engine_can_be_opened_again(driver: Driver, flows: Flows) -> None:
    @flows.flow
    async def finish(state: State, engine: Engine) -> Any:
        return Commit(End(state))

    engine = Engine(driver, flows)
    for name in "ab":
        async with engine:
            state = await engine.execute(await begin(engine, name, "finish"))
            assert state.transition.status is Status.ENDED


async def test_an_engine_that_was_left_hears_of_no_more_commits(
    driver: Driver, flows: Flows
) -> None:
    """Opened again and again, it costs a commit no more than the first time."""
    engine = Engine(driver, flows)
    for _ in range(3):
        async with engine:
            assert len(listeners(engine)) == 1
        assert listeners(engine) == []


def listeners(engine: Engine) -> list[object]:
    committer = engine._committer  # noqa: SLF001  (nothing else tells who listens)
    return list(committer.listeners)
