"""Drivers that each break one law of what leaves, of counting, of the order of pages, or of
forgetting; see ``broken.py``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attrs import define, field
from msgspec.structs import replace

from flowstate import DataForgottenError, DataRef, Page, Plan, Query, State, Status
from flowstate.drivers.memory import MemoryDriver
from flowstate.query import Left
from flowstate.testing.model import Model

from .broken_places import OneOfSeveral
from .model_driver import ModelDriver

Keys = Collection[tuple[int, str]]
States = tuple[State, ...]

# ---------------------------------------------------------------- what leaves


class DerivesWhatWasBefore(Model):
    """Looks for the version before when it is asked, and not when it is written."""

    def left(self, state: State) -> Left | None:
        before = [other for other in self.log if other.id == state.id and other.rev < state.rev]
        return Left.of(before[-1]).before(state) if before else None

    def leaves(self, query: Query, state: State) -> bool:
        return self.left(state) is not None and super().leaves(query, state)


class OverlooksLostLabels(Model):
    """Finds what leaves by the labels that are still there."""

    def leaves(self, query: Query, state: State) -> bool:
        return super().leaves(query, state) and replace(query, status=(), flow=()).matches(state)


class LeavesByItsStatus(Model):
    """Has a state leave whenever its status is not what was asked for."""

    def leaves(self, query: Query, state: State) -> bool:
        other = bool(query.status) and state.transition.status not in query.statuses
        return query.leaving and (super().leaves(query, state) or other)


class LeavesAmongCurrent(Model):
    """Gives the current version of a state also if it leaves."""

    def read(self, query: Query, after: int, *, newest_first: bool = False) -> list[State]:
        every = super().read(replace(query, latest=False), after, newest_first=newest_first)
        current = self.current
        return [each for each in every if not query.latest or current[each.id] is each]


@define
class RemembersTheRemoved(Model):
    """Takes the first version of a new state for the next one of what had the same id."""

    last: dict[str, State] = field(factory=dict[str, State])

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        written = super().commit(plan, first_rev, committed_at)
        for state in written:
            if state.id in self.last:
                self.previous.setdefault(state.rev, self.last[state.id])
            self.last[state.id] = state
        return written


# ---------------------------------------------------------------- pages and counts


class CutsThenTurns(ModelDriver):
    """Takes the oldest that fit on the page, and turns them round."""

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        page = await super().read(query, after, 1_000, newest_first=newest_first)
        if not newest_first:
            return await super().read(query, after, limit)
        return replace(page, versions=page.versions[-limit:])


class CountsHistory(Model):
    """Counts every version."""

    def count(self, query: Query, by: str) -> dict[str, int]:
        found = [state.transition for state in self.log if query.matches(state)]
        names = [each.status.value if by == "status" else each.to for each in found]
        return {name: names.count(name) for name in names}


class CountsNothingToo(Model):
    """Tells also of what there is none of."""

    def count(self, query: Query, by: str) -> dict[str, int]:
        return {Status.FAILED.value: 0, **super().count(query, by)}


@define(eq=False)
class LooksThroughAllThatHadALabel(MemoryDriver):
    """Looks at every version that ever had a label for those that are current."""

    last_looked_at: list[State] = field(factory=list[State])

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        if query.latest and query.labels:
            self.last_looked_at = [state for state, _ in self.stored() if query.matches(state)]
        return await super().read(query, after, limit, newest_first=newest_first)


# ---------------------------------------------------------------- forgetting


class ForgetsWhatIsEqual(Model):
    """Forgets the same content wherever it was stored."""

    def forget(self, id: str, payloads: Keys) -> int:
        equal = {checksum for _, checksum in payloads}
        return super().forget(id, [key for key in self.payloads if key[1] in equal])


class AsksWhoRefersNow(Model):
    """Counts the states whose current versions refer to a payload."""

    def forget(self, id: str, payloads: Keys) -> int:
        super().forget(id, payloads)
        current = {state.rev for state in self.current.values()}
        users = self.users()
        using = [state for key in payloads for state in users.get(key, [])]
        return len({state.id for state in using if state.rev in current} - {id})


class ForgetsWhatIsCurrent(Model):
    """Forgets nothing that only superseded versions refer to."""

    def forget(self, id: str, payloads: Keys) -> int:
        users = self.users()
        current = {state.rev for state in self.current.values()}
        used = {key for key in payloads if {s.rev for s in users.get(key, [])} & current}
        return super().forget(id, used)


class KeepsTheReference(Model):
    """Takes a forgotten payload for one that is stored."""

    @property
    def contents(self) -> dict[tuple[int, str], bytes]:
        return {key: content or b"" for key, content in self.payloads.items()}


class MakesOutcomesAgain(Model):
    """Makes an outcome again from its plan."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        known = self.outcomes.get(plan.commit_id)
        if known is None:
            return super().commit(plan, first_rev, committed_at)
        return plan.settled(self.contents).stamp(known[0].rev, known[0].committed_at)


class KeepsTheMark(Model):
    """Never removes what is left of a forgotten payload."""

    def users(self) -> dict[tuple[int, str], list[State]]:
        return {key: by for key, by in super().users().items() if self.payloads[key] is not None}


@define(eq=False)
class RemembersWhenReopened(OneOfSeveral):
    """Knows only in memory what was forgotten."""

    forgotten: set[tuple[int, str]] = field(factory=set[tuple[int, str]])

    async def forget(self, id: str, payloads: Keys) -> int:
        self.forgotten.update(payloads)
        kept = dict(self.model.payloads)
        others = await super().forget(id, payloads)
        self.model.payloads = kept
        return others

    async def load(self, ref: DataRef) -> bytes:
        if (ref.rev, ref.checksum) in self.forgotten:
            raise DataForgottenError(ref.checksum)
        return await super().load(ref)


CAUGHT_BY: dict[type[Any], str] = {
    DerivesWhatWasBefore: "test_what_leaves_is_known_after_compaction",
    OverlooksLostLabels: "test_what_leaves_is_given_with_what_matches",
    LeavesByItsStatus: "test_a_state_leaves_by_whatever_is_asked_of_it",
    LeavesAmongCurrent: "test_among_current_versions_nothing_leaves",
    RemembersTheRemoved: "test_a_new_state_has_left_nothing",
    CutsThenTurns: "test_the_newest_first_is_the_same_the_other_way",
    LooksThroughAllThatHadALabel: "test_cost_does_not_grow_with_what_has_lost_a_label",
    CountsHistory: "test_count_is_of_the_current_versions",
    CountsNothingToo: "test_count_is_of_the_current_versions",
    ForgetsWhatIsEqual: "test_what_was_forgotten_is_told",
    AsksWhoRefersNow: "test_forgetting_again_changes_nothing",
    ForgetsWhatIsCurrent: "test_what_has_ended_can_be_forgotten",
    KeepsTheReference: "test_what_was_forgotten_is_stored_anew_if_it_is_attached_again",
    MakesOutcomesAgain: (
        "test_an_outcome_is_as_it_was_stored_though_something_of_it_was_forgotten"
    ),
    KeepsTheMark: "test_what_was_forgotten_goes_with_the_last_version",
    RemembersWhenReopened: "test_what_was_forgotten_stays_so",
}
