"""Whether a store kept its promises: what its clients noted, beside its log."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from flowstate import Cause, State, Status
from flowstate.testing.history import History, Seen, check

from .client import ACCOUNT, ACCOUNTS, BALANCE, JOBS, POLICY, QUERIES, STEPS
from .notes import (
    AnyNote,
    Crashed,
    Given,
    Missed,
    Refused,
    Releasing,
    Saw,
    Told,
    Tried,
    Trouble,
    Watching,
)

WRONG_CLOCKS_MS = 7_300_000
"""By how much two clocks may be apart that are wrong by an hour each."""


class Evidence(Struct, frozen=True, dict=True):
    """What is known after an attack."""

    log: tuple[State, ...]
    """Every version that was stored, as it was seen when it was new."""
    left: tuple[State, ...]
    """Every version that is stored in the end, beside compaction."""
    notes: Mapping[str, Sequence[AnyNote]]
    """process -> its notes, in order"""

    @cached_property
    def every(self) -> list[AnyNote]:
        """All notes, in the order in which they were written."""
        return sorted((note for each in self.notes.values() for note in each), key=_at)

    @cached_property
    def commits(self) -> Mapping[str, list[State]]:
        """Commit id -> the versions that were written under it: what else moves a state leaves the
        id that is noted in it."""
        found: dict[str, list[State]] = defaultdict(list)
        noted: dict[str, str] = {}
        for state in self.log:
            commit_id = state.annotations.get("commit", "")
            is_new = noted.get(state.id) != commit_id
            if commit_id and (is_new or state.id.startswith(ACCOUNT)):
                found[commit_id].append(state)
            noted[state.id] = commit_id
        return found

    @cached_property
    def history(self) -> History:
        """For the laws of the kernel."""
        seen = [each for name, own in self.notes.items() for each in _sessions(name, own)]
        return History(
            log=self.log, seen=tuple(seen), policy=POLICY, clocks_apart_ms=WRONG_CLOCKS_MS
        )


def judge(evidence: Evidence) -> list[str]:
    """Where a promise is broken, in words; empty if nowhere."""
    found = [f"{law.__name__}: {problem}" for law in LAWS for problem in law(evidence)]
    return [*found, *check(evidence.history)]


# ---------------------------------------------------------------- the promises


def acknowledged(evidence: Evidence) -> Iterator[str]:
    """What was acknowledged is stored as it was told; and told again, it is the same, but for what
    compaction has removed: then it is what the state was later."""
    stored = {state.rev: state for state in evidence.log}
    left = {state.rev for state in evidence.left}
    moved = {note.commit_id: note.moved for note in evidence.every if isinstance(note, Tried)}
    first: dict[str, tuple[int, ...]] = {}
    for note in evidence.every:
        if not isinstance(note, Told):
            continue
        earlier = first.setdefault(note.commit_id, note.revs)
        if any(
            rev < before or (rev != before and before in left)
            for before, rev in zip(earlier, note.revs, strict=True)
        ):
            yield f"{note.commit_id} was told {earlier}, and later {note.revs}"
        ids = [stored[rev].id if rev in stored else "nothing" for rev in note.revs]
        if ids != [id for id, _ in moved[note.commit_id]]:
            yield f"{note.commit_id} was told {note.revs}, where there is {ids}"


def once(evidence: Evidence) -> Iterator[str]:
    """A commit is stored once and whole, or not at all; not at all if it was refused."""
    moved = {note.commit_id: note.moved for note in evidence.every if isinstance(note, Tried)}
    tried = Counter(note.commit_id for note in evidence.every if isinstance(note, Tried))
    refused = Counter(note.commit_id for note in evidence.every if isinstance(note, Refused))
    for commit_id, versions in evidence.commits.items():
        if commit_id not in moved:
            continue
        first = versions[0].rev
        revs = [state.rev for state in versions]
        if revs != list(range(first, first + len(moved[commit_id]))):
            yield f"{commit_id} wrote {len(moved[commit_id])} versions, and there are {revs}"
        if tried[commit_id] == refused[commit_id]:  # each time, and never left in doubt
            yield f"{commit_id} was refused, and is stored at revision {first}"


def rests_on(evidence: Evidence) -> Iterator[str]:
    """Whatever a commit rests on was current when it was stored."""
    tried = {note.commit_id: note for note in evidence.every if isinstance(note, Tried)}
    firsts = {
        versions[0].rev: tried[commit_id]
        for commit_id, versions in evidence.commits.items()
        if commit_id in tried
    }
    latest: dict[str, int] = {}
    for state in evidence.log:
        for id, rev in ((note := firsts.get(state.rev)) and (*note.moved, *note.required)) or ():
            if latest.get(id, 0) != rev:
                yield (
                    f"{note.commit_id if note else ''} rests on revision {rev} of {id!r}, "
                    f"which was at {latest.get(id, 0)}"
                )
        latest[state.id] = state.rev


def conservation(evidence: Evidence) -> Iterator[str]:
    """After each commit there is as much money as in the beginning."""
    balances: dict[str, int] = {}
    accounts = [state for state in evidence.log if state.id.startswith(ACCOUNT)]
    for place, state in enumerate(accounts):
        balances[state.id] = int(state.annotations["balance"])
        following = accounts[place + 1 : place + 2]
        is_last = [each.annotations["commit"] for each in following] != [
            state.annotations["commit"]
        ]
        if is_last and sum(balances.values()) != ACCOUNTS * BALANCE:
            yield f"after revision {state.rev} there is {sum(balances.values())} in all"


def counted(evidence: Evidence) -> Iterator[str]:
    """Each job counts once, on one counter, which goes up by one; and then it ends."""
    counts: dict[str, int] = defaultdict(int)
    by: dict[str, int] = defaultdict(int)
    for state in evidence.log:
        if not _is_counter(state) or state.annotations["commit"] == "begin":
            continue
        by[state.annotations["commit"]] += 1
        counts[state.id] += 1
        if state.annotations["count"] != str(counts[state.id]):
            yield f"revision {state.rev} of {state.id} is at {state.annotations['count']}"
    for state in {state.id: state for state in evidence.log}.values():
        if not _is_job(state):
            continue
        if state.transition.status is not Status.ENDED:
            yield f"{state.id} is {state.transition.status.name} in the end"
        if state.id.startswith("count/") and by.pop(state.id, 0) != 1:
            yield f"{state.id} was not counted once"
    yield from (f"{id} was counted, and is not there" for id in by)


def steps(evidence: Evidence) -> Iterator[str]:
    """A job is moved on by its own flows alone, each of which comes to its end once."""
    found: dict[str, list[str]] = defaultdict(list)
    for state in evidence.log:
        transition = state.transition
        if not state.id.startswith("count/") or transition.cause is not Cause.COMMAND:
            continue
        found[state.id].append(transition.to or transition.status.name)
    # the first move and the alarm between are the kernel's or in memory
    expected = [*list(STEPS)[:1], STEPS["count"], Status.ENDED.name]
    for id, names in found.items():
        if [name for name in names if name != "finish"] != expected:
            yield f"{id} went {names}"


def exclusive(evidence: Evidence) -> Iterator[str]:
    """What was given to a claim is given to no other one, before it is given back; but a store that
    crashes may forget it."""
    held: dict[tuple[str, int], str] = {}
    crashes = False
    for note in evidence.every:
        if isinstance(note, Releasing):
            held.pop(note.version, None)
        elif isinstance(note, Crashed):
            held.clear()
            crashes = not note.is_over
        elif isinstance(note, Given) and not crashes:
            for version in note.versions:
                if held.setdefault(version, note.claim) != note.claim:
                    yield f"{version} was given to {held[version]} and to {note.claim}"


def remains(evidence: Evidence) -> Iterator[str]:
    """What is stored in the end is what was seen, and what is current is among it."""
    seen = {state.rev: state for state in evidence.log}
    for state in evidence.left:
        if seen.get(state.rev) != state:
            yield f"revision {state.rev} of {state.id!r} is not what was seen"
    current = {state.id: state.rev for state in evidence.log}
    left = {state.rev for state in evidence.left}
    yield from (f"{id!r} is gone" for id, rev in current.items() if rev not in left)


def untroubled(evidence: Evidence) -> Iterator[str]:
    """Nobody saw an error that is not the store's."""
    yield from (note.what for note in evidence.every if isinstance(note, Trouble))


LAWS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    acknowledged,
    once,
    rests_on,
    conservation,
    counted,
    steps,
    exclusive,
    remains,
    untroubled,
)


def _sessions(process: str, own: Sequence[AnyNote]) -> Iterator[Seen]:
    """What a process' watchers saw, from each beginning to the last version that it was given."""
    current: dict[str, Seen] = {}
    for note in own:
        if isinstance(note, Watching | Missed) and note.watcher in current:
            yield current.pop(note.watcher)
        if isinstance(note, Watching):
            query, after = QUERIES[note.query], note.after
            current[note.watcher] = Seen(f"{process}: {note.watcher}", query, after, after, ())
        elif isinstance(note, Saw):
            seen = current[note.watcher]
            current[note.watcher] = replace(seen, upto=note.rev, revs=(*seen.revs, note.rev))
    yield from current.values()


def _is_counter(state: State) -> bool:
    return state.id.startswith("counter/")


def _is_job(state: State) -> bool:
    return state.id.startswith(JOBS)


def _at(note: AnyNote) -> int:
    return note.at
