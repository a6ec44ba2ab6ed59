"""Drivers that each break one law, and the test of the conformance suite that must say so.

Not collected by itself: ``test_conformance_bites.py`` runs it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from copy import copy
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.lowlevel
from msgspec.structs import force_setattr, replace

from flowstate import (
    Compaction,
    DataRef,
    DuePage,
    Page,
    Plan,
    Query,
    Retention,
    RevMismatchError,
    State,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.memory import MemoryDriver
from flowstate.retention import Retained
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
        if plan.conflicts(self._latest_rev):
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
        if plan.conflicts(self._latest_rev):
            return await super().commit(plan)
        await anyio.lowlevel.checkpoint()
        current = {id: history.latest.rev for id, history in self._histories.items()}
        writes = tuple(
            replace(write, state=replace(write.state, rev=current.get(write.state.id, 0)))
            for write in plan.writes
        )
        return await super().commit(replace(plan, writes=writes))


class ForgetsOutcomes(MemoryDriver):
    """Takes a commit that is made again for a new one."""

    def _first_outcome(self, plan: Plan) -> States:
        raise RevMismatchError(plan.conflicts(self._latest_rev))


class GivesTheNewestAsOutcome(MemoryDriver):
    """Asked for an outcome again, gives the states as they are now."""

    def _first_outcome(self, plan: Plan) -> States:
        super()._first_outcome(plan)
        return tuple(self._histories[write.state.id].latest for write in plan.writes)


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


class NamesTheNextHead(MemoryDriver):
    """Names a revision before it can be read."""

    async def head(self) -> int:
        return await super().head() + 1


class FallsBehindItself(MemoryDriver):
    """Asked for the head, gives an older one now and then: servers that take turns behave so."""

    heads: ClassVar[list[int]] = []

    async def head(self) -> int:
        self.heads.append(await super().head())
        return self.heads[-1 if len(self.heads) % 3 else -3]


class GetsThePast(MemoryDriver):
    """Gives the latest version as it was when it was last asked for."""

    last: ClassVar[dict[str, State | None]] = {}

    async def get(self, id: str, rev: int | None = None) -> State | None:
        state = await super().get(id, rev)
        if rev is not None:
            return state
        before = self.last.get(id, state)
        self.last[id] = state
        return before


class GetsNowhere(MemoryDriver):
    """Says of a page without matches that it ends where it began."""

    async def read(self, query: Query, after: int, limit: int) -> Page:
        page = await super().read(query, after, limit)
        return page if page.versions else Page((), after)


class FindsTheOldest(MemoryDriver):
    """Finds the match with the lowest revision."""

    async def find(self, query: Query) -> State | None:
        current = (history.latest for history in self._histories.values())
        return next(filter(query.matches, current), None)


class FindsThePast(MemoryDriver):
    """Finds states by what they were."""

    async def find(self, query: Query) -> State | None:
        matching = [state for state in self._log if query.matches(state)]
        return matching[-1] if matching else None


class DueInAnyOrder(MemoryDriver):
    """Gives what is due, the latest first."""

    async def due(self, until: int, flows: Collection[str], limit: int) -> DuePage:
        page = await super().due(until, flows, limit)
        return DuePage(page.due[::-1], page.next)


class ForgetsFlows(MemoryDriver):
    """Names only the flows that something is due for now."""

    async def due_flows(self) -> tuple[str, ...]:
        flows = await super().due_flows()
        return tuple([flow for flow in flows if (await self.due(10**9, [flow], 1)).due])


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


class KeepsOneTooFew(MemoryDriver):
    """Takes ``keep`` for how many superseded versions stay less one."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        fewer = replace(retention, keep=max(1, retention.keep - 1))
        return await super().compact(fewer, after, limit, dry_run=dry_run)


class RemovesTheVeryMillisecond(MemoryDriver):
    """Takes ``before`` for a time that has passed too."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        later = replace(retention, before=min(retention.before + 1, MAX_INSTANT_MS))
        return await super().compact(later, after, limit, dry_run=dry_run)


class RemovesEndedStatesUnasked(MemoryDriver):
    """Takes every state that has ended for one that may go."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        return await super().compact(replace(retention, ended=True), after, limit, dry_run=dry_run)


class KeepsEndedStates(MemoryDriver):
    """Leaves the end of each state."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        return await super().compact(replace(retention, ended=False), after, limit, dry_run=dry_run)


class RemovesWhatJustEnded(MemoryDriver):
    """Looks at the age of a version only, not at when its state has ended."""

    def _retained(self, id: str, retention: Retention) -> Retained:
        return super()._retained(id, replace(retention, before=MAX_INSTANT_MS))


class RemovesTheHead(MemoryDriver):
    """Removes the newest version of all, and gives its revision to the next."""

    def _retained(self, id: str, retention: Retention) -> Retained:
        retained = super()._retained(id, retention)
        return replace(retained, first_kept=MAX_INSTANT_MS) if retained.whole_goes else retained

    def _newest(self) -> int:
        return self._log[-1].rev if self._log else 0


class RevivesTheDead(MemoryDriver):
    """Removes the end of a state and leaves what came before."""

    def _retained(self, id: str, retention: Retention) -> Retained:
        return replace(super()._retained(id, retention), oldest=MAX_INSTANT_MS)


class NeverFrees(MemoryDriver):
    """Keeps every payload."""

    def _release(self, gone: list[State]) -> list[tuple[int, str]]:
        super()._release(gone)
        return []


class FreesTooEarly(MemoryDriver):
    """Removes a payload with the version that brought it."""

    def _release(self, gone: list[State]) -> list[tuple[int, str]]:
        freed = super()._release(gone)
        revs = {state.rev for state in gone}
        return [*freed, *(key for key in self._payloads if key[0] in revs and key not in freed)]


class OverlooksWhatIsStacked(MemoryDriver):
    """Counts the references of a state, not those of the states inside."""

    def _release(self, gone: list[State]) -> list[tuple[int, str]]:
        super()._release(gone)
        own = {
            (ref.rev, ref.checksum)
            for state in self._log
            if state not in gone
            for ref in state.data.values()
            if isinstance(ref, DataRef)
        }
        return [key for key in self._payloads if key not in own]


class ConfusesEqualPayloads(MemoryDriver):
    """Takes payloads with the same content for one."""

    def _release(self, gone: list[State]) -> list[tuple[int, str]]:
        checksums = {checksum for _, checksum in super()._release(gone)}
        return [key for key in self._payloads if key[1] in checksums]


class ForgetsSizes(MemoryDriver):
    """Counts versions and leaves their payloads out."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        return replace(batch, size=batch.versions)


class DoesNotTryDry(MemoryDriver):
    """Removes what it was only to count."""

    async def compact(
        self,
        retention: Retention,
        after: int,
        limit: int,
        *,
        dry_run: bool = False,  # noqa: ARG002
    ) -> Compaction:
        return await super().compact(retention, after, limit, dry_run=False)


class GuessesWhenDry(MemoryDriver):
    """Counts no payloads without removing them."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        return replace(batch, payloads=0) if dry_run else batch


class TakesItAll(MemoryDriver):
    """Knows no limit."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        return await super().compact(retention, after, limit + 1_000, dry_run=dry_run)


class NeverDone(MemoryDriver):
    """Looks on to the head, however young what it finds."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        return replace(batch, upto=max(batch.upto, self._newest()))


class NeverTells(MemoryDriver):
    """Hides that history is gone."""

    async def read(self, query: Query, after: int, limit: int) -> Page:
        return replace(await super().read(query, after, limit), compacted=0)


class NeverTellsWatchers(NeverTells):
    """The same: who asks for what is gone is given what is left."""


class NeverTellsWhoWasOvertaken(NeverTells):
    """The same: who is overtaken goes on as if nothing were missing."""


class TellsOfTheLastBatch(MemoryDriver):
    """Says how far the last batch removed something, not how far any did."""

    def _remove(self, gone: list[State], looked: slice) -> None:
        super()._remove(gone, looked)
        self.told = gone[-1].rev

    told: int = 0

    async def read(self, query: Query, after: int, limit: int) -> Page:
        return replace(await super().read(query, after, limit), compacted=self.told)


class TellsLate(MemoryDriver):
    """Says that versions are gone some time after they are."""

    told: int = 0

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        self.told = self._compacted
        return batch

    async def read(self, query: Query, after: int, limit: int) -> Page:
        return replace(await super().read(query, after, limit), compacted=self.told)


class TellsWhateverIsAsked(MemoryDriver):
    """Says that something is gone also to who asks for what came later."""

    async def read(self, query: Query, after: int, limit: int) -> Page:
        return replace(await super().read(query, after, limit), compacted=self._compacted)


class LeavesLabels(MemoryDriver):
    """Removes versions, and leaves them in the index of labels."""

    def _remove(self, gone: list[State], looked: slice) -> None:
        before = {label: list(revs) for label, revs in self._labelled.items()}
        super()._remove(gone, looked)
        self._labelled = before


class ForgetsCommitsMeanwhile(MemoryDriver):
    """Writes back what it knew when the batch began."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        known = {id: copy(history) for id, history in self._histories.items()}
        await anyio.lowlevel.checkpoint()
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        self._histories = OrderedDict(known)
        return batch


class RemembersTheDead(MemoryDriver):
    """A state that is gone is still there for who wants to create it."""

    def _forget(self, state: State) -> None:
        history = self._histories[state.id]
        super()._forget(state)
        history.revs = [state.rev]
        self._histories[state.id] = history


class GivesWhatIsLeftAsOutcome(MemoryDriver):
    """Asked for an outcome again, gives what is left of it."""

    def _first_outcome(self, plan: Plan) -> States:
        outcome = super()._first_outcome(plan)
        return tuple(state for state in outcome if state in self._log)


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
    NamesTheNextHead: "test_the_head_never_falls_and_is_readable",
    FallsBehindItself: "test_the_head_never_falls_and_is_readable",
    GetsThePast: "test_the_head_never_falls_and_is_readable",
    GetsNowhere: "test_a_page_without_matches_still_gets_on",
    FindsTheOldest: "test_find_gives_the_newest_current_match",
    FindsThePast: "test_find_overlooks_what_a_state_was",
    DueInAnyOrder: "test_soonest_first",
    ForgetsFlows: "test_the_flows_that_something_is_due_for",
    RefusesToTravelBack: "test_a_released_lease_is_due_before_all",
    RenewsInSilence: "test_renew_gives_back_what_moved_on",
    RenewsWhatMovedOn: "test_renew_gives_back_what_moved_on",
    NeverWakes: "test_a_commit_wakes_who_waits",
    WakesOne: "test_a_commit_wakes_all_who_wait",
    TurnsTimeRound: "test_time_never_runs_back_along_the_log",
    ReadsTheWholeLog: "test_cost_does_not_grow_with_the_history",
    KeepsOneTooFew: "test_the_newest_versions_of_each_state_stay",
    RemovesTheVeryMillisecond: "test_what_was_committed_at_that_time_or_later_stays",
    RemovesEndedStatesUnasked: "test_ended_states_stay_unless_asked_for",
    KeepsEndedStates: "test_ended_states_go_whole",
    RemovesWhatJustEnded: "test_what_ended_at_that_time_or_later_stays",
    RemovesTheHead: "test_the_newest_version_of_the_store_stays",
    RevivesTheDead: "test_what_is_current_goes_last",
    NeverFrees: "test_a_payload_goes_with_the_last_version_that_refers_to_it",
    FreesTooEarly: "test_a_copied_reference_keeps_the_payload",
    OverlooksWhatIsStacked: "test_a_stacked_state_keeps_its_payloads",
    ConfusesEqualPayloads: "test_equal_payloads_of_two_commits_are_two",
    ForgetsSizes: "test_what_is_removed_is_counted_in_bytes",
    DoesNotTryDry: "test_a_dry_run_counts_the_same_and_removes_nothing",
    GuessesWhenDry: "test_a_dry_run_counts_the_same_and_removes_nothing",
    TakesItAll: "test_a_batch_looks_at_no_more_than_the_limit",
    NeverDone: "test_a_run_ends_at_the_first_version_that_is_young_enough",
    NeverTells: "test_a_page_says_what_was_removed",
    NeverTellsWatchers: "test_who_asks_for_compacted_history_is_told",
    NeverTellsWhoWasOvertaken: "test_a_watcher_never_skips_what_was_compacted_in_silence",
    TellsOfTheLastBatch: "test_what_was_removed_is_not_told_to_be_less_by_a_later_batch",
    TellsLate: "test_a_reader_never_sees_half_a_batch",
    TellsWhateverIsAsked: "test_what_was_removed_before_the_time_asked_for_does_not_count",
    LeavesLabels: "test_reading_is_a_filter_of_what_is_left",
    ForgetsCommitsMeanwhile: "test_commits_go_on_between_batches",
    RemembersTheDead: "test_an_id_that_went_whole_is_free_again",
    GivesWhatIsLeftAsOutcome: "test_an_outcome_is_known_while_a_version_of_it_is_left",
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
