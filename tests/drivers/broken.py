"""Drivers that each break one law, and the test of the conformance suite that must say so.

Each is the driver over the model, or the model, but for one public method. Not collected by
itself: ``test_conformance_bites.py`` runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeAlias
from unicodedata import normalize

import anyio
import anyio.lowlevel
from attrs import define, field
from msgspec.structs import force_setattr, replace

from flowstate import (
    Compaction,
    DataRef,
    Page,
    Plan,
    Query,
    Retention,
    RevMismatchError,
    State,
    StoreError,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.memory import MemoryDriver
from flowstate.drivers.sqlite import SQLiteDriver
from flowstate.plan import Record, RecordedError
from flowstate.testing import DriverConformance, Store
from flowstate.testing.model import Model

from . import broken_errors, broken_places, broken_reading
from .model_driver import ModelDriver, ModelStore
from .test_memory import MemoryStore

States: TypeAlias = tuple[State, ...]
Users: TypeAlias = dict[tuple[int, str], list[State]]
Broken: TypeAlias = type[ModelDriver | Model | MemoryDriver | SQLiteDriver]


class TellsOneConflict(ModelDriver):
    """Reports the first conflict that it meets."""

    async def commit(self, plan: Plan) -> States:
        try:
            return await super().commit(plan)
        except RevMismatchError as error:
            id, pair = next(iter(error.conflicts.items()))
            raise RevMismatchError({id: pair}) from None


class IgnoresRequirements(ModelDriver):
    """Checks only what is written."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(replace(plan, requires=()))


class LosesAWrite(ModelDriver):
    """Stores all states of a commit but the last."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(replace(plan, writes=plan.writes[: len(plan.writes) - 1 or 1]))


class WritesInPieces(ModelDriver):
    """Stores the states of a commit one after the other."""

    async def commit(self, plan: Plan) -> States:
        if self.model.conflicts(plan):
            return await super().commit(plan)
        written: list[State] = []
        for place, write in enumerate(plan.writes):
            piece = replace(plan, commit_id=f"{plan.commit_id}/{place}", writes=(write,))
            written += await super().commit(piece)
            await anyio.lowlevel.checkpoint()
        return tuple(written)


class WritesWhatItCan(ModelDriver):
    """Stores the states of a refused commit that do not conflict."""

    async def commit(self, plan: Plan) -> States:
        try:
            return await super().commit(plan)
        except RevMismatchError as error:
            fine = tuple(write for write in plan.writes if write.state.id not in error.conflicts)
            await super().commit(replace(plan, writes=fine, requires=()))
            raise


class StoresPayloadsFirst(ModelDriver):
    """Stores payloads before it knows whether the commit holds."""

    async def commit(self, plan: Plan) -> States:
        for checksum, content in plan.payloads.items():
            self.model.payloads[self.model.head + 1, checksum] = content
        return await super().commit(plan)


class StoresPayloadsTwice(ModelDriver):
    """Keeps a payload for each state that carries it."""

    async def commit(self, plan: Plan) -> States:
        written = await super().commit(plan)
        for checksum, content in plan.payloads.items():
            self.model.payloads.update({(state.rev, checksum): content for state in written})
        return written


class StoresWhatIsAttachedAgain(ModelDriver):
    """Does not look whether a payload is stored already."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(plan.settled(()))


class RefersToWhatIsGone(ModelDriver):
    """Does not look whether a payload is still stored."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(replace(plan, reused={}))


class ChecksTooEarly(ModelDriver):
    """Lets others get between checking a commit and writing it."""

    async def commit(self, plan: Plan) -> States:
        if self.model.conflicts(plan):
            return await super().commit(plan)
        await anyio.lowlevel.checkpoint()
        revs = {id: state.rev for id, state in self.model.current.items()}
        writes = tuple(
            replace(write, state=replace(write.state, rev=revs.get(write.state.id, 0)))
            for write in plan.writes
        )
        return await super().commit(replace(plan, writes=writes))


class ForgetsOutcomes(ModelDriver):
    """Takes a commit that is made again for a new one."""

    async def commit(self, plan: Plan) -> States:
        if conflicts := self.model.conflicts(plan):
            raise RevMismatchError(conflicts)
        return await super().commit(plan)


class GivesTheNewestAsOutcome(ModelDriver):
    """Asked for an outcome again, gives the states as they are now."""

    async def commit(self, plan: Plan) -> States:
        outcome = await super().commit(plan)
        return tuple(self.model.current[state.id] for state in outcome)


class CommitsAgain(ModelDriver):
    """Does a plan that is committed again once more."""

    async def commit(self, plan: Plan) -> States:
        is_again = plan.commit_id in self.model.outcomes
        outcome = await super().commit(plan)
        if is_again:
            for state in outcome:
                self.model.log.append(replace(state, rev=self.model.head + 1))
        return outcome


class LendsItsMemory(ModelDriver):
    """Gives out states whose labels can be changed."""

    async def get(self, id: str, rev: int | None = None) -> State | None:
        state = await super().get(id, rev)
        if state is not None:
            force_setattr(state, "labels", dict(state.labels))
        return state


class SkipsAVersion(ModelDriver):
    """Says of a full page that it looked one revision further than it did."""

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        page = await super().read(query, after, limit, newest_first=newest_first)
        if len(page.versions) == limit and page.upto < self.model.head:
            return replace(page, upto=page.upto + 1)
        return page


class ShowsRevisionsLate(ModelDriver):
    """Some versions can be read only after later ones were: a bare sequence behaves so."""

    late: ClassVar[set[int]] = set()

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        page = await super().read(query, after, limit, newest_first=newest_first)
        hidden = {s.rev for s in page.versions[:-1] if s.rev % 5 == 0} - self.late
        self.late.update(hidden)
        return replace(page, versions=tuple(s for s in page.versions if s.rev not in hidden))


class NamesTheNextHead(ModelDriver):
    """Names a revision before it can be read."""

    async def head(self) -> int:
        return await super().head() + 1


class FallsBehindItself(ModelDriver):
    """Asked for the head, gives an older one now and then: servers that take turns behave so."""

    heads: ClassVar[list[int]] = []

    async def head(self) -> int:
        self.heads.append(await super().head())
        return self.heads[-1 if len(self.heads) % 3 else -3]


class GetsThePast(ModelDriver):
    """Gives the latest version as it was when it was last asked for."""

    last: ClassVar[dict[str, State | None]] = {}

    async def get(self, id: str, rev: int | None = None) -> State | None:
        state = await super().get(id, rev)
        if rev is not None:
            return state
        before = self.last.get(id, state)
        self.last[id] = state
        return before


class GetsNowhere(ModelDriver):
    """Says of a page without matches that it ends where it began."""

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        page = await super().read(query, after, limit, newest_first=newest_first)
        return page if page.versions else Page((), after)


class FindsTheOldest(Model):
    """Finds the match with the lowest revision."""

    def find(self, query: Query) -> State | None:
        return next(filter(query.matches, self.current.values()), None)


class FindsThePast(Model):
    """Finds states by what they were."""

    def find(self, query: Query) -> State | None:
        matching = [state for state in self.log if query.matches(state)]
        return matching[-1] if matching else None


class NeverWakes(ModelDriver):
    """Who waits waits for ever."""

    async def wait(self, after: int) -> int:
        if self.model.head <= after:
            await anyio.sleep_forever()
        return self.model.head


class WakesOne(ModelDriver):
    """A commit wakes one of those who wait."""

    asleep: ClassVar[list[int]] = []

    async def wait(self, after: int) -> int:
        self.asleep.append(after)
        first = len(self.asleep) == 1
        head = await super().wait(after)
        if not first:
            await anyio.sleep_forever()
        return head


class HearsOfTheFuture(ModelDriver):
    """Says that it has heard of a revision that is to come."""

    async def wait(self, after: int) -> int:
        return await super().wait(after) + 1


class TurnsTimeRound(ModelDriver):
    """Trusts a clock that is set back."""

    async def commit(self, plan: Plan) -> States:
        written = await super().commit(plan)
        for state in written:
            force_setattr(state, "committed_at", 2_000_000_000_000 - state.rev)
        return written


@define(eq=False)
class ReadsTheWholeLog(MemoryDriver):
    """Looks at every version to find the latest of one state. A fast driver but for that: the one
    over the model would take longer for everything."""

    log: list[State] = field(factory=list[State])

    async def commit(self, plan: Plan) -> States:
        written = await super().commit(plan)
        self.log += written
        return written

    async def get(self, id: str, rev: int | None = None) -> State | None:
        found = [s for s in self.log if s.id == id and rev in (None, s.rev)]
        return found[-1] if found else None


class KeepsOneTooFew(ModelDriver):
    """Takes ``keep`` for how many superseded versions stay less one."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        fewer = replace(retention, keep=max(1, retention.keep - 1))
        return await super().compact(fewer, after, limit, dry_run=dry_run)


class RemovesTheVeryMillisecond(ModelDriver):
    """Takes ``before`` for a time that has passed too."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        later = replace(retention, before=min(retention.before + 1, MAX_INSTANT_MS))
        return await super().compact(later, after, limit, dry_run=dry_run)


class RemovesEndedStatesUnasked(ModelDriver):
    """Takes every state that has ended for one that may go."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        return await super().compact(replace(retention, ended=True), after, limit, dry_run=dry_run)


class KeepsEndedStates(ModelDriver):
    """Leaves the end of each state."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        return await super().compact(replace(retention, ended=False), after, limit, dry_run=dry_run)


class RemovesWhatJustEnded(Model):
    """Looks at the age of a version only, not at when its state has ended."""

    def may_go(self, state: State, retention: Retention) -> bool:
        ended_long_ago = replace(retention, before=MAX_INSTANT_MS)
        return retention.is_old(state.committed_at) and super().may_go(state, ended_long_ago)


class RemovesTheHead(Model):
    """Removes the newest version of all, and gives its revision to the next."""

    def may_go(self, state: State, retention: Retention) -> bool:
        goes_whole = retention.removes_state(state.transition.status, state.committed_at)
        return goes_whole or super().may_go(state, retention)


class RevivesTheDead(Model):
    """Removes the end of a state and leaves what came before."""

    def compact(self, retention: Retention, after: int, upto: int, *, dry_run: bool) -> Compaction:
        ends = [
            state
            for state in self.current.values()
            if after < state.rev <= upto and self.may_go(state, retention)
        ]
        batch = super().compact(retention, after, upto, dry_run=dry_run)
        if not dry_run:
            self.log = [state for state in self.log if state not in ends]
        return batch


class NeverFrees(Model):
    """Keeps every payload."""

    def users(self) -> Users:
        return {}


class FreesTooEarly(Model):
    """Removes a payload with the version that brought it."""

    def users(self) -> Users:
        users = super().users()
        return {key: states[:1] for key, states in users.items() if key in self.payloads}


class OverlooksWhatIsStacked(Model):
    """Counts the references of a state, not those of the states inside."""

    def users(self) -> Users:
        return Model([replace(state, stacked={}) for state in self.log]).users()


class ConfusesEqualPayloads(Model):
    """Takes payloads with the same content for one."""

    def users(self) -> Users:
        first: dict[str, list[State]] = {}
        users = super().users()
        return {
            key: first.setdefault(key[1], states)
            for key, states in users.items()
            if key in self.payloads
        }


class ForgetsSizes(ModelDriver):
    """Counts versions and leaves their payloads out."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        return replace(batch, size=batch.versions)


class DoesNotTryDry(ModelDriver):
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


class GuessesWhenDry(ModelDriver):
    """Counts no payloads without removing them."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        return replace(batch, payloads=0) if dry_run else batch


class TakesItAll(ModelDriver):
    """Knows no limit."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        return await super().compact(retention, after, limit + 1_000, dry_run=dry_run)


class NeverDone(ModelDriver):
    """Looks on to the head, however young what it finds."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        return replace(batch, upto=max(batch.upto, self.model.head))


class NeverTells(ModelDriver):
    """Hides that history is gone."""

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        return replace(
            await super().read(query, after, limit, newest_first=newest_first), compacted=0
        )


class NeverTellsWatchers(NeverTells):
    """The same: who asks for what is gone is given what is left."""


class NeverTellsWhoWasOvertaken(NeverTells):
    """The same: who is overtaken goes on as if nothing were missing."""


class TellsOfTheLastBatch(Model):
    """Says how far the last batch removed something, not how far any did."""

    def compact(self, retention: Retention, after: int, upto: int, *, dry_run: bool) -> Compaction:
        self.compacted = 0
        return super().compact(retention, after, upto, dry_run=dry_run)


class TellsLate(ModelDriver):
    """Says that versions are gone some time after they are."""

    told: int = 0

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        self.told = self.model.compacted
        return batch

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        return replace(
            await super().read(query, after, limit, newest_first=newest_first), compacted=self.told
        )


class TellsWhateverIsAsked(ModelDriver):
    """Says that something is gone also to who asks for what came later."""

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        page = await super().read(query, after, limit, newest_first=newest_first)
        return replace(page, compacted=self.model.compacted)


@define
class LeavesLabels(Model):
    """Removes versions, and leaves them in the index of labels."""

    labelled: list[State] = field(factory=list[State])

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        written = super().commit(plan, first_rev, committed_at)
        self.labelled += written
        return written

    def read(self, query: Query, after: int, *, newest_first: bool = False) -> list[State]:
        if not query.alternatives or query.latest or newest_first:
            return super().read(query, after, newest_first=newest_first)
        return [state for state in self.labelled if state.rev > after and query.matches(state)]


class ForgetsCommitsMeanwhile(ModelDriver):
    """Writes back what it knew when the batch began."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        known = {state.rev for state in self.model.log}
        await anyio.lowlevel.checkpoint()
        batch = await super().compact(retention, after, limit, dry_run=dry_run)
        self.model.log = [state for state in self.model.log if state.rev in known]
        return batch


@define
class RemembersTheDead(Model):
    """A state that is gone is still there for who wants to create it."""

    latest: dict[str, int] = field(factory=dict[str, int])

    def conflicts(self, plan: Plan) -> dict[str, tuple[int, int]]:
        return plan.conflicts(lambda name: self.latest.get(name, 0))

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        written = super().commit(plan, first_rev, committed_at)
        self.latest.update({state.id: state.rev for state in written})
        return written


class GivesWhatIsLeftAsOutcome(ModelDriver):
    """Asked for an outcome again, gives what is left of it."""

    async def commit(self, plan: Plan) -> States:
        outcome = await super().commit(plan)
        return tuple(state for state in outcome if state in self.model.log)


class ComposesText(ModelDriver):
    """Gives letters back without the accents that were written beside them."""

    async def get(self, id: str, rev: int | None = None) -> State | None:
        state = await super().get(id, rev)
        if state is None:
            return None
        reason = normalize("NFC", state.transition.reason)
        return replace(state, transition=replace(state.transition, reason=reason))


class ForgetsNotes(ModelDriver):
    """Shows watchers a version without the annotations of its transition."""

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        page = await super().read(query, after, limit, newest_first=newest_first)
        versions = tuple(
            replace(state, transition=replace(state.transition, annotations={}))
            for state in page.versions
        )
        return replace(page, versions=versions)


class KnowsAsciiIds(ModelDriver):
    """Takes a commit whose id is not plain ASCII for a new one."""

    async def commit(self, plan: Plan) -> States:
        if not plan.commit_id.isascii() and (conflicts := self.model.conflicts(plan)):
            raise RevMismatchError(conflicts)
        return await super().commit(plan)


class IgnoresCase(ModelDriver):
    """Finds what begins with a prefix in capitals as well."""

    async def find(self, query: Query) -> State | None:
        return await super().find(replace(query, id_prefix=query.id_prefix.lower()))


class RecordsNothing(ModelDriver):
    """Takes no notice of the ids of callers."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(replace(plan, key=None))


class LooksAtRecordsLast(ModelDriver):
    """Looks for the id of a caller only if nothing conflicts."""

    async def commit(self, plan: Plan) -> States:
        if plan.commit_id not in self.model.outcomes and (conflicts := self.model.conflicts(plan)):
            raise RevMismatchError(conflicts)
        return await super().commit(plan)


class RecordsWhatItRefuses(ModelDriver):
    """Records a commit before it knows whether that holds."""

    async def commit(self, plan: Plan) -> States:
        try:
            return await super().commit(plan)
        except RevMismatchError:
            if plan.key is not None:
                self.model.records[plan.key.id] = Record(plan.key.digest, plan.commit_id, 1, 1)
            raise


class TellsItsOwnOf(ModelDriver):
    """Refuses a recorded commit that is committed again."""

    async def commit(self, plan: Plan) -> States:
        if plan.key is not None and plan.key.id in self.model.records:
            raise RecordedError(plan.key.id, self.model.records[plan.key.id])
        return await super().commit(plan)


class RecordsOnlyWrites(ModelDriver):
    """Records no commit that writes nothing."""

    async def commit(self, plan: Plan) -> States:
        return await super().commit(plan if plan.writes else replace(plan, key=None))


class LooksAtRecordsTooEarly(ModelDriver):
    """Lets others get between looking for a record and writing."""

    async def commit(self, plan: Plan) -> States:
        if plan.key is None or plan.key.id in self.model.records:
            return await super().commit(plan)
        await anyio.lowlevel.checkpoint()
        self.model.records.pop(plan.key.id, None)
        return await super().commit(plan)


class TakesIdsForOne(ModelDriver):
    """Has one kind of ids, those of callers and those of plans."""

    async def commit(self, plan: Plan) -> States:
        if plan.key is not None and plan.key.id in self.model.outcomes:
            return self.model.outcomes[plan.key.id]
        return await super().commit(plan)


class FoldsIds(ModelDriver):
    """Takes ids of callers for the same that only look alike."""

    async def record(self, id: str) -> Record | None:
        same = [
            each for each in self.model.records if normalize("NFC", each) == normalize("NFC", id)
        ]
        return self.model.records[same[0]] if same else None


class ForgetsRecordsWithVersions(Model):
    """Removes what is recorded with the last version that the commit wrote."""

    def compact(self, retention: Retention, after: int, upto: int, *, dry_run: bool) -> Compaction:
        batch = super().compact(retention, after, upto, dry_run=dry_run)
        revs = {state.rev for state in self.log}
        self.records = {k: r for k, r in self.records.items() if r.first_rev in revs}
        return batch


class ForgetsTheVeryMillisecond(Model):
    """Forgets what was recorded at the very time as well."""

    def forget_records(self, before: int, limit: int) -> int:
        return super().forget_records(before + 1, limit)


def small(number: int) -> int:
    """What a driver says that has 32 bits for each number."""
    if number >= 2**31:
        raise StoreError("small", f"{number} is out of range")
    return number


class LoadsSmallRevisions(ModelDriver):
    """Has 32 bits for the revision of a payload."""

    async def load(self, ref: DataRef) -> bytes:
        small(ref.rev)
        return await super().load(ref)


class KeepsAFew(ModelDriver):
    """Has 32 bits for how many versions are kept."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        small(retention.keep)
        return await super().compact(retention, after, limit, dry_run=dry_run)


class ExpectsSmallRevisions(ModelDriver):
    """Has 32 bits for the revision that a commit expects."""

    async def commit(self, plan: Plan) -> States:
        for _, rev in plan.expectations():
            small(rev)
        return await super().commit(plan)


CAUGHT_BY: dict[Broken, str] = {
    **broken_places.CAUGHT_BY,
    **broken_reading.CAUGHT_BY,
    **broken_errors.CAUGHT_BY,
    RecordsNothing: "test_a_commit_under_an_id_of_its_callers_is_recorded",
    LooksAtRecordsLast: "test_what_is_recorded_decides_before_any_expectation",
    RecordsWhatItRefuses: "test_a_refused_commit_is_not_recorded",
    TellsItsOwnOf: "test_a_recorded_commit_that_is_committed_again_gives_its_outcome",
    RecordsOnlyWrites: "test_a_commit_that_only_requires_is_recorded",
    LooksAtRecordsTooEarly: "test_one_of_many_commits_under_one_id_wins",
    TakesIdsForOne: "test_an_id_of_a_caller_is_no_commit_id",
    FoldsIds: "test_the_ids_of_callers_are_told_apart",
    ForgetsRecordsWithVersions: "test_compaction_leaves_records",
    ForgetsTheVeryMillisecond: "test_records_go_by_their_own_age",
    ComposesText: "test_what_is_accepted_comes_back_equal",
    ForgetsNotes: "test_what_a_command_accepts_comes_back_equal",
    KnowsAsciiIds: "test_whatever_a_plan_is_called_is_kept",
    IgnoresCase: "test_a_query_that_is_accepted_is_answered",
    LoadsSmallRevisions: "test_a_reference_that_is_accepted_can_be_asked_for",
    KeepsAFew: "test_a_retention_that_is_accepted_is_counted",
    ExpectsSmallRevisions: "test_a_revision_that_was_never_given_is_a_conflict",
    TellsOneConflict: "test_all_conflicts_are_reported",
    IgnoresRequirements: "test_a_stale_requirement_conflicts",
    LosesAWrite: "test_states_of_one_commit_have_consecutive_revisions",
    WritesInPieces: "test_a_reader_never_sees_half_a_commit",
    WritesWhatItCan: "test_a_refused_commit_writes_no_state",
    StoresPayloadsFirst: "test_a_refused_commit_writes_no_payload",
    StoresPayloadsTwice: "test_a_payload_shared_in_a_commit_is_stored_once",
    StoresWhatIsAttachedAgain: "test_what_is_attached_again_is_stored_once",
    RefersToWhatIsGone: "test_what_is_attached_again_is_stored_if_it_is_gone",
    ChecksTooEarly: "test_one_of_many_racing_commits_wins",
    ForgetsOutcomes: "test_a_lost_commit_that_is_committed_again_happens_once",
    GivesTheNewestAsOutcome: "test_the_first_outcome_stands_after_others_moved_on",
    CommitsAgain: "test_a_plan_committed_twice_at_the_same_time_happens_once",
    LendsItsMemory: "test_what_is_given_out_cannot_be_changed",
    SkipsAVersion: "test_read_is_a_filter_of_the_log",
    ShowsRevisionsLate: "test_nothing_appears_below_what_was_read",
    NamesTheNextHead: "test_the_head_never_falls_and_is_readable",
    FallsBehindItself: "test_the_head_never_falls_and_is_readable",
    GetsThePast: "test_the_head_never_falls_and_is_readable",
    GetsNowhere: "test_a_page_without_matches_still_gets_on",
    FindsTheOldest: "test_find_gives_the_newest_current_match",
    FindsThePast: "test_find_overlooks_what_a_state_was",
    NeverWakes: "test_a_commit_wakes_who_waits",
    WakesOne: "test_a_commit_wakes_all_who_wait",
    HearsOfTheFuture: "test_wait_gives_no_more_than_the_head",
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


def store_of(broken: Broken, tmp_path: Path) -> Store:
    """A store with this driver, or with the driver over this model."""
    if broken in broken_errors.CAUGHT_BY:
        return broken_errors.FaultyStore(tmp_path, kind=broken)
    if issubclass(broken, SQLiteDriver):
        return broken_places.SeveralProcesses(tmp_path, broken)
    made = broken()
    if isinstance(made, broken_places.OneOfSeveral):
        return broken_places.SeveralDrivers(made)
    if isinstance(made, broken_places.LocksBeforeItLooks):
        return broken_places.LockedStore(made)
    if isinstance(made, MemoryDriver):
        return MemoryStore(made)
    return ModelStore(made if isinstance(made, ModelDriver) else ModelDriver(made))


class BrokenSuite(DriverConformance):
    """The suite over one of these drivers."""

    broken: ClassVar[Broken]

    def new_store(self, tmp_path: Path) -> Store:
        return store_of(self.broken, tmp_path)


for _broken in CAUGHT_BY:
    # processes take a while to begin, and what goes wrong there is told at once
    patience_s = 30.0 if issubclass(_broken, SQLiteDriver) else 1.0
    globals()[f"Test{_broken.__name__}"] = type(
        f"Test{_broken.__name__}", (BrokenSuite,), {"broken": _broken, "patience_s": patience_s}
    )
