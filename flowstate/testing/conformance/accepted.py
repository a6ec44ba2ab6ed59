"""Accepted: what a commit accepts, every way of reading gives back equal, in plain types."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import anyio
import pytest
from attrs import define, field
from msgspec import Struct
from msgspec.structs import replace

from ... import transitions
from ...checks import MAX_WHOLE
from ...commands import Command, End, Require, Transit
from ...data import Data, DataRef
from ...driver import Driver
from ...engine import Engine
from ...errors import DataNotFoundError, InvalidValueError, RevMismatchError
from ...leases import Claimed, Due, lease_ms, ready
from ...plan import Plan, Write
from ...query import Query
from ...retention import Retention
from ...state import Alarm, RetryPolicy, State, Status, Transition
from ...transitions import write_of
from ..odd import Try, fields, odd_parts, tries
from .base import POLICY, Laws, create, due_at, given, plan, put, read_all

HELD = (State, Transition, Alarm, RetryPolicy, Data, DataRef)
"""What a state is, or holds."""
MOVES = tuple(transitions.MOVES)
"""The commands that write a state."""
ASKED = (Query, Retention)
"""What a driver is given besides."""
BATCH = 50
"""States in a commit; one of them may have a megabyte or two."""


class AcceptedLaws(Laws):
    async def test_what_is_accepted_comes_back_equal(self, driver: Driver) -> None:
        """Whatever the fields of a state, and of all that it holds, take when it is made comes back
        equal and in plain types: from the commit, by get, by read, by find and to a watcher."""
        written = Written()
        for each, value in accepted(*HELD):
            written.add(each, holding(value, each, written))
        await written.commit(driver)
        await written.check(driver)

    async def test_what_a_command_accepts_comes_back_equal(self, driver: Driver) -> None:
        """Whatever the fields of a command take comes back equal and in plain types."""
        written = Written()
        for each, _ in accepted(*MOVES):
            command = each.make(written.new_id())
            if type(command) not in transitions.TRANSITIONS[command.state.transition.status]:
                continue  # the field takes any state, the command not in every status
            (write,) = plan(command).writes
            written.add(each, write.state)
        await written.commit(driver)
        await written.check(driver)

    async def test_whatever_flow_it_is_at_it_is_in_line_for_that(self, driver: Driver) -> None:
        """Whatever a flow is called that a state can be at, what is ready for it is found by that
        very name: in the line, by a claim and in holdings."""
        flows = [each.to for _, each in accepted(Transition) if each.to]
        flows = list(dict.fromkeys(flows))
        states = [State(f"{n}", transition=_running(flow)) for n, flow in enumerate(flows)]
        await driver.commit(_plan(states))
        assert sorted(flows) == sorted(await driver.line())
        for state, flow in zip(states, flows, strict=True):
            claimed = await driver.claim({flow: len(flows)}, len(flows), "worker", state.id, 0)
            assert given(claimed) == [state.id]
        held = {(holding.id, holding.flow) for holding in await driver.holdings("worker")}
        assert held == {(state.id, flow) for state, flow in zip(states, flows, strict=True)}
        assert await driver.line() == {}

    async def test_whatever_policy_it_goes_by_comes_back(self, driver: Driver) -> None:
        """Any policy that an engine may have comes back equal with what is due and with what is
        claimed; so does any lease, and any due time."""
        policies = [policy for _, policy in accepted(RetryPolicy)]
        alarms = [alarm for _, alarm in accepted(Alarm) if alarm.then is None]
        writes: list[Write] = []
        for n, policy in enumerate(policies):
            state = State(f"policy {n}", transition=_running("work"))
            writes.append(write_of(state, 0, policy, ready))
        for n, alarm in enumerate(alarms):
            delayed = Transition("work", Status.DELAYED, alarm=alarm)
            writes.append(Write(State(f"alarm {n}", transition=delayed), POLICY))
        versions = await driver.commit(Plan("all of them", tuple(writes)))
        running, waiting = versions[: len(policies)], versions[len(policies) :]
        claimed = await driver.claim({"work": len(policies)}, len(policies), "worker", "1", 0)
        assert set(claimed) == set(map(Claimed, running, policies))
        leases = [lease_ms(policy) for policy in policies]
        expected = {Due(*each) for each in zip(running, leases, policies, strict=True) if each[1]}
        expected |= {due_at(*each) for each in zip(waiting, (a.at for a in alarms), strict=True)}
        page = await driver.due(MAX_WHOLE, len(writes))
        assert len(page.due) == len(expected)
        assert set(page.due) == expected
        assert page.next is None

    async def test_whatever_a_plan_is_called_is_kept(self, driver: Driver) -> None:
        """A plan of any id, committed again, gives its first outcome."""
        commit_ids = {each.given for each, _ in accepted(State) if each.field == "id"}
        for n, commit_id in enumerate(map(str, commit_ids)):
            again = Plan(commit_id, (Write(State(f"{n}")),))
            first = await driver.commit(again)
            assert first == await driver.commit(again), commit_id

    async def test_a_query_that_is_accepted_is_answered(self, driver: Driver) -> None:
        """Whatever the fields of a query take is answered by read and by find with what matches."""
        odd = [each for each, _ in accepted(State) if each.field in {"id", "labels"}]
        written = Written()
        for each in odd:
            written.add(each, each.make(written.new_id()))
        await written.commit(driver)
        log = written.versions
        for each, query in accepted(Query):
            matching = [state for state in log if query.matches(state)]
            found = await read_all(driver, query, query.after, 1_000)
            assert same(found, [state for state in matching if state.rev > query.after]), each.what
            newest = await driver.find(query)
            assert same([newest], matching[-1:] or [None]), each.what
            filtered = replace(query, status=Status.PAUSED)
            page = await driver.read(filtered, query.after, 10)
            assert same(page.versions, ()), each.what

    async def test_a_reference_that_is_accepted_can_be_asked_for(self, driver: Driver) -> None:
        """Whatever a reference says, loading what is not there raises ``DataNotFoundError``."""
        await create(driver, "a")
        for _, ref in accepted(DataRef):
            with pytest.raises(DataNotFoundError):
                await driver.load(ref)

    async def test_a_retention_that_is_accepted_is_counted(self, driver: Driver) -> None:
        """Whatever a retention says can be counted: of states with one version each, none of which
        has ended, nothing goes."""
        await create(driver, "a", "b")
        for each, retention in accepted(Retention):
            batch = await driver.compact(retention, 0, 10, dry_run=True)
            assert batch.versions == 0, each.what

    async def test_a_revision_that_was_never_given_is_a_conflict(self, driver: Driver) -> None:
        """A commit that expects any revision that a state may have is refused if the state is not
        there; commits at the same time are none the worse for it."""
        revs = {value.rev for each, value in accepted(State) if each.field == "rev"} - {0}
        refused: list[dict[str, tuple[int, int]]] = []

        async def refuse(rev: int, command: Command[State]) -> None:
            with pytest.raises(RevMismatchError) as raised:
                await put(driver, Transit(State(f"beside {rev}"), "work"), command)
            refused.append(raised.value.conflicts)

        async with anyio.create_task_group() as tasks:
            for rev in revs:
                tasks.start_soon(refuse, rev, End(State("absent", rev=rev)))
                tasks.start_soon(create, driver, f"innocent {rev}")
                tasks.start_soon(refuse, rev, Require(State("absent", rev=rev)))
        key = operator.itemgetter("absent")
        expected = [{"absent": (rev, 0)} for rev in revs for _ in ("end", "require")]
        assert sorted(refused, key=key) == sorted(expected, key=key)
        assert len(await create(driver, "after that")) == 1
        assert {state.id for state in await read_all(driver)} == {
            "after that",
            *(f"innocent {rev}" for rev in revs),
        }


# ---------------------------------------------------------------- what is accepted


def accepted(*kinds: type[Struct]) -> Iterator[tuple[Try, Any]]:
    """What is tried on the fields of these classes and taken, each value once."""
    seen: set[Any] = set()
    for kind, name in fields():
        if kind not in kinds:
            continue
        for each in tries(kind, name):
            try:
                value = each.make()
            except InvalidValueError:
                continue
            if value not in seen:
                seen.add(value)
                yield each, value


def holding(value: Any, each: Try, written: Written) -> State:
    """A state that is the value, or holds it."""
    id = written.new_id()
    match value:
        case State():
            state: State = each.make(id)
            return state
        case Transition():
            return State(id, transition=value)
        case Alarm():
            delayed = Transition(to="work", status=Status.DELAYED, alarm=value)
            return State(id, transition=delayed)
        case RetryPolicy():
            return State(id, retry=value)
        case _:
            return State(id, data={"it": value})


@define
class Written:
    """States that are committed, and what was tried with each."""

    versions: list[State] = field(factory=list[State])
    """As they were committed."""
    _tried: dict[str, Try] = field(factory=dict[str, Try])
    """id -> what was tried."""
    _pending: list[State] = field(factory=list[State])
    _ids: int = 0

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids}"

    def add(self, each: Try, state: State) -> None:
        """Commit a state later: as it is if it can be a new one, else inside another."""
        if state.rev or state.committed_at:
            state = State(self.new_id(), stacked={"it": state})
        elif state.id in self._tried:
            state = replace(state, id=self.new_id())
        self._tried[state.id] = each
        self._pending.append(state)

    async def commit(self, driver: Driver) -> None:
        """Commit all of them, many at a time; each comes back as it was given."""
        while self._pending:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            planned = _plan(batch)
            versions = await driver.commit(planned)
            expected = planned.stamp(versions[0].rev, versions[0].committed_at)
            self.versions += expected
            self._compare("commit", versions, expected)

    async def check(self, driver: Driver) -> None:
        """Whatever way they are read, they are what was committed."""
        by_id = [await driver.get(state.id) for state in self.versions]
        self._compare("get", by_id, self.versions)
        found = [
            await driver.find(Query(id=state.id, labels=state.labels)) for state in self.versions
        ]
        self._compare("find", found, self.versions)
        self._compare("read", await read_all(driver, limit=BATCH), self.versions)
        async with Engine(driver) as engine, engine.watch() as watcher:
            watched = [await anext(watcher) for _ in self.versions]
        self._compare("watch", watched, self.versions)

    def _compare(self, way: str, found: Iterable[State | None], expected: Iterable[State]) -> None:
        """Every state that was found is the expected one, and plain."""
        wrong: list[str] = []
        for state, wanted in zip(found, expected, strict=True):
            each = self._tried[wanted.id]
            where = f"{each.kind.__name__}.{each.field}: {each.what}"
            if state != wanted:
                wrong.append(f"{where} is not what was committed")
            wrong += [f"{where} is not plain: {part}" for part in odd_parts(state)]
        assert not wrong, f"by {way}"


def _running(flow: str) -> Transition:
    return Transition(flow, Status.RUNNING)


def _plan(states: list[State]) -> Plan:
    """What commits states as they are, all at once."""
    plans = [
        transitions.plan_state(
            state, commit_id=secrets.token_hex(8), now=0, policy=POLICY, place_of=ready
        )
        for state in states
    ]
    payloads: dict[str, bytes] = {}
    for each in plans:
        payloads |= each.payloads
    return Plan(plans[0].commit_id, tuple(each.writes[0] for each in plans), (), payloads)


def same(found: Sequence[State | None], expected: Sequence[State | None]) -> bool:
    """Whether they are equal, for an assertion that shows no megabytes."""
    return found == expected
