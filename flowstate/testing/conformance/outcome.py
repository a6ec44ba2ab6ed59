"""Law 5, known outcome: a commit whose answer was lost is committed again, and happens once."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from ...commands import Commit, End, Require, Transit
from ...data import DataRef
from ...driver import Driver
from ...engine import Engine
from ...errors import RevMismatchError, UnknownOutcomeError
from ...plan import Plan, Record, RecordedError
from ...state import MAX_ID_BYTES, State
from ..faults import Fault, FaultDriver
from ..store import Store
from .base import Laws, create, keyed, move, plan
from .runs import EVERYTHING, WITH_ENDED, compact, stored


class OutcomeLaws(Laws):
    @pytest.fixture(params=list(Fault), ids=lambda fault: str(fault.value))
    def fault(self, request: pytest.FixtureRequest) -> Fault:
        fault: Fault = request.param
        return fault

    async def test_a_lost_commit_that_is_committed_again_happens_once(
        self, store: Store, driver: Driver, fault: Fault
    ) -> None:
        """A commit whose answer was lost, before or after it happened, has happened once when it
        was committed again, and what that gives is what is stored."""
        creation = plan(Transit(State("a"), "work"))
        await _lose(driver, creation, fault)
        (again,) = await driver.commit(creation)
        assert [version.commit_id for version in store.raw_versions()] == [creation.commit_id]
        assert await driver.get("a") == again

    async def test_every_state_of_a_lost_commit_is_given_back(
        self, store: Store, driver: Driver, fault: Fault
    ) -> None:
        """The outcome of a commit of several states, new and old, is all of them, in order."""
        a, b = await create(driver, "a", "b")
        many = plan(
            Transit(b, "x"), Transit(State("c"), "x"), Transit(a, "x"), Transit(State("d"), "x")
        )
        await _lose(driver, many, fault)
        again = await driver.commit(many)
        assert [state.id for state in again] == ["b", "c", "a", "d"]
        assert [await driver.get(state.id) for state in again] == list(again)
        assert len(store.raw_versions()) == 6

    async def test_the_first_outcome_stands_after_others_moved_on(
        self, store: Store, driver: Driver
    ) -> None:
        """When every state that a commit wrote was moved since, committing it again gives the
        first outcome: the versions as they were written then."""
        (a,) = await create(driver, "a")
        first = plan(Transit(a, "x"), Transit(State("b"), "x"))
        await _lose(driver, first, Fault.AFTER)
        written = [await driver.get("a"), await driver.get("b")]
        for _ in range(3):
            for id in ("a", "b"):
                latest = await driver.get(id)
                assert latest is not None
                await move(driver, latest)
        before = store.raw_versions()
        assert list(await driver.commit(first)) == written
        assert store.raw_versions() == before

    async def test_the_first_outcome_stands_after_some_moved_on(
        self, store: Store, driver: Driver
    ) -> None:
        """When some of the states that a commit wrote were moved since, committing it again gives
        the first outcome."""
        first = plan(*(Transit(State(id), "x") for id in ("a", "b", "c")))
        await _lose(driver, first, Fault.AFTER)
        written = [await driver.get(id) for id in ("a", "b", "c")]
        b = written[1]
        assert b is not None
        await move(driver, b)
        assert list(await driver.commit(first)) == written
        assert len(store.raw_versions()) == 4

    async def test_the_first_outcome_stands_though_a_requirement_no_longer_holds(
        self, store: Store, driver: Driver
    ) -> None:
        """What a commit required counted when it happened, and not when it is committed again."""
        a, guard = await create(driver, "a", "guard")
        guarded = plan(Transit(a, "x"), Require(guard))
        await _lose(driver, guarded, Fault.AFTER)
        await move(driver, guard)
        (again,) = await driver.commit(guarded)
        assert again == await driver.get("a")
        assert len(store.raw_versions()) == 4

    async def test_a_commit_that_was_lost_before_it_happened_can_still_lose_a_race(
        self, driver: Driver
    ) -> None:
        """A commit that was lost before it happened, and is committed again after another one, is
        refused."""
        (a,) = await create(driver, "a")
        lost = plan(Transit(a, "x"))
        await _lose(driver, lost, Fault.BEFORE)
        new = await move(driver, a)
        with pytest.raises(RevMismatchError) as refused:
            await driver.commit(lost)
        assert refused.value.conflicts == {"a": (a.rev, new.rev)}

    async def test_an_equal_commit_under_another_id_is_another_commit(self, driver: Driver) -> None:
        """Only the commit id makes two plans the same one: the same content from someone else is
        a conflict."""
        (a,) = await create(driver, "a")
        mine, theirs = plan(Transit(a, "x")), plan(Transit(a, "x"))
        (new,) = await driver.commit(theirs)
        with pytest.raises(RevMismatchError) as refused:
            await driver.commit(mine)
        assert refused.value.conflicts == {"a": (a.rev, new.rev)}

    async def test_a_refused_commit_may_hold_later(self, store: Store, driver: Driver) -> None:
        """A refusal is not stored as an outcome: a plan that was refused is written once it
        holds."""
        waits = plan(Transit(State("b"), "x"), Require(State("a", rev=1)))
        with pytest.raises(RevMismatchError):
            await driver.commit(waits)
        (a,) = await create(driver, "a")
        waits = Plan(waits.commit_id, waits.writes, (("a", a.rev),))
        assert [state.id for state in await driver.commit(waits)] == ["b"]
        assert [version.id for version in store.raw_versions()] == ["a", "b"]

    async def test_payloads_of_a_lost_commit_are_stored_once(
        self, store: Store, driver: Driver, fault: Fault
    ) -> None:
        """Committing a plan with payloads again gives references that load, and stores no payload
        twice."""
        carrying = plan(Transit(State("a").attach("order", b"pears"), "x"))
        await _lose(driver, carrying, fault)
        (again,) = await driver.commit(carrying)
        ref = again.data["order"]
        assert isinstance(ref, DataRef)
        assert ref.rev == again.rev
        assert await driver.load(ref) == b"pears"
        assert store.raw_payloads() == [(ref.rev, ref.checksum)]

    async def test_a_plan_committed_twice_at_the_same_time_happens_once(
        self, store: Store, driver: Driver
    ) -> None:
        """Any number of tasks may commit the same plan at once: it happens once, and all get the
        same outcome."""
        once = plan(Transit(State("a"), "x"), Transit(State("b"), "x"))
        outcomes: list[tuple[State, ...]] = []

        async def commit() -> None:
            outcomes.append(await driver.commit(once))

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(commit)
        assert outcomes == [outcomes[0]] * 10
        assert len(store.raw_versions()) == 2

    async def test_another_driver_knows_the_outcome(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """Commit ids are in the store: another driver gives the first outcome too."""
        first = plan(Transit(State("a"), "x"), Transit(State("b"), "x"))
        outcome = await driver.commit(first)
        await move(driver, outcome[0])
        async with shared_store.driver() as other:
            assert await other.commit(first) == outcome

    async def test_the_outcome_is_known_after_reopening(self, persistent_store: Store) -> None:
        """After every driver was closed, committing again gives the first outcome."""
        first = plan(Transit(State("a"), "x"), Transit(State("b"), "x"))
        async with persistent_store.driver() as driver:
            outcome = await driver.commit(first)
            await move(driver, outcome[0])
        async with persistent_store.driver() as driver:
            assert await driver.commit(first) == outcome
        assert len(persistent_store.raw_versions()) == 3

    async def test_a_cancelled_commit_happened_or_did_not(
        self, store: Store, driver: Driver
    ) -> None:
        """A task that is cancelled while it commits can commit the plan again: it happens once, and
        commits of other tasks are not affected."""
        chance = random.Random(7)
        plans = [plan(*(Transit(State(f"{n}/{k}"), "x") for k in range(3))) for n in range(60)]

        async def commit(each: Plan, turns: int) -> None:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(driver.commit, each)
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for each in plans:
                    tasks.start_soon(commit, each, chance.randrange(6))
            for each in plans:
                again = await driver.commit(each)
                assert [await driver.get(state.id) for state in again] == list(again)
        stored = Counter(version.commit_id for version in store.raw_versions())
        assert stored == {each.commit_id: 3 for each in plans}

    async def test_the_engine_commits_again_by_itself(
        self, store: Store, driver: Driver, fault: Fault
    ) -> None:
        """``Engine.do`` gives the outcome as if no answer had been lost, and it happens once."""
        unsure = FaultDriver(driver, [fault, None, fault])
        async with Engine(unsure) as engine:
            (a,) = await engine.do(Commit(Transit(State("a"), "x")))
            b, _ = await engine.do(Commit(Transit(State("b"), "x"), Require(a)))
        assert unsure.lost == 2
        assert (await driver.get("a"), await driver.get("b")) == (a, b)
        assert [version.id for version in store.raw_versions()] == ["a", "b"]

    async def test_no_commit_of_a_series_is_lost_or_doubled(
        self, store: Store, driver: Driver
    ) -> None:
        """Of commits that build on each other none is lost and none happens twice, though answers
        are lost all the time, before and after a commit happened."""
        unsure = FaultDriver(driver, itertools.cycle([None, Fault.AFTER, None, Fault.BEFORE]))
        async with Engine(unsure) as engine:
            (state,) = await engine.do(Commit(Transit(State("a"), "x")))
            for count in range(1, 6):
                counted = state.with_annotations(count=str(count))
                (state,) = await engine.do(Commit(Transit(counted, "x")))
        assert unsure.lost > 0
        assert state == await driver.get("a")
        assert [version.id for version in store.raw_versions()] == ["a"] * 6

    # ------------------------------------------------------------ after compaction

    async def test_an_outcome_is_known_while_a_version_of_it_is_left(
        self, store: Store, driver: Driver
    ) -> None:
        """While one version that a commit wrote is left, committing it again gives all that it
        wrote, compacted versions too."""
        a, b = await create(driver, "a", "b")
        both = plan(Transit(b.attach("order", b"pears"), "x"), Transit(a, "x"))
        outcome = await driver.commit(both)
        await move(driver, outcome[0])
        await compact(driver, EVERYTHING)
        assert await driver.get("b", outcome[0].rev) is None
        before = stored(store)
        assert await driver.commit(both) == outcome
        assert stored(store) == before

    async def test_when_all_that_a_commit_wrote_is_gone_it_is_refused(
        self, store: Store, driver: Driver
    ) -> None:
        """When all versions that a commit wrote were removed, committing it again conflicts with
        what its states are now."""
        (a,) = await create(driver, "a")
        once = plan(Transit(a, "x"))
        (moved,) = await driver.commit(once)
        new = await move(driver, moved)
        await compact(driver, EVERYTHING)
        before = stored(store)
        with pytest.raises(RevMismatchError) as refused:
            await driver.commit(once)
        assert refused.value.conflicts == {"a": (a.rev, new.rev)}
        assert stored(store) == before

    async def test_what_went_whole_can_be_created_again_by_the_same_plan(
        self, driver: Driver
    ) -> None:
        """When a state was removed whole, the plan that created it holds once more."""
        once = plan(End(State("a")))
        (first,) = await driver.commit(once)
        await create(driver, "newest")
        await compact(driver, WITH_ENDED)
        (again,) = await driver.commit(once)
        assert again.rev > first.rev
        assert await driver.commit(once) == (again,)


class RecordLaws(Laws):
    """Commits that their callers gave ids."""

    async def test_a_commit_under_an_id_of_its_callers_is_recorded(self, driver: Driver) -> None:
        """What is recorded under the id of a caller is which commit that was, where it begins and
        when it was; under another id nothing is."""
        await create(driver, "a", "b")
        first = keyed("mine", Transit(State("c"), "x"), Transit(State("d"), "x"))
        c, _ = await driver.commit(first)
        assert await driver.record("mine") == _record_of(first, c)
        assert await driver.record("other") is None
        assert await driver.record(first.commit_id) is None

    async def test_what_is_recorded_decides_before_any_expectation(
        self, store: Store, driver: Driver
    ) -> None:
        """A commit under an id that is recorded is told of the record, and nothing of it is stored,
        whether its expectations hold or not."""
        first = keyed("mine", Transit(State("a"), "x"))
        (a,) = await driver.commit(first)
        before = store.raw_versions()
        for other in (Transit(State("a"), "x"), Transit(State("b"), "x"), Transit(a, "x")):
            with pytest.raises(RecordedError) as refused:
                await driver.commit(keyed("mine", other))
            assert refused.value.id == "mine"
            assert refused.value.record == _record_of(first, a)
        assert store.raw_versions() == before
        assert await driver.record("mine") == _record_of(first, a)

    async def test_a_refused_commit_is_not_recorded(self, driver: Driver) -> None:
        """A commit that was refused leaves its caller's id free."""
        (a,) = await create(driver, "a")
        await move(driver, a)
        with pytest.raises(RevMismatchError):
            await driver.commit(keyed("mine", Transit(a, "x")))
        assert await driver.record("mine") is None
        second = keyed("mine", Transit(State("b"), "x"))
        (b,) = await driver.commit(second)
        assert await driver.record("mine") == _record_of(second, b)

    async def test_a_recorded_commit_that_is_committed_again_gives_its_outcome(
        self, store: Store, driver: Driver
    ) -> None:
        """The same plan, as after a lost answer, gives what it wrote, though its states were moved
        since and compaction has removed all of it."""
        once = keyed("mine", Transit(State("a"), "x"), Transit(State("b"), "x"))
        await _lose(driver, once, Fault.AFTER)
        outcome = await driver.commit(once)
        assert [await driver.get("a"), await driver.get("b")] == list(outcome)
        for state in outcome:
            await move(driver, state)
        await compact(driver, EVERYTHING)
        before = stored(store)
        assert await driver.commit(once) == outcome
        assert stored(store) == before

    async def test_a_commit_that_only_requires_is_recorded(
        self, store: Store, driver: Driver
    ) -> None:
        """A commit that writes no version is recorded as any other."""
        (a,) = await create(driver, "a")
        first = keyed("mine", Require(a))
        assert await driver.commit(first) == ()
        record = await driver.record("mine")
        assert record is not None
        assert record.commit_id == first.commit_id
        await move(driver, a)
        with pytest.raises(RecordedError):
            await driver.commit(keyed("mine", Require(a)))
        assert await driver.commit(first) == ()
        assert len(store.raw_versions()) == 2

    async def test_one_of_many_commits_under_one_id_wins(
        self, store: Store, driver: Driver
    ) -> None:
        """Of many who commit at the same time under one id, one does, and all others are told of
        that."""
        plans = [keyed("mine", Transit(State(f"{n}"), "x")) for n in range(10)]
        won: list[tuple[Plan, State]] = []
        told: list[Record] = []

        async def commit(each: Plan) -> None:
            try:
                (state,) = await driver.commit(each)
            except RecordedError as refused:
                told.append(refused.record)
            else:
                won.append((each, state))

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for each in plans:
                    tasks.start_soon(commit, each)
        assert len(won) == 1
        assert told == [_record_of(*won[0])] * 9
        assert len(store.raw_versions()) == 1

    async def test_an_id_of_a_caller_is_no_commit_id(self, store: Store, driver: Driver) -> None:
        """The ids of callers and the commit ids of plans are two kinds: the same text as one and as
        the other is two commits."""
        plain = plan(Transit(State("a"), "x"))
        await driver.commit(plain)
        (b,) = await driver.commit(keyed(plain.commit_id, Transit(State("b"), "x")))
        (c,) = await driver.commit(keyed("mine", Transit(State("c"), "x")))
        (d,) = await driver.commit(replace(plan(Transit(State("d"), "x")), commit_id="mine"))
        assert [b.id, c.id, d.id] == ["b", "c", "d"]
        assert len(store.raw_versions()) == 4

    async def test_the_ids_of_callers_are_told_apart(self, driver: Driver) -> None:
        """Ids are compared as they are, to the last character of the longest."""
        long = "x" * (MAX_ID_BYTES - 1)
        ids = ["a", "A", "a ", "\u00e9", "e\u0301", "1", "01", "%", "a%", f"{long}1", f"{long}2"]
        recorded: dict[str, Record] = {}
        for n, id in enumerate(ids):
            each = keyed(id, Transit(State(f"{n}"), "x"))
            (state,) = await driver.commit(each)
            recorded[id] = _record_of(each, state)
        assert {id: await driver.record(id) for id in ids} == recorded

    async def test_another_driver_knows_what_is_recorded(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """Records are in the store: another driver is told of them too."""
        first = keyed("mine", Transit(State("a"), "x"))
        (a,) = await driver.commit(first)
        async with shared_store.driver() as other:
            assert await other.record("mine") == _record_of(first, a)
            with pytest.raises(RecordedError):
                await other.commit(keyed("mine", Transit(State("b"), "x")))

    async def test_records_are_there_after_reopening(self, persistent_store: Store) -> None:
        """After every driver was closed, what was recorded is there."""
        first = keyed("mine", Transit(State("a"), "x"))
        async with persistent_store.driver() as driver:
            (a,) = await driver.commit(first)
        async with persistent_store.driver() as driver:
            assert await driver.record("mine") == _record_of(first, a)

    async def test_compaction_leaves_records(self, driver: Driver) -> None:
        """A record stays though everything that its commit wrote was removed."""
        first = keyed("mine", End(State("a")))
        (a,) = await driver.commit(first)
        await create(driver, "newest")
        await compact(driver, WITH_ENDED)
        assert await driver.get("a") is None
        assert await driver.record("mine") == _record_of(first, a)

    async def test_records_go_by_their_own_age(self, store: Store, driver: Driver) -> None:
        """Those records are forgotten that are older than the time that is given, to the
        millisecond, the oldest first and no more than the limit; versions stay. What was forgotten
        can be committed again."""
        times: list[int] = []
        while len(set(times)) < 3:
            n = len(times)
            (state,) = await driver.commit(keyed(f"k{n}", Transit(State(f"{n}"), "x")))
            times.append(state.committed_at)
        before = sorted(set(times))[1]
        old = [n for n, at in enumerate(times) if at < before]
        versions = store.raw_versions()
        assert await driver.forget_records(before, 1) == 1
        assert await driver.forget_records(before, 1_000_000) == len(old) - 1
        assert await driver.forget_records(before, 1_000_000) == 0
        left = [n for n in range(len(times)) if await driver.record(f"k{n}") is not None]
        assert left == [n for n, at in enumerate(times) if at >= before]
        assert store.raw_versions() == versions
        (again,) = await driver.commit(keyed("k0", Transit(State("again"), "x")))
        assert again.id == "again"


def _record_of(planned: Plan, first: State) -> Record:
    """What is to be recorded of a plan whose first version that is."""
    assert planned.key is not None
    return Record(planned.key.digest, planned.commit_id, first.rev, first.committed_at)


async def _lose(driver: Driver, lost: Plan, fault: Fault) -> None:
    """Commit a plan, and lose the answer before or after it happens."""
    with pytest.raises(UnknownOutcomeError):
        await FaultDriver(driver, [fault]).commit(lost)
