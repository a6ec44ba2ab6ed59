"""Deciding a group of plans: what each comes to, given what is stored, before anything is written.

A durable driver reads the latest versions of the states that a group is about, inside the
transaction that will write it, decides every plan here, and writes what the group has then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeAlias, TypeVar

from attrs import define, field
from msgspec import Struct

from ..errors import RevMismatchError
from ..plan import NextVersion, Plan, Record, Write
from ..query import Left
from ..state import State

StoredT = TypeVar("StoredT")

Outcome: TypeAlias = tuple[State, ...] | Exception
"""What became of one plan: the versions that it wrote, or why it wrote none."""


class Version(Struct, gc=False):
    """One version that a group writes."""

    state: State
    write: Write
    commit_id: str
    left: Left | None = None
    """What its state was before, as far as that was anything else."""
    is_current: bool = True
    """False once it is superseded within its group."""


class Latest(Struct, Generic[StoredT], gc=False):
    """The latest version of a state, at some point while a group is being decided."""

    rev: int
    stored: StoredT | None = None
    """What the driver has to know of a stored version when it is superseded."""
    was: Left | None = None
    """All that a query can ask of a stored version, as far as it can be read."""
    version: Version | None = None
    """The version, if this group writes it."""


@define
class GroupPlan(Generic[StoredT]):
    """The plans of one transaction, and what they write."""

    first: int
    """The first revision that is free."""
    now: int
    """When all of it is committed, in ms."""
    latest: dict[str, Latest[StoredT]]
    """id -> the latest version of every state that the plans are about, if there is one."""
    records: dict[str, Record] = field(factory=dict[str, Record])
    """What is recorded under the keys of the plans."""
    new_records: list[tuple[str, Record]] = field(factory=list[tuple[str, Record]], init=False)
    """Those of them that this group writes."""
    versions: list[Version] = field(factory=list[Version], init=False)
    payloads: list[tuple[int, str, bytes]] = field(factory=list[tuple[int, str, bytes]], init=False)
    """revision, checksum, content"""
    superseded: list[Latest[StoredT]] = field(factory=list[Latest[StoredT]], init=False)
    """Stored versions that are not the latest any more."""
    _outcomes: dict[str, tuple[State, ...]] = field(
        factory=dict[str, tuple[State, ...]], init=False
    )
    """commit id -> what it wrote: a plan may be in a group twice, and no table has it yet."""

    def decide(self, plan: Plan, next_version: NextVersion) -> Outcome:
        """Take the plan in if its key is new and its expectations hold; else its first outcome, or
        what is in its way.

        *next_version* looks at what was stored before the group.
        """
        if plan.key is not None and (record := self.records.get(plan.key.id)) is not None:
            return self._outcomes.get(plan.commit_id) or plan.recorded(record, next_version)
        if conflicts := plan.conflicts(self.latest_rev):
            return (
                self._outcomes.get(plan.commit_id)
                or plan.first_outcome(next_version)
                or RevMismatchError(conflicts)
            )
        return self._add(plan)

    def latest_rev(self, id: str) -> int:
        """The latest revision of a state, 0 if there is none."""
        latest = self.latest.get(id)
        return 0 if latest is None else latest.rev

    def _add(self, plan: Plan) -> tuple[State, ...]:
        first = self.first + len(self.versions)
        states = plan.stamp(first, self.now)
        for state, write in zip(states, plan.writes, strict=True):
            latest = self.latest.get(state.id)
            was: Left | None = None
            if latest is None:
                pass
            elif latest.version is None:
                self.superseded.append(latest)
                was = latest.was
            else:
                latest.version.is_current = False
                was = Left.of(latest.version.state)
            left = None if was is None else was.before(state)
            version = Version(state, write, plan.commit_id, left)
            self.versions.append(version)
            self.latest[state.id] = Latest(state.rev, version=version)
        self.payloads.extend((first, key, content) for key, content in plan.payloads.items())
        self._outcomes[plan.commit_id] = states
        if (keyed := plan.record(first, self.now)) is not None:
            self.new_records.append(keyed)
            self.records[keyed[0]] = keyed[1]
        return states

    @property
    def writes_something(self) -> bool:
        """Whether there is anything to store."""
        return bool(self.versions or self.new_records)


def keys_of(plans: Sequence[Plan]) -> list[str]:
    """The ids that callers gave these plans; mostly none."""
    return [plan.key.id for plan in plans if plan.key is not None]


def ids_of(plans: Sequence[Plan]) -> list[str]:
    """Every state that the plans write or require."""
    ids = {write.state.id for plan in plans for write in plan.writes}
    ids.update(id for plan in plans for id, _ in plan.requires)
    return list(ids)


def reused_by(plans: Sequence[Plan]) -> list[tuple[int, str]]:
    """The payloads that the plans refer to and could store again."""
    return [key for plan in plans for key in plan.reused]
