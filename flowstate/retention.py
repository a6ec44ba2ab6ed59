"""What compaction may remove, and what it came to."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import force_setattr

from . import clock
from .checks import check_flag, check_whole
from .state import Status


class Retention(Struct, frozen=True):
    """What compaction may remove.

    ``before`` is a time (ms since the epoch): what was committed at or after it stays. Of what is
    older, superseded versions go, but for the ``keep`` newest versions of each state (the current
    one counts). ``ended``: states whose current version is ENDED and older go whole, whatever
    ``keep`` says. ``failed``: the same for FAILED, which otherwise stay until somebody ends them.
    """

    before: int
    keep: int = 1
    ended: bool = False
    failed: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "before", clock.instant("Retention.before", self.before))
        keep = check_whole("Retention.keep", self.keep, 1, "a number of versions")
        force_setattr(self, "keep", keep)
        check_flag("Retention.ended", self.ended)
        check_flag("Retention.failed", self.failed)

    def is_old(self, committed_at: int) -> bool:
        """Whether a version that was committed then (ms) is old enough to be removed."""
        return committed_at < self.before

    def removes_state(self, status: Status, committed_at: int) -> bool:
        """Whether a state goes whole whose current version has this status and time (ms)."""
        return status in self.removed_statuses and self.is_old(committed_at)

    @property
    def removed_statuses(self) -> frozenset[Status]:
        """The statuses whose old states go whole."""
        chosen = ((Status.ENDED, self.ended), (Status.FAILED, self.failed))
        return frozenset(status for status, is_chosen in chosen if is_chosen)


class Retained(Struct, frozen=True, gc=False):
    """What a retention leaves of one state's history: the rule, for the versions of that state.

    ``oldest`` is the oldest version that is there (it counts only if the whole state goes),
    ``latest`` the current one. The ``keep`` newest versions begin at ``first_kept`` (0: there are
    fewer). ``whole_goes``: the state ended or failed long enough ago, as it was asked, to go whole.
    """

    oldest: int
    latest: int
    first_kept: int
    whole_goes: bool

    def may_remove(self, rev: int, head: int) -> bool:
        """Whether an old version goes in a run that began at 0; *head* is the newest of the store,
        which stays, so that revisions and time go on."""
        return rev < self.first_kept or (self.whole_goes and rev != head)

    def removes(self, rev: int, head: int, after: int) -> bool:
        """Whether an old version goes in a batch that looks above *after*: what is current goes
        last, after all the others of its state."""
        return self.may_remove(rev, head) and (rev < self.latest or self.oldest > after)


class Compaction(Struct, frozen=True):
    """What one batch of compaction did.

    ``upto`` is the revision up to which it has looked: the next batch begins after it. Counted are
    the ``versions`` that were removed, the ``states`` of which no version is left, the
    ``payloads`` that nothing refers to any more, and the ``size`` of all that in bytes: versions as
    JSON, payloads as they are. ``done``: above ``upto`` nothing can be removed.
    """

    upto: int
    versions: int = 0
    states: int = 0
    payloads: int = 0
    size: int = 0
    done: bool = False
