"""Drivers that each break one law, and the test of the conformance suite that must say so.

Not collected by itself: ``test_conformance_bites.py`` runs it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.lowlevel
from msgspec.structs import force_setattr, replace

from flowstate import Due, Page, Plan, Query, RevMismatchError, State
from flowstate.drivers.memory import MemoryDriver
from flowstate.testing import DriverConformance, Store

from .test_memory import MemoryStore

States = tuple[State, ...]


class TellsOneConflict(MemoryDriver):
    """Reports the first conflict that it meets."""

    async def commit(self, plan: Plan) -> States:
        try:
            return await super().commit(plan)
        except RevMismatchError as error:
            id, pair = next(iter(error.conflicts.items()))
            raise RevMismatchError({id: pair}) from None


class IgnoresRequirements(MemoryDriver):
    """Checks only what is written."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(replace(plan, requires=()))


class LosesAWrite(MemoryDriver):
    """Stores all states of a commit but the last."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(replace(plan, writes=plan.writes[: len(plan.writes) - 1 or 1]))


class WritesInPieces(MemoryDriver):
    """Stores the states of a commit one after the other."""

    async def commit(self, plan: Plan) -> States:
        if self._conflicts(plan):
            return await super().commit(plan)
        written: list[State] = []
        for write in plan.writes:
            written += await super().commit(replace(plan, writes=(write,)))
            await anyio.lowlevel.checkpoint()
        return tuple(written)


class WritesWhatItCan(MemoryDriver):
    """Stores the states of a refused commit that do not conflict."""

    async def commit(self, plan: Plan) -> States:
        try:
            return await super().commit(plan)
        except RevMismatchError as error:
            fine = tuple(write for write in plan.writes if write.state.id not in error.conflicts)
            await super().commit(replace(plan, writes=fine, requires=()))
            raise


class StoresPayloadsFirst(MemoryDriver):
    """Stores payloads before it knows whether the commit holds."""

    async def commit(self, plan: Plan) -> States:
        for checksum, content in plan.payloads.items():
            self._payloads[len(self._log) + 1, checksum] = content
        return await super().commit(plan)


class StoresPayloadsTwice(MemoryDriver):
    """Keeps a payload for each state that carries it."""

    async def commit(self, plan: Plan) -> States:
        written = await super().commit(plan)
        for checksum, content in plan.payloads.items():
            self._payloads.update({(state.rev, checksum): content for state in written})
        return written


class ChecksTooEarly(MemoryDriver):
    """Lets others get between checking a commit and writing it."""

    async def commit(self, plan: Plan) -> States:
        if self._conflicts(plan):
            return await super().commit(plan)
        await anyio.lowlevel.checkpoint()
        current = {id: state.rev for id, state in self._current.items()}
        writes = tuple(
            replace(write, state=replace(write.state, rev=current.get(write.state.id, 0)))
            for write in plan.writes
        )
        return await super().commit(replace(plan, writes=writes))


class ForgetsOutcomes(MemoryDriver):
    """Takes a commit that is made again for a new one."""

    def _first_outcome(self, plan: Plan) -> States:
        raise RevMismatchError(self._conflicts(plan))


class GivesTheNewestAsOutcome(MemoryDriver):
    """Asked for an outcome again, gives the states as they are now."""

    def _first_outcome(self, plan: Plan) -> States:
        super()._first_outcome(plan)
        return tuple(self._current[write.state.id] for write in plan.writes)


class CommitsAgain(MemoryDriver):
    """Does a plan that is committed again once more."""

    def _first_outcome(self, plan: Plan) -> States:
        outcome = super()._first_outcome(plan)
        for state in outcome:
            self._log.append(replace(state, rev=len(self._log) + 1))
            self._commit_ids.append(plan.commit_id)
        return outcome


class LendsItsMemory(MemoryDriver):
    """Gives out states whose labels can be changed."""

    async def get(self, id: str, rev: int | None = None) -> State | None:
        state = await super().get(id, rev)
        if state is not None:
            force_setattr(state, "labels", dict(state.labels))
        return state


class KeepsThePlan(MemoryDriver):
    """Reads payloads from the plan that the caller gave, whenever it is asked."""

    async def commit(self, plan: Plan) -> States:
        written = await super().commit(plan)
        if plan.payloads:
            self._payloads = _Borrowed(plan)  # type: ignore[assignment]
        return written


class _Borrowed:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __getitem__(self, key: tuple[int, str]) -> bytes:
        return self.plan.payloads[key[1]]


class SkipsAVersion(MemoryDriver):
    """Says of a full page that it looked one revision further than it did."""

    async def read(self, query: Query, after: int, limit: int) -> Page:
        page = await super().read(query, after, limit)
        if len(page.versions) == limit and page.upto < len(self._log):
            return Page(page.versions, page.upto + 1)
        return page


class ShowsRevisionsLate(MemoryDriver):
    """Some versions can be read only after later ones were: a bare sequence behaves so."""

    late: ClassVar[set[int]] = set()

    async def read(self, query: Query, after: int, limit: int) -> Page:
        page = await super().read(query, after, limit)
        hidden = {s.rev for s in page.versions[:-1] if s.rev % 5 == 0} - self.late
        self.late.update(hidden)
        return Page(tuple(s for s in page.versions if s.rev not in hidden), page.upto)


class GetsNowhere(MemoryDriver):
    """Says of a page without matches that it ends where it began."""

    async def read(self, query: Query, after: int, limit: int) -> Page:
        page = await super().read(query, after, limit)
        return page if page.versions else Page((), after)


class FindsTheOldest(MemoryDriver):
    """Finds the match with the lowest revision."""

    async def find(self, query: Query) -> State | None:
        matching = [state for state in self._current.values() if query.matches(state)]
        return matching[0] if matching else None


class FindsThePast(MemoryDriver):
    """Finds states by what they were."""

    async def find(self, query: Query) -> State | None:
        matching = [state for state in self._log if query.matches(state)]
        return matching[-1] if matching else None


class DueInAnyOrder(MemoryDriver):
    """Gives what is due, the latest first."""

    async def due(self, until: int, flows: Collection[str], limit: int) -> tuple[Due, ...]:
        return (await super().due(until, flows, limit))[::-1]


class ForgetsFlows(MemoryDriver):
    """Names only the flows that something is due for now."""

    async def due_flows(self) -> tuple[str, ...]:
        flows = await super().due_flows()
        return tuple([flow for flow in flows if (await self.next_due([flow]) or 0) < 10**9])


class RefusesToTravelBack(MemoryDriver):
    """Takes a due time before all others for a mistake."""

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        return await super().renew(leases, max(0, until))


class RenewsInSilence(MemoryDriver):
    """Does not say which states moved on."""

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        await super().renew(leases, until)
        return frozenset()


class RenewsWhatMovedOn(MemoryDriver):
    """Renews by id alone."""

    async def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        gone = await super().renew(leases, until)
        for id in gone:
            self._due.move(id, until)
        return gone


class NeverWakes(MemoryDriver):
    """Who waits waits for ever."""

    async def wait(self, after: int) -> None:
        if len(self._log) <= after:
            await anyio.sleep_forever()


class WakesOne(MemoryDriver):
    """A commit wakes one of those who wait."""

    asleep: ClassVar[list[int]] = []

    async def wait(self, after: int) -> None:
        self.asleep.append(after)
        first = len(self.asleep) == 1
        await super().wait(after)
        if not first:
            await anyio.sleep_forever()


class TurnsTimeRound(MemoryDriver):
    """Trusts a clock that is set back."""

    async def commit(self, plan: Plan) -> States:
        written = await super().commit(plan)
        for state in written:
            force_setattr(state, "committed_at", 2_000_000_000_000 - state.rev)
        return written


class ReadsTheWholeLog(MemoryDriver):
    """Looks at every version to find the latest of one state."""

    async def get(self, id: str, rev: int | None = None) -> State | None:
        found = [s for s in self._log if s.id == id and rev in (None, s.rev)]
        return found[-1] if found else None


CAUGHT_BY: dict[type[MemoryDriver], str] = {
    TellsOneConflict: "test_all_conflicts_are_reported",
    IgnoresRequirements: "test_a_stale_requirement_conflicts",
    LosesAWrite: "test_states_of_one_commit_have_consecutive_revisions",
    WritesInPieces: "test_a_reader_never_sees_half_a_commit",
    WritesWhatItCan: "test_a_refused_commit_writes_no_state",
    StoresPayloadsFirst: "test_a_refused_commit_writes_no_payload",
    StoresPayloadsTwice: "test_a_payload_shared_in_a_commit_is_stored_once",
    ChecksTooEarly: "test_one_of_many_racing_commits_wins",
    ForgetsOutcomes: "test_a_lost_commit_that_is_committed_again_happens_once",
    GivesTheNewestAsOutcome: "test_the_first_outcome_stands_after_others_moved_on",
    CommitsAgain: "test_a_plan_committed_twice_at_the_same_time_happens_once",
    LendsItsMemory: "test_what_is_given_out_cannot_be_changed",
    KeepsThePlan: "test_a_plan_that_is_emptied_later_is_not_what_was_stored",
    SkipsAVersion: "test_read_is_a_filter_of_the_log",
    ShowsRevisionsLate: "test_nothing_appears_below_what_was_read",
    GetsNowhere: "test_a_page_without_matches_still_gets_on",
    FindsTheOldest: "test_find_gives_the_newest_current_match",
    FindsThePast: "test_find_overlooks_what_a_state_was",
    DueInAnyOrder: "test_soonest_first",
    ForgetsFlows: "test_the_flows_that_something_is_due_for",
    RefusesToTravelBack: "test_a_lease_that_is_given_up_is_due_before_all",
    RenewsInSilence: "test_renew_gives_back_what_moved_on",
    RenewsWhatMovedOn: "test_renew_gives_back_what_moved_on",
    NeverWakes: "test_a_commit_wakes_who_waits",
    WakesOne: "test_a_commit_wakes_all_who_wait",
    TurnsTimeRound: "test_time_never_runs_back_along_the_log",
    ReadsTheWholeLog: "test_cost_does_not_grow_with_the_history",
}


class BrokenSuite(DriverConformance):
    """The suite over one of these drivers."""

    patience_s = 1.0
    broken: ClassVar[type[MemoryDriver]]

    def new_store(self, tmp_path: Path) -> Store:  # noqa: ARG002
        return MemoryStore(self.broken())


for _broken in CAUGHT_BY:
    globals()[f"Test{_broken.__name__}"] = type(
        f"Test{_broken.__name__}", (BrokenSuite,), {"broken": _broken}
    )
