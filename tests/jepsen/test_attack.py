"""Stores survive an attack of some seconds (``make jepsen`` has longer ones); and whoever judges it
sees every breach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from msgspec.structs import replace

from flowstate import Cause, State

from .attack import Attack
from .judge import LAWS, Evidence, judge
from .notes import AnyNote, Given, Note, Refused, Releasing, Saw, Told, Tried, Trouble
from .stores import STORES

SECONDS, VERSIONS = 3.0, 500

N = TypeVar("N", bound=Note)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Of a short attack, in which every promise was kept."""
    folder = tmp_path_factory.mktemp("attack")
    with STORES["sqlite"](folder) as target:
        result = anyio.run(Attack(target, folder, SECONDS, VERSIONS, seed=1).run)
    assert result.problems == []
    assert result.evidence.commits
    return result.evidence


def test_postgres_survives_an_attack(tmp_path: Path) -> None:
    with STORES["postgres"](tmp_path) as target:
        result = anyio.run(Attack(target, tmp_path, SECONDS, VERSIONS, seed=1).run)
    assert result.problems == []


def test_sqlite_survives_an_attack(evidence: Evidence) -> None:
    assert judge(evidence) == []


# ---------------------------------------------------------------- the judge sees it


def _lost(evidence: Evidence) -> Evidence:
    told = _told(evidence)
    return replace(evidence, log=[state for state in evidence.log if state.rev not in told.revs])


def _told_otherwise(evidence: Evidence) -> Evidence:
    """Of something that is still there."""
    left = {state.rev for state in evidence.left}
    told = next(n for n in evidence.every if type(n) is Told and {*n.revs} <= left)
    return _with(evidence, replace(told, revs=[rev + 1 for rev in told.revs], at=told.at + 1))


def _refused_and_stored(evidence: Evidence) -> Evidence:
    told = _told(evidence)
    kept = _without(evidence, lambda note: getattr(note, "commit_id", "") == told.commit_id)
    tried = next(n for n in evidence.every if type(n) is Tried and n.commit_id == told.commit_id)
    return _with(kept, tried, Refused(commit_id=told.commit_id, why="busy"))


def _torn(evidence: Evidence) -> Evidence:
    rev = _told(evidence).revs[0]
    return replace(evidence, log=[state for state in evidence.log if state.rev != rev])


def _rests_on_something_else(evidence: Evidence) -> Evidence:
    commit_id = _told(evidence).commit_id
    (tried,) = (n for n in evidence.every if type(n) is Tried and n.commit_id == commit_id)
    kept = _without(evidence, lambda note: note == tried)
    ((id, rev),) = tried.required
    return _with(kept, replace(tried, required=((id, rev + 1),)))


def _counterfeit(evidence: Evidence) -> Evidence:
    return _edited(evidence, "account/", balance="1000000")


def _counted_twice(evidence: Evidence) -> Evidence:
    return _edited(evidence, "counter/", count="1000000")


def _step_lost(evidence: Evidence) -> Evidence:
    rev = next(
        state.rev
        for state in evidence.log
        if state.id.startswith("count/") and state.transition.cause is Cause.COMMAND
    )
    return replace(evidence, log=[state for state in evidence.log if state.rev != rev])


def _given_twice(evidence: Evidence) -> Evidence:
    released = {n.version for n in evidence.every if type(n) is Releasing}
    given = next(
        n
        for n in evidence.every
        if type(n) is Given and n.versions and not {*n.versions} & released
    )
    return _with(evidence, Given(claim="another", versions=given.versions))


def _another_in_the_end(evidence: Evidence) -> Evidence:
    first, *others = evidence.left
    return replace(evidence, left=[first.with_labels(was="changed"), *others])


def _gone(evidence: Evidence) -> Evidence:
    return replace(evidence, left=evidence.left[:-1])


def _traceback(evidence: Evidence) -> Evidence:
    return _with(evidence, Trouble(what="ZeroDivisionError"))


def _watched_with_a_gap(evidence: Evidence) -> Evidence:
    (name, saw) = next(
        (name, own[place])
        for name, own in evidence.notes.items()
        for place in range(1, len(own) - 1)
        if all(type(note) is Saw for note in own[place - 1 : place + 2])
    )
    own = [note for note in evidence.notes[name] if note != saw]
    return replace(evidence, notes={**evidence.notes, name: own})


def _told(evidence: Evidence) -> Told:
    """A transfer that was acknowledged."""
    transfers = {n.commit_id for n in evidence.every if type(n) is Tried and n.required}
    return next(n for n in evidence.every if type(n) is Told and n.commit_id in transfers)


def _without(evidence: Evidence, which: Callable[[AnyNote], bool]) -> Evidence:
    kept = {name: [note for note in own if not which(note)] for name, own in evidence.notes.items()}
    return replace(evidence, notes=kept)


def _with(evidence: Evidence, *added: AnyNote) -> Evidence:
    return replace(evidence, notes={**evidence.notes, "added": added})


def _edited(evidence: Evidence, prefix: str, **annotations: str) -> Evidence:
    def edit(state: State) -> State:
        return state.with_annotations(annotations) if state.rev == rev else state

    rev = max(state.rev for state in evidence.log if state.id.startswith(prefix))
    return replace(evidence, log=[edit(state) for state in evidence.log])


BREACHES: Mapping[Callable[[Evidence], Evidence], str] = {
    _lost: "acknowledged",
    _told_otherwise: "acknowledged",
    _refused_and_stored: "once",
    _torn: "once",
    _rests_on_something_else: "rests_on",
    _counterfeit: "conservation",
    _counted_twice: "counted",
    _step_lost: "steps",
    _given_twice: "exclusive",
    _another_in_the_end: "remains",
    _gone: "remains",
    _traceback: "untroubled",
    _watched_with_a_gap: "watched",
}
"""What makes a breach of an evidence without one -> the law that must find it"""


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.__name__.strip("_"))
def test_the_judge_sees(evidence: Evidence, breach: Callable[[Evidence], Evidence]) -> None:
    found = {problem.partition(":")[0] for problem in judge(breach(evidence))}
    assert BREACHES[breach] in found


def test_there_is_a_breach_of_each_law() -> None:
    assert {law.__name__ for law in LAWS} <= set(BREACHES.values())
