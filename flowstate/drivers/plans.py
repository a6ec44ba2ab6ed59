"""Deciding a group of plans: what each comes to, given what is stored, before anything is written.

A durable driver reads the latest versions of the states that a group is about, inside the
transaction that will write it, decides every plan here, and writes what the group has then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from attrs import define, field
from msgspec import Struct

from ..errors import RevMismatchError
from ..plan import Plan, Write
from ..state import State
from .group import Outcome

K = TypeVar("K")

FirstOutcome = Callable[[Plan], tuple[State, ...] | None]
"""What a plan wrote if it was committed before."""


class Version(Struct, gc=False):
    """One version that a group writes."""

    state: State
    write: Write
    commit_id: str
    is_current: bool = True
    """False once it is overtaken within its group."""


class Latest(Struct, Generic[K], gc=False):
    """What is known of a state's latest version while a group is being decided."""

    rev: int
    kept: K | None = None
    """What the driver keeps beside a stored version, for when it is overtaken."""
    version: Version | None = None
    """The version, if this group writes it."""


@define
class Group(Generic[K]):
    """The plans of one transaction, and what they write."""

    first: int
    """The first revision that is free."""
    now: int
    """When all of it is committed, in ms."""
    latest: dict[str, Latest[K]]
    """id -> the latest version of every state that the plans are about, if there is one."""
    versions: list[Version] = field(factory=list[Version], init=False)
    payloads: list[tuple[int, str, bytes]] = field(factory=list[tuple[int, str, bytes]], init=False)
    """revision, checksum, content"""
    overtaken: list[Latest[K]] = field(factory=list[Latest[K]], init=False)
    """Stored versions that are not the latest any more."""
    _outcomes: dict[str, tuple[State, ...]] = field(
        factory=dict[str, tuple[State, ...]], init=False
    )
    """commit id -> what it wrote: a plan may be in a group twice, and no table knows it yet."""

    def decide(self, plan: Plan, first_outcome: FirstOutcome) -> Outcome:
        """Take the plan in if its expectations hold; else its first outcome, or what conflicts."""
        if conflicts := self.conflicts(plan):
            return (
                self._outcomes.get(plan.commit_id)
                or first_outcome(plan)
                or RevMismatchError(conflicts)
            )
        return self._add(plan)

    def conflicts(self, plan: Plan) -> dict[str, tuple[int, int]]:
        """The ids whose latest revision is not the expected one: (expected, found)."""
        latest = self.latest
        conflicts: dict[str, tuple[int, int]] = {}
        for id, expected in plan.expectations():
            known = latest.get(id)
            found = 0 if known is None else known.rev
            if found != expected:
                conflicts[id] = (expected, found)
        return conflicts

    def _add(self, plan: Plan) -> tuple[State, ...]:
        first = self.first + len(self.versions)
        states = plan.stamp(first, self.now)
        for state, write in zip(states, plan.writes, strict=True):
            known = self.latest.get(state.id)
            if known is None:
                pass
            elif known.version is None:
                self.overtaken.append(known)
            else:
                known.version.is_current = False
            version = Version(state, write, plan.commit_id)
            self.versions.append(version)
            self.latest[state.id] = Latest(state.rev, None, version)
        self.payloads.extend((first, key, content) for key, content in plan.payloads.items())
        self._outcomes[plan.commit_id] = states
        return states


def wanted_ids(plans: Sequence[Plan]) -> list[str]:
    """Every state that the plans write or require."""
    ids = {write.state.id for plan in plans for write in plan.writes}
    ids.update(id for plan in plans for id, _ in plan.requires)
    return list(ids)
