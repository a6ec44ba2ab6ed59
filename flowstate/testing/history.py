"""The history of a store, and whether it keeps the laws of the kernel.

``RecordingDriver`` notes every commit that was tried and every one that was acknowledged. ``check``
looks at a whole history afterwards and says where it breaks a law. It needs nothing but the
history, so it judges any driver, any engine and any cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TypeAlias

from attrs import define, field
from msgspec import Struct
from msgspec.structs import replace

from ..driver import Driver
from ..errors import CompactedError
from ..plan import Plan
from ..query import Left, Query
from ..state import KERNEL_PREFIX, Alarm, Cause, RetryPolicy, State, Status, Transition
from .places import Call, Change, PlaceChange
from .wrapper import WrapperDriver

_TRIED_AGAIN = frozenset({Cause.RETRY, Cause.LOST})
_FIRED = _TRIED_AGAIN | {Cause.ALARM}
PAGE = 10_000
"""Versions that are read at a time."""


class Acknowledged(Struct, frozen=True):
    """A commit whose outcome its engine has received."""

    commit_id: str
    versions: tuple[State, ...]


class Seen(Struct, frozen=True):
    """The versions that a watcher was given, from one revision to another."""

    watcher: str
    query: Query
    after: int
    upto: int
    """The revision up to which it had seen everything when it was left."""
    revs: tuple[int, ...]


class History(Struct, frozen=True, kw_only=True, dict=True):
    """A store's whole log, and what its engines and watchers have seen of it.

    What is left out cannot be judged: without plans, it is open which commit wrote a version.
    """

    log: tuple[State, ...]
    """Every version that is stored, in revision order."""
    plans: tuple[Plan, ...] = ()
    """The plans that were tried, whatever became of them; one tried twice may be there twice."""
    acknowledged: tuple[Acknowledged, ...] = ()
    seen: tuple[Seen, ...] = ()
    policy: RetryPolicy = RetryPolicy()
    """The retry policy of states without one of their own."""
    changes: tuple[PlaceChange, ...] = ()
    """Every change of a place, in the order in which the store made them."""
    calls: tuple[Call, ...] = ()
    """Every call of a flow."""
    clocks_apart_ms: int = 0
    """By how much the clocks of two engines, or of an engine and the store, may differ."""
    exempt: str = KERNEL_PREFIX
    """The prefix of ids of states that need not come to rest: that of the election."""

    @classmethod
    async def read(cls, driver: Driver, policy: RetryPolicy = RetryPolicy()) -> History:  # noqa: B008  (a value)
        """The history of a store, from its log alone. All of it is read into memory.

        Raises ``CompactedError`` if some of the log was removed, and ``UnreadableVersionError`` if
        some cannot be read, since that cannot be judged.
        """
        log: list[State] = []
        upto, head = 0, await driver.head()
        while upto < head:
            page = await driver.read(Query(), upto, PAGE)
            if page.compacted:
                raise CompactedError(upto, page.compacted + 1)
            for version in page.unreadable:
                raise version.error()
            log += page.versions
            upto = page.upto
        return cls(log=tuple(log), policy=policy)

    @cached_property
    def before(self) -> Mapping[int, State]:
        """Revision -> the version of the same state before it."""
        latest: dict[str, State] = {}
        found: dict[int, State] = {}
        for state in self.log:
            if state.id in latest:
                found[state.rev] = latest[state.id]
            latest[state.id] = state
        return found

    @cached_property
    def left(self) -> Mapping[int, Left]:
        """Revision -> what the state was before that version."""
        return {rev: Left.of(before) for rev, before in self.before.items()}

    @cached_property
    def changes_of(self) -> Mapping[tuple[str, int], list[tuple[int, PlaceChange]]]:
        """(id, rev) -> the changes of its place, each with its number."""
        found: dict[tuple[str, int], list[tuple[int, PlaceChange]]] = {}
        for number, change in enumerate(self.changes):
            found.setdefault((change.id, change.rev), []).append((number, change))
        return found

    def policy_of(self, state: State) -> RetryPolicy:
        return state.retry or self.policy


@define(eq=False)
class RecordingDriver(WrapperDriver):
    """Notes what is tried and what is acknowledged; several drivers may share the lists."""

    plans: list[Plan] = field(factory=list[Plan])
    acknowledged: list[Acknowledged] = field(factory=list[Acknowledged])

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        self.plans.append(plan)
        versions = await super().commit(plan)
        self.acknowledged.append(Acknowledged(plan.commit_id, versions))
        return versions

    async def history(self, policy: RetryPolicy = RetryPolicy()) -> History:  # noqa: B008  (a value)
        """The history of the store, with what was noted here. It must have been empty before."""
        log = await History.read(self.driver, policy)
        return replace(log, plans=tuple(self.plans), acknowledged=tuple(self.acknowledged))


Invariant: TypeAlias = Callable[[History], Iterable[str]]
"""What must be true of a history: a function that gives, in words, where it is not."""


def check(history: History, invariants: Iterable[Invariant] = ()) -> list[str]:
    """Where a law, or one of the *invariants*, is broken, in words; empty if nowhere."""
    laws = [*LAWS.values(), *invariants]
    return [f"{law.__name__}: {problem}" for law in laws for problem in law(history)]


# ---------------------------------------------------------------- the laws


def order(history: History) -> Iterator[str]:
    """Revisions strictly increase, and time never goes back."""
    for earlier, later in zip(history.log, history.log[1:], strict=False):
        if later.rev <= earlier.rev:
            yield f"revision {later.rev} comes after {earlier.rev}"
        if later.committed_at < earlier.committed_at:
            yield f"revision {later.rev} was committed before {earlier.rev}"


def writers(history: History) -> Iterator[str]:
    """Every version was written by a plan that expected the version before it, and the plan's
    other versions stand beside it: an unbroken chain for each id, commits whole.

    Gives nothing if the history has no plans.
    """
    if not history.plans:
        return
    plans: dict[tuple[str, int], list[Plan]] = {}
    for plan in history.plans:
        first = plan.writes[0].state
        plans.setdefault((first.id, first.rev), []).append(plan)
    latest: dict[str, int] = {}
    place = 0
    while place < len(history.log):
        state = history.log[place]
        expected = latest.get(state.id, 0)
        for plan in plans.get((state.id, expected), []):
            versions = history.log[place : place + len(plan.writes)]
            if versions == plan.stamp(state.rev, state.committed_at):
                break
        else:
            yield (
                f"no plan wrote the whole commit that begins with revision {state.rev} of "
                f"{state.id!r} on top of revision {expected}"
            )
            latest[state.id] = state.rev
            place += 1
            continue
        for id, rev in plan.expectations():
            if latest.get(id, 0) != rev:
                yield (
                    f"revision {state.rev} rests on revision {rev} of {id!r}, which was at "
                    f"{latest.get(id, 0)}"
                )
        latest.update((version.id, version.rev) for version in versions)
        place += len(versions)


def promises(history: History) -> Iterator[str]:
    """No acknowledged commit is lost, and no version was acknowledged to two commits."""
    stored = {state.rev: state for state in history.log}
    owners: dict[int, str] = {}
    for commit in history.acknowledged:
        for version in commit.versions:
            if stored.get(version.rev) != version:
                yield f"{commit.commit_id} was told of revision {version.rev} of {version.id!r}"
            owner = owners.setdefault(version.rev, commit.commit_id)
            if owner != commit.commit_id:
                yield f"revision {version.rev} was given to {owner} and {commit.commit_id}"


def watched(history: History) -> Iterator[str]:
    """Every watcher saw each version that its query selects exactly once, in order."""
    for seen in history.seen:
        expected = [
            state.rev
            for state in history.log
            if seen.after < state.rev <= seen.upto
            and seen.query.selects(state, history.left.get(state.rev))
        ]
        if list(seen.revs) != expected:
            odd = sorted(set(expected) ^ set(seen.revs))
            yield (
                f"{seen.watcher} from {seen.after} to {seen.upto} saw {len(seen.revs)} versions "
                f"of {len(expected)}; missed or made up: {odd[:10]}"
            )


def rest(history: History) -> Iterator[str]:
    """In the end every state rests: none is left that should still move by itself."""
    latest = {state.id: state for state in history.log}
    for state in latest.values():
        if history.exempt and state.id.startswith(history.exempt):
            continue
        transition = state.transition
        runs = transition.status is Status.RUNNING and history.policy_of(state).enabled
        if runs or transition.alarm is not None or transition.status is Status.NEW:
            yield f"state {state.id!r} is {transition.status.name} at {transition.to!r}"


def alarms(history: History) -> Iterator[str]:
    """No alarm fires before its time, and none fires that was not set."""
    for state in history.log:
        transition = state.transition
        before = history.before.get(state.rev)
        if before is not None and before.transition == transition:
            continue  # it goes on where it was, since its lease was released
        is_fired = transition.status is Status.RUNNING and (
            transition.cause is Cause.ALARM
            or (
                transition.cause in _TRIED_AGAIN
                and before is not None
                and before.transition.status is Status.DELAYED
            )
        )
        if is_fired and not any(
            alarm.at <= state.committed_at + history.clocks_apart_ms and alarm.to == transition.to
            for alarm in _set(before)
        ):
            yield f"revision {state.rev} of {state.id!r} came to {transition.to!r} too early"


def attempts(history: History) -> Iterator[str]:
    """No state is tried more often than its policy says; every retry raises the attempt by one."""
    for state in history.log:
        policy, transition = history.policy_of(state), state.transition
        before = history.before.get(state.rev)
        where = f"revision {state.rev} of {state.id!r}"
        if policy.is_used_up(transition.attempt):
            yield f"{where} is attempt {transition.attempt + 1} of {policy.max_attempts}"
        previous = before.transition if before is not None else None
        # the first retry may follow on anything: moves in memory begin to count anew
        if transition.attempt > 1 and (
            previous is None or transition.attempt - previous.attempt not in {0, 1}
        ):
            yield f"{where}: attempt {transition.attempt} follows on {previous}"


def giving_up(history: History) -> Iterator[str]:
    """What is given up goes on at the flow that its policy has for it, or is FAILED; by the kernel
    alone when all attempts are used up. What is FAILED was given up, and waits for nothing."""
    for state in history.log:
        policy, transition = history.policy_of(state), state.transition
        before = history.before.get(state.rev)
        if before is not None and before.transition == transition:
            continue  # it was stored once more as it was
        where = f"revision {state.rev} of {state.id!r}"
        if transition.status is Status.FAILED and (
            transition.cause is not Cause.GAVE_UP or transition.alarm is not None
        ):
            yield f"{where} failed, but was not given up, or has an alarm"
        if transition.cause is not Cause.GAVE_UP:
            continue
        goes_on = transition.status is Status.RUNNING and transition.attempt == 0
        is_there = transition.to == policy.on_give_up
        if not (goes_on and is_there) and (
            transition.status is not Status.FAILED or (policy.on_give_up and not is_there)
        ):
            yield f"{where} was given up and is {transition.status.name} at {transition.to!r}"
        used = before.transition.attempt + 1 if before is not None else 1
        if transition.reason.startswith("gave up after") and not policy.is_used_up(used):
            yield f"{where} was given up after {used} attempts of {policy.max_attempts}"


def deaths(history: History) -> Iterator[str]:
    """What is LOST was RUNNING, and is one attempt further: at once after the first attempt, later
    after a backoff. It was taken, and its lease had run out, or was ended."""
    for state in history.log:
        transition = state.transition
        before = history.before.get(state.rev)
        if transition.cause is not Cause.LOST:
            continue
        where = f"revision {state.rev} of {state.id!r}"
        if before is None:
            yield f"{where} was lost before there was any"
        elif before.transition.status is Status.RUNNING and before.transition != transition:
            status = Status.RUNNING if transition.attempt == 1 else Status.DELAYED
            is_next = transition.attempt == before.transition.attempt + 1
            if not is_next or transition.status is not status:
                yield f"{where} follows as a death on {before.transition}"
            if history.changes and not _ran_out(history, before, state.committed_at):
                yield f"{where} was lost, but no lease of revision {before.rev} had run out"
        elif before.transition.status is not Status.RUNNING and (
            before.transition.cause is not Cause.LOST
            or before.transition.attempt != transition.attempt
        ):
            yield f"{where} was lost, but {before.transition.status.name} before"


def _ran_out(history: History, state: State, now: int) -> bool:
    """Whether a version was taken, and that lease ran out, by itself or because it was ended,
    before it was renewed or given back."""
    changes = [change for _, change in history.changes_of.get((state.id, state.rev), [])]
    ends = [*[change.at for change in changes[1:]], now]
    return any(
        change.until is not None and change.until <= end + history.clocks_apart_ms
        for change, end in zip(changes, ends, strict=True)
    )


def claims(history: History) -> Iterator[str]:
    """What is taken is given to nobody else, until whoever has it gives it back; and only what is
    current is given, renewed or given back."""
    current: dict[str, PlaceChange] = {}
    for new in history.changes:
        old, current[new.id] = current.get(new.id), new
        where = f"revision {new.rev} of {new.id!r}"
        if new.change is Change.COMMITTED:
            continue
        if old is None or old.rev != new.rev:
            yield f"{where} was {new.change.value} when it was not current"
        elif new.change is Change.CLAIMED and old.owner and _holder(old) != _holder(new):
            yield f"{where} was given to {new.owner}, but {old.owner} had it"
        elif new.change is Change.RENEWED and _holder(old) != _holder(new):
            yield f"{where} was renewed for {new.owner}, which did not have it"


def calls(history: History) -> Iterator[str]:
    """A flow is called for what its engine has, or for what has moved on without its knowing; and
    nothing is given back while its flow still runs."""
    for call in history.calls:
        changes = history.changes_of.get((call.id, call.rev), [])
        where = f"the flow of revision {call.rev} of {call.id!r} was called by {call.owner}"
        before = [change for number, change in changes if number < call.began]
        if before and before[-1].owner != call.owner:
            yield f"{where}, but {before[-1].owner or 'nobody'} had it"
        for number, change in changes:
            if change.change is Change.RELEASED and call.began <= number < call.ended:
                yield f"{where}, and it was given back meanwhile"


def _holder(change: PlaceChange) -> tuple[str, str]:
    return change.owner, change.claim


def policies(history: History) -> Iterator[str]:
    """What an alarm or a death has made RUNNING goes on by the policy that stood beside the version
    before: that of the engine which committed it, never that of who fired it.

    Gives nothing if the history has no plans.
    """
    beside: dict[tuple[str, int, Transition], list[RetryPolicy | None]] = {}
    for write in (write for plan in history.plans for write in plan.writes):
        of = write.state
        beside.setdefault((of.id, of.rev, of.transition), []).append(write.policy)

    def found(state: State) -> list[RetryPolicy | None]:
        before = history.before.get(state.rev)
        return beside.get((state.id, before.rev if before else 0, state.transition), [])

    for state in history.log:
        transition = state.transition
        before = history.before.get(state.rev)
        is_fired = transition.status is Status.RUNNING and transition.cause in _FIRED
        if before is not None and is_fired and before.transition != transition:
            expected = found(before)
            for policy in found(state):
                if policy not in expected:
                    yield f"revision {state.rev} of {state.id!r} goes on by {policy}"


def ends(history: History) -> Iterator[str]:
    """No version of a state comes after one that has ended."""
    for rev, before in history.before.items():
        if before.transition.status is Status.ENDED:
            yield f"revision {rev} of {before.id!r} comes after its end"


LAWS: Mapping[str, Callable[[History], Iterator[str]]] = {
    law.__name__: law
    for law in (
        *(
            order,
            writers,
            promises,
            watched,
            rest,
            alarms,
            attempts,
            giving_up,
            deaths,
            claims,
            calls,
            policies,
            ends,
        ),
    )
}
"""name -> the function that finds where that law is broken"""


def _set(state: State | None) -> Iterator[Alarm]:
    alarm = state.transition.alarm if state is not None else None
    while alarm is not None:
        yield alarm
        alarm = alarm.then
