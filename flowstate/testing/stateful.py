"""Random operations on a driver and on a plain model of a store, which must agree.

Hypothesis looks for the shortest series of operations after which the two differ.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import anyio.from_thread
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from .. import transitions
from ..clock import MAX_INSTANT_MS
from ..commands import Command, Commit, Delay, End, Pause, Require, Resume, Transit
from ..data import Data, DataRef
from ..driver import Driver
from ..errors import DataForgottenError, RevMismatchError
from ..leases import Held, Place
from ..plan import CommitKey, Plan, Record, RecordedError
from ..query import Page, Query
from ..retention import Retention
from ..state import RetryPolicy, State, Status
from . import values
from .model import Model
from .store import Store

T = TypeVar("T")

# Few values, so that operations meet: the same states, the same labels, the same times.
IDS = ("a", "b", "b/1", "ä", "100%")
KEYS = ("k", "commit-0")

TIMES = st.integers(1, 40)
"""Times of alarms, claims and renewals (ms)."""
FAR = 1_000
"""Revisions above it are not come to."""
LEASE_MS = 1_000
"""That of states without a policy of their own."""
_until = TIMES | st.integers(LEASE_MS, LEASE_MS + 40)
_flows = st.sampled_from(["work", "wake"])
_owners = st.sampled_from(["me", "you"])
_claims = st.sampled_from(["1", "2", "3", "4"])
_labels = st.dictionaries(st.sampled_from(["k", "ß"]), st.sampled_from(["", "x'y"]))
_statuses = st.frozensets(st.sampled_from(Status), max_size=2)
_prefixes = st.sampled_from(["b", "ä", "100%", "_"])
_places = st.integers(0, 100)
_limits = st.sampled_from([1, 2, 5, 1_000])
_keys = st.sampled_from(["", "", "", *KEYS])
"""The id of a caller; most give none."""
_states = values.states(st.sampled_from(IDS), values.pending())


_CONDITIONS = ["labels", "id", "id_prefix", "status", "flow"]


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """Any query that a driver may be given."""
    # few conditions at a time: a query of all of them would match nothing
    conditions = draw(st.sets(st.sampled_from(_CONDITIONS), max_size=2))
    return Query(
        labels=draw(st.lists(_labels, max_size=2)) if "labels" in conditions else (),
        id=draw(st.sampled_from(IDS)) if "id" in conditions else "",
        id_prefix=draw(_prefixes) if "id_prefix" in conditions else "",
        status=draw(_statuses) if "status" in conditions else (),
        flow=draw(_flows) if "flow" in conditions else (),
        latest=draw(st.booleans()),
        leaving=draw(st.booleans()),
    )


_Step: TypeAlias = tuple[State, str, str, dict[str, str], bytes, int]
"""what a state is to hold, which version of it, the kind of move, labels, a payload, a time"""

_steps = st.tuples(
    # plain ones are drawn fast, so that there are more steps
    st.builds(State, st.sampled_from(IDS)) | _states,
    # most are in order: a commit with one that is not writes nothing
    st.sampled_from([*["current"] * 10, "stale", "none"]),
    st.sampled_from([*["transit"] * 3, *["pause"] * 3, *["delay"] * 3, "resume", "require", "end"]),
    _labels,
    st.sampled_from([b"", b"", b"pears", b"\0\xff"]),
    TIMES,
)


class DriverMachine(RuleBasedStateMachine):
    """Subclass this, give it ``new_store``, and hand ``TestCase`` to pytest::

    class MyMachine(DriverMachine):
        def new_store(self, path):
            return MyStore(path)

    TestMyMachine = MyMachine.TestCase
    """

    backend: ClassVar[str] = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self._resources = ExitStack()
        folder = self._resources.enter_context(tempfile.TemporaryDirectory())
        portal = anyio.from_thread.start_blocking_portal(self.backend)
        self._portal = self._resources.enter_context(portal)
        self.store = self.new_store(Path(folder))
        self.model = Model()
        self.plans: list[Plan] = []
        self._open()

    @abstractmethod
    def new_store(self, path: Path) -> Store:
        """An empty store; its files, if any, go under *path*."""

    def teardown(self) -> None:
        try:
            self._opened.__exit__(None, None, None)
        finally:
            self._resources.close()

    def _open(self) -> None:
        self._opened: AbstractContextManager[Driver] = self._portal.wrap_async_context_manager(
            self.store.driver()
        )
        self.driver = self._opened.__enter__()

    def _do(self, method: Callable[..., Awaitable[T]], *args: Any) -> T:
        return self._portal.call(method, *args)

    # ------------------------------------------------------------ writing

    @rule(
        steps=st.lists(_steps, min_size=1, max_size=3, unique_by=lambda step: step[0].id),
        key=_keys,
    )
    def commit(self, steps: list[_Step], key: str) -> None:
        """Commit moves of several states; some of them may be of stale versions, or under an id
        that was used before."""
        commands = [self._command(step) for step in steps]
        if all(isinstance(command, Require) for command in commands):
            commands.append(Transit(State(f"new-{len(self.plans)}"), "work"))
        plan = transitions.plan(
            Commit(*commands),
            commit_id=f"commit-{len(self.plans)}",
            now=0,
            policy=POLICY,
            place_of=partial(_place_of, sum(step[-1] for step in steps)),
        )
        if key:
            plan = replace(plan, key=CommitKey(key, f"{len(self.plans)}"))
        self.plans.append(plan)
        self._commit(plan)

    @precondition(lambda self: self.plans)
    @rule(nth=_places)
    def commit_again(self, nth: int) -> None:
        """Commit a plan again, as after a lost answer, though it may have been refused."""
        self._commit(self.plans[nth % len(self.plans)])

    def _commit(self, plan: Plan) -> None:
        if plan.key is not None and plan.key.id in self.model.records:
            expected = self.model.recorded(plan, self.model.records[plan.key.id])
            assert self._recorded(plan) == getattr(expected, "record", expected)
            return
        conflicts = {} if plan.commit_id in self.model.outcomes else self.model.conflicts(plan)
        if conflicts:
            assert self._refusal(plan) == conflicts
            return
        versions = self._do(self.driver.commit, plan)
        if plan.commit_id not in self.model.outcomes:
            assert versions[0].rev > self.model.head
            assert versions[0].committed_at >= max(
                (state.committed_at for state in self.model.log), default=1
            )
        assert versions == self.model.commit(plan, versions[0].rev, versions[0].committed_at)
        if plan.key is not None:
            self._compare_record(plan.key.id)

    def _recorded(self, plan: Plan) -> tuple[State, ...] | Record:
        """What committing a plan gives, or what it is told of."""
        try:
            return self._do(self.driver.commit, plan)
        except RecordedError as told:
            return told.record

    def _compare_record(self, key: str) -> None:
        assert self._do(self.driver.record, key) == self.model.records.get(key)

    # no precondition: what is left of records goes by the clock, and with it which rule is drawn
    @rule(nth=_places)
    def forget(self, nth: int) -> None:
        """Forget what was recorded before some time."""
        times = [record.committed_at for record in self.model.records.values()] or [0]
        before = times[nth % len(times)] + nth % 2
        expected = self.model.forget_records(before, 1_000)
        assert self._do(self.driver.forget_records, before, 1_000) == expected
        for key in KEYS:
            self._compare_record(key)

    def _refusal(self, plan: Plan) -> dict[str, tuple[int, int]] | None:
        """The conflicts that the driver refuses a plan with; None if it commits the plan."""
        try:
            self._do(self.driver.commit, plan)
        except RevMismatchError as refused:
            return refused.conflicts
        return None

    def _command(self, step: _Step) -> Command[State]:
        drawn, which, kind, labels, payload, at = step
        current = self._version(drawn.id, which)
        if kind == "require":
            return Require(current)
        state = replace(
            drawn.with_labels(labels),
            rev=current.rev,
            transition=current.transition,
            data={**drawn.data, **{k: v for k, v in current.data.items() if k == "payload"}},
        )
        if payload:
            state = state.attach("payload", payload)
        reason, notes = drawn.transition.reason, drawn.transition.annotations
        if kind == "pause":
            return Pause(state, reason=reason, annotations=notes)
        if kind == "delay":
            return Delay(state, to="wake", at=at, annotations=notes)
        if kind == "end":
            return End(state, reason, notes)
        if kind == "resume" and state.transition.status in {Status.PAUSED, Status.DELAYED}:
            return Resume(state, notes) if state.transition.to else Transit(state, "work")
        return Transit(state, "work", notes, timeout=at / 1000, on_timeout="wake")

    def _version(self, id: str, which: str) -> State:
        """A version to move: the current or the oldest one, or a new state, which also stands for
        one that has ended."""
        versions = [state for state in self.model.log if state.id == id]
        if which == "none" or not versions:
            return State(id)
        state = versions[-1] if which == "current" else versions[0]
        return State(id) if state.transition.status is Status.ENDED else state

    @rule(drawn=_states)
    def commit_as_it_is(self, drawn: State) -> None:
        """Commit a state with any transition, whatever led to it, and find it by its labels.

        Nobody has content that was read from a revision which is to come.
        """
        assume(all(rev <= self.model.head or rev > FAR for rev in _read_from(drawn)))
        state = replace(drawn, rev=self._version(drawn.id, "current").rev)
        plan = transitions.plan_state(
            state,
            commit_id=f"commit-{len(self.plans)}",
            now=0,
            policy=POLICY,
            place_of=partial(_place_of, len(self.plans)),
        )
        self.plans.append(plan)
        self._commit(plan)
        query = Query(labels=state.labels)
        assert self._do(self.driver.find, query) == self.model.find(query)

    @rule(
        room=st.dictionaries(_flows, st.integers(0, 3)),
        limit=_limits,
        owner=_owners,
        claim=_claims,
        now=TIMES,
    )
    def claim(self, room: dict[str, int], limit: int, owner: str, claim: str, now: int) -> None:
        """Claim what is ready, or ask again for what was claimed."""
        again = any(each.place.is_held(owner, claim) for each in self.model.holdings())
        expected = self.model.claim(room, limit, owner, claim, now)
        found = self._do(self.driver.claim, room, limit, owner, claim, now)
        if again:  # in any order
            assert len(found) == len(expected)
            assert set(found) == set(expected)
        else:
            assert found == expected

    @rule(
        ids=st.lists(st.sampled_from(IDS), max_size=4, unique=True),
        offset=st.sampled_from([0, 0, 0, 1]),
        owner=_owners,
        claim=_claims,
        now=TIMES,
    )
    def take(self, ids: list[str], offset: int, owner: str, claim: str, now: int) -> None:
        """Take current versions, and versions that are not current."""
        current = self.model.current
        versions = [(id, (current[id].rev if id in current else 1) - offset) for id in ids]
        expected = self.model.take(versions, owner, claim, now)
        found = self._do(self.driver.take, versions, owner, claim, now)
        assert len(found) == len(expected)
        assert set(found) == set(expected)

    @rule(
        ids=st.lists(st.sampled_from(IDS), max_size=4, unique=True),
        offset=st.sampled_from([0, 0, 0, 1]),
        claim=st.none() | _claims,
        owner=_owners,
        now=TIMES,
        release=st.booleans(),
    )
    def renew_or_release(  # noqa: PLR0913, PLR0917  (each is drawn for itself)
        self,
        ids: list[str],
        offset: int,
        claim: str | None,
        owner: str,
        now: int,
        release: bool,  # noqa: FBT001  (drawn by name)
    ) -> None:
        """Renew or release what is held, or what is held otherwise: by another owner or claim, or
        at another revision."""
        held = [self._held(id, offset, claim) for id in ids]
        if release:
            self.model.release(held, owner, now)
            self._do(self.driver.release, held, owner, now)
        else:
            expected = self.model.renew(held, owner, now)
            assert self._do(self.driver.renew, held, owner, now) == expected

    @rule(owner=_owners, now=TIMES)
    def end_leases(self, owner: str, now: int) -> None:
        """Somebody is known to be dead."""
        self.model.end_leases(owner, now)
        self._do(self.driver.end_leases, owner, now)
        owners = {each.place.owner for each in self.model.holdings()}
        assert set(self._do(self.driver.owners)) == owners

    def _held(self, id: str, offset: int, claim: str | None) -> Held:
        """How a version is held, with another claim if one is given."""
        current, place = self.model.current.get(id), self.model.place(id)
        rev = (1 if current is None else current.rev) - offset
        taken_by = "" if place is None else place.claim
        return id, rev, taken_by if claim is None else claim

    @precondition(lambda self: self.model.log)
    @rule(
        # most remove something: everything that is superseded
        nth=st.one_of(st.none(), st.none(), _places),
        keep=st.sampled_from([1, 1, 1, 2, 3]),
        ended=st.booleans(),
        after=st.one_of(st.just(0), st.integers(0, 20)),
        limit=st.sampled_from([1_000, 1_000, 5, 2, 1]),
        dry_run=st.sampled_from([False, False, True]),
    )
    def compact(  # noqa: PLR0913, PLR0917  (each is drawn for itself)
        self,
        nth: int | None,
        keep: int,
        ended: bool,  # noqa: FBT001  (drawn by name)
        after: int,
        limit: int,
        dry_run: bool,  # noqa: FBT001  (drawn by name)
    ) -> None:
        """Compact a batch of what is older than some version, or of everything."""
        times = [state.committed_at for state in self.model.log]
        before = MAX_INSTANT_MS if nth is None else times[nth % len(times)]
        retention = Retention(before, keep, ended)
        old = [
            state.rev
            for state in self.model.log
            if state.rev > after and state.committed_at < before
        ]
        batch = self._do(partial(self.driver.compact, dry_run=dry_run), retention, after, limit)
        assert batch.upto in (*old[:limit], after)
        assert batch.upto > after or not old
        if batch.done:
            above = (state for state in self.model.log if state.rev > batch.upto)
            assert not any(self.model.may_go(state, retention) for state in above)
        expected = self.model.compact(retention, after, batch.upto, dry_run=dry_run)
        assert batch == replace(expected, done=batch.done)

    @precondition(lambda self: self.store.persistent)
    @rule()
    def reopen(self) -> None:
        """Close the driver and open another one on the same store."""
        self._opened.__exit__(None, None, None)
        self._open()

    # ------------------------------------------------------------ reading

    @rule(id=st.sampled_from(IDS), rev=st.integers(0, 40))
    def get(self, id: str, rev: int) -> None:
        assert self._do(self.driver.get, id) == self.model.current.get(id)
        assert self._do(self.driver.get, id, rev) == self.model.get(id, rev)

    @rule(query=queries())
    def find(self, query: Query) -> None:
        """Find the newest match of a query, and the newest state in each status; count the current
        versions that match."""
        for each in (query, *(Query(status=status) for status in Status)):
            assert self._do(self.driver.find, each) == self.model.find(each)
        for by in ("status", "flow"):
            assert dict(self._do(self.driver.count, query, by)) == self.model.count(query, by)

    @rule(query=queries(), start=st.integers(0, 40), limit=_limits, newest_first=st.booleans())
    def read(self, query: Query, start: int, limit: int, newest_first: bool) -> None:  # noqa: FBT001
        """Read page by page to the head, or to the beginning."""
        expected = self.model.read(query, start, newest_first=newest_first)
        found: list[State] = []
        while start > 1 if newest_first else start < self.model.head:
            page = self._page(query, start, limit, newest_first=newest_first)
            if newest_first:
                assert 1 <= page.upto < start
            else:
                assert start < page.upto <= self.model.head
            found.extend(page.versions)
            start = page.upto
        assert found == expected

    def _page(self, query: Query, start: int, limit: int, *, newest_first: bool) -> Page:
        read = partial(self.driver.read, newest_first=newest_first)
        page = self._do(read, query, start, limit)
        assert len(page.versions) <= limit
        assert page.compacted == self.model.compacted
        assert page.newest_first is newest_first
        leaving = query.leaving and not query.latest
        expected = {state.rev: self.model.left(state) for state in page.versions if leaving}
        assert page.left == {rev: left for rev, left in expected.items() if left is not None}
        return page

    # no precondition: what compaction leaves of payloads goes by the clock
    @rule(nths=st.lists(_places, min_size=1, max_size=2), id=st.sampled_from(IDS))
    def forget_payloads(self, nths: list[int], id: str) -> None:
        """Forget some payloads, those of others and forgotten ones too, and one that never was."""
        stored = list(self.model.payloads)
        keys = [(1, "0" * 64), *{stored[nth % len(stored)] for nth in nths if stored}]
        assert self._do(self.driver.forget, id, keys) == self.model.forget(id, keys)

    @precondition(lambda self: self.model.log)
    @rule(nth=_places)
    def read_since(self, nth: int) -> None:
        """Read since the time of some version, and since the millisecond after it."""
        at = self.model.log[nth % len(self.model.log)].committed_at
        for since in (at, at + 1):
            query = Query(since=since)
            page = self._do(self.driver.read, query, 0, 10_000)
            assert list(page.versions) == self.model.read(query, 0)
            counts = since <= self.model.compacted_at
            assert page.compacted == (self.model.compacted if counts else 0)

    @rule(until=_until, limit=_limits)
    def due(self, until: int, limit: int) -> None:
        """What is due, soonest first, and when the next one is; which of those at one instant come
        first is open."""
        expected = self.model.due(until, 10_000)
        found = self._do(self.driver.due, until, limit)
        times = [due.at for due in expected.due]
        assert [due.at for due in found.due] == times[:limit]
        assert found.next == (times[limit] if len(times) > limit else expected.next)
        assert len(set(found.due)) == len(found.due)
        assert all(due in expected.due for due in found.due)

    @rule(id=st.sampled_from(IDS))
    def places(self, id: str) -> None:
        """Where a state stands, what is taken by whom, and what something is ready for."""
        assert self._do(self.driver.place, id) == self.model.place(id)
        for owner in (None, "me", "you"):
            expected = self.model.holdings(owner)
            found = self._do(self.driver.holdings, owner)
            assert len(found) == len(expected)
            assert set(found) == set(expected)
        assert self._do(self.driver.line) == self.model.line()

    @rule()
    def load(self) -> None:
        """Load every payload that a version refers to."""
        for (rev, checksum), content in self.model.payloads.items():
            ref = DataRef(rev, 1, "any", checksum)
            if content is None:
                with pytest.raises(DataForgottenError):
                    self._do(self.driver.load, ref)
            else:
                assert self._do(self.driver.load, ref) == content

    @precondition(lambda self: self.store.raw)
    @invariant()
    def has_these_payloads(self) -> None:
        """The store has the payloads of the model, and no other."""
        assert sorted(self.store.raw_payloads()) == sorted(self.model.payloads)

    @invariant()
    def is_at_the_same_head(self) -> None:
        assert self._do(self.driver.head) == self.model.head


POLICY = RetryPolicy(lease=LEASE_MS / 1000)


def _read_from(state: State) -> Iterator[int]:
    """The revisions at which the content that a state holds was stored."""
    for payload in state.data.values():
        if isinstance(payload, Data) and payload.stored is not None:
            yield payload.stored.rev
    for other in state.stacked.values():
        yield from _read_from(other)


def _place_of(n: int, state: State, now: int, lease: int) -> Place:
    """A place for a state that is RUNNING: most are ready, since some time."""
    n += len(state.id)
    if n % 4:
        return Place(n % 7)
    return Place(None, "me" if n % 8 else "you", "", now + lease if lease else None)
