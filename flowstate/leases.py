"""Leases: who works on what, how an engine shows that it does, and what the others may take.

Every current RUNNING version has a place. It is *ready*, in line since an instant for whoever has
its flow; or it is *taken* by an owner, an engine that runs it, for as long as its lease says, or
without end if its retries are switched off. The words for it, here and everywhere:

- *claim*: take what is ready, first in line first; *take*: the same of given versions;
- *renew*: whoever runs it moves the end of its lease, again and again;
- *release*: whoever cannot go on with it gives it back, so it is ready again;
- a lease that *ran out* means that its owner died or hung; where the store can tell that its
  session is over (``Driver.session``), its leases are *ended* at once.

None of it makes a new revision, and none of it is what safety rests on: commits are fenced by the
revision alone, so two that run the same version after a lost claim cannot both commit.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from .checks import check_name
from .errors import InvalidValueError
from .query import Unreadable
from .state import RetryPolicy, State

RENEW_AFTER = 1 / 3
"""The part of a lease that may go by before it is renewed."""

SESSION_MARK = "#"
"""What stands between an owner's own name and that of its driver's session."""

Held: TypeAlias = tuple[str, int, str]
"""What an owner has taken: id, revision, and the id of the claim; empty if it was committed as
taken."""


def owner_in(owner: str, session: str) -> str:
    """What an engine is called as an owner whose driver has that session; empty: none."""
    return f"{owner}{SESSION_MARK}{session}" if session else owner


def check_owner(field: str, owner: str) -> None:
    """Refuse the name of an owner that would seem to have a session."""
    if SESSION_MARK in check_name(field, owner):
        raise InvalidValueError(field, f"may not contain {SESSION_MARK!r}, but is {owner!r}")


def name_of(owner: str) -> str:
    """The owner's own name, for people."""
    return owner.rpartition(SESSION_MARK)[0] if SESSION_MARK in owner else owner


def session_of(owner: str) -> str:
    """The session of an owner's driver; empty if it has none that anybody could look for."""
    return owner.rpartition(SESSION_MARK)[2] if SESSION_MARK in owner else ""


def policy_of(state: State, policy: RetryPolicy) -> RetryPolicy:
    """The policy that a state goes by; *policy* is that of states without their own."""
    return state.retry or policy


def lease_ms(policy: RetryPolicy) -> int:
    """How long a version with this policy is leased for, in ms; 0 if it never is, because nobody
    is to retry it."""
    return round(policy.lease * 1000) if policy.enabled else 0  # on the path of every commit


def renewal_ms(length_ms: int) -> int:
    """How much of a lease of that length may go by before it is renewed, in ms."""
    return int(length_ms * RENEW_AFTER)


class Place(Struct, frozen=True, gc=False):
    """Where a current RUNNING version stands."""

    since: int | None
    """Ready since then (ms); None: it is taken."""
    owner: str = ""
    """Who has taken it."""
    claim: str = ""
    """The id of the claim by which it was taken; empty if it was committed as taken."""
    until: int | None = None
    """When the lease of its owner ends (ms); None: never."""

    def is_held(self, owner: str, claim: str) -> bool:
        """Whether it is taken by that claim of that owner."""
        return self.since is None and self.owner == owner and self.claim == claim


def ready(state: State, now: int, lease: int) -> Place:
    """In line since now (ms)."""
    return Place(now)


class Holding(Struct, frozen=True, gc=False):
    """A current version that is taken."""

    id: str
    rev: int
    flow: str
    place: Place

    @property
    def held(self) -> Held:
        """How whoever has it names it."""
        return self.id, self.rev, self.place.claim


class Claimed(Struct, frozen=True, gc=False):
    """A version that was given to whoever claimed it."""

    state: State
    policy: RetryPolicy | None
    """That of the engine which committed it; None if the state has its own."""


class Renewal(Struct, frozen=True, gc=False):
    """What renewing found out: ids."""

    moved: frozenset[str]
    """They are no longer at that revision."""
    lost: frozenset[str]
    """They are, but not taken by that claim."""


class Due(Struct, frozen=True, gc=False):
    """A current version whose due time has come: its alarm, or the end of its lease."""

    state: State
    at: int
    """Since when it is due (ms)."""
    policy: RetryPolicy | None = None
    """That of the engine which committed it; None if the state has its own."""


class DuePage(Struct, frozen=True, gc=False):
    """What is due, soonest first, and when to look again.

    ``next`` is the soonest due time (ms) of a version that is not in ``due``, whether it has come
    or is still to come; None if there is none. Versions that are due but cannot be read hold up
    nothing: those that were met are in ``unreadable``, and ``next`` passes them by.
    """

    due: tuple[Due, ...]
    next: int | None
    unreadable: tuple[Unreadable, ...] = ()
