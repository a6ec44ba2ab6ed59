"""A faulty cluster keeps every law, a seed replays exactly, and the checker sees every breach."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from flowstate import Alarm, Cause, Plan, Query, RetryPolicy, State, Status, Transition
from flowstate.plan import Write
from flowstate.testing.history import Acknowledged, History, Seen, check
from flowstate.testing.places import Call, Change, PlaceChange
from flowstate.testing.scenario import COUNTER
from flowstate.testing.simulation import Outcome, simulate

SEEDS = 200
CHUNK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_seed_breaks_a_law(first: int) -> None:
    """Killed, frozen, cut off or lied to: nothing is lost, doubled, early or left behind."""
    for seed in range(first, first + CHUNK):
        problems = simulate(seed).problems
        assert [] == problems, f"python -m flowstate.testing.simulation --seed {seed}"


@pytest.mark.parametrize("seed", [1, 7, 42])
def test_a_seed_replays_exactly(seed: int) -> None:
    """The same versions, the same plans, the same faults, at the same times."""
    first, again = simulate(seed), simulate(seed)
    assert first.history == again.history
    assert first.story == again.story


def test_seeds_differ() -> None:
    """Otherwise two hundred of them would prove no more than one."""
    assert 20 == len({simulate(seed).story for seed in range(20)})


def test_the_faults_happen() -> None:
    """A simulation in which nothing goes wrong would prove nothing."""
    outcomes = [simulate(seed) for seed in range(30)]
    stories = "".join(outcome.story for outcome in outcomes)
    for fault in (
        "is killed",
        "by what it was given",
        "is frozen",
        "is told to leave",
        "is out",
        "3600000 ms off",
        "-3600000 ms off",
    ):
        assert fault in stories
    assert "trust ended" in stories
    log = [state.transition for outcome in outcomes for state in outcome.history.log]
    for cause in (Cause.ALARM, Cause.RETRY, Cause.LOST, Cause.GAVE_UP, Cause.RESUME):
        assert any(transition.cause is cause for transition in log)
    assert any(transition.reason.startswith("gave up after") for transition in log)
    given_up = {t.status for t in log if t.cause is Cause.GAVE_UP}
    assert {Status.FAILED, Status.RUNNING} == given_up
    assert any("SystemExit" in transition.reason for transition in log)
    assert any("lease ran out" in transition.reason for transition in log)


def test_work_is_shared() -> None:
    """Several engines run what each of the states needs; some is taken, given back, and taken
    again; and what was claimed by one that was lost is run by another."""
    histories = [simulate(seed).history for seed in range(10)]
    assert all(len({call.owner for call in history.calls}) > 2 for history in histories)
    changes = [change for history in histories for change in history.changes]
    assert set(Change) == {change.change for change in changes}
    claims = Counter((change.id, change.claim) for change in changes if change.claim)
    assert max(claims.values()) > 1


def test_races_are_lost() -> None:
    """Several flows at a time count in one state, and not each of their commits is stored."""
    histories = [simulate(seed).history for seed in range(10)]
    tried = sum(len({plan.commit_id for plan in _counting(history)}) for history in histories)
    stored = sum(state.id == COUNTER for history in histories for state in history.log)
    assert 0 < stored < tried


def _counting(history: History) -> list[Plan]:
    return [
        plan for plan in history.plans if any(write.state.id == COUNTER for write in plan.writes)
    ]


# ---------------------------------------------------------------- the checker bites


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """A real history, which is all right."""
    outcome = simulate(3)
    assert [] == outcome.problems
    return outcome


def laws(history: History) -> set[str]:
    return {problem.split(":")[0] for problem in check(history)}


def swapped(history: History, rev: int, state: State) -> History:
    log = tuple(state if old.rev == rev else old for old in history.log)
    return replace(history, log=log)


def test_it_finds_a_revision_that_comes_twice(outcome: Outcome) -> None:
    """Revisions strictly increase."""
    log = outcome.history.log
    assert "order" in laws(replace(outcome.history, log=(*log[:10], log[9], *log[10:])))


def test_it_finds_time_that_goes_back(outcome: Outcome) -> None:
    """Of two versions the later revision is not the earlier one in time."""
    last = outcome.history.log[-1]
    assert "order" in laws(swapped(outcome.history, last.rev, replace(last, committed_at=1)))


def test_it_finds_a_version_that_nobody_wrote(outcome: Outcome) -> None:
    """Each version comes from a plan."""
    state = outcome.history.log[20]
    odd = swapped(outcome.history, state.rev, state.with_labels(odd="yes"))
    assert "writers" in laws(odd)


def test_it_finds_a_broken_chain(outcome: Outcome) -> None:
    """A version whose plan expected another one before it."""
    history = outcome.history
    rev = next(iter(history.before))
    log = tuple(state for state in history.log if state.rev != history.before[rev].rev)
    assert "writers" in laws(replace(history, log=log))


def test_it_finds_half_a_commit() -> None:
    """All of a commit is stored, or nothing."""
    plan = Plan("c", tuple(Write(State(id)) for id in ("a", "b")))
    one, two = plan.stamp(1, 5)
    assert "writers" not in laws(History(log=(one, two), plans=(plan,)))
    assert "writers" in laws(History(log=(one,), plans=(plan,)))


def test_it_finds_a_requirement_that_did_not_hold() -> None:
    """What a commit rests on was the latest when it was stored."""
    base = Plan("base", (Write(State("base")),))
    plan = Plan("c", (Write(State("a")),), requires=(("base", 7),))
    log = (*base.stamp(1, 5), *plan.stamp(2, 5))
    assert any("rests on" in what for what in check(History(log=log, plans=(base, plan))))


def test_it_finds_a_lost_promise(outcome: Outcome) -> None:
    """What was acknowledged is stored, as it was acknowledged."""
    history = outcome.history
    told = history.acknowledged[-1].versions[0]
    lie = Acknowledged("lie", (replace(told, rev=len(history.log) + 1),))
    changed = replace(history, acknowledged=(*history.acknowledged, lie))
    assert "promises" in laws(changed)


def test_it_finds_two_winners(outcome: Outcome) -> None:
    """One version is acknowledged to one commit."""
    history = outcome.history
    other = replace(history.acknowledged[5], commit_id="another")
    assert "promises" in laws(replace(history, acknowledged=(*history.acknowledged, other)))


@pytest.mark.parametrize("fault", ["lost", "repeated", "out of order"])
def test_it_finds_a_watcher_that_saw_something_else(fault: str) -> None:
    """Gapless, without repetition, in order."""
    log = tuple(
        State(str(rev), rev=rev, committed_at=1, transition=Transition(status=Status.ENDED))
        for rev in range(1, 5)
    )
    right = Seen("w", Query(), 0, 4, (1, 2, 3, 4))
    assert set() == laws(History(log=log, seen=(right,)))
    revs = {"lost": (1, 2, 4), "repeated": (1, 2, 2, 3, 4), "out of order": (1, 3, 2, 4)}[fault]
    assert {"watched"} == laws(History(log=log, seen=(replace(right, revs=revs),)))


def _chain(*transitions: tuple[int, Transition]) -> History:
    log = tuple(
        State("a", rev=rev, committed_at=at, transition=transition)
        for rev, (at, transition) in enumerate(transitions, 1)
    )
    return History(log=log)


END = Transition(status=Status.ENDED)
DELAYED = Transition(to="f", status=Status.DELAYED, alarm=Alarm(100, "f"))
FIRED = Transition(to="f", status=Status.RUNNING, cause=Cause.ALARM)
BEGUN = Transition(to="f", status=Status.RUNNING)
UNDOING = Transition(to="undo", status=Status.RUNNING, cause=Cause.GAVE_UP)
FAILED = Transition(to="f", status=Status.FAILED, cause=Cause.GAVE_UP)


def test_it_finds_an_alarm_that_is_early() -> None:
    """At its time, not before; and only one that was set."""
    assert set() == laws(_chain((1, DELAYED), (100, FIRED), (101, END)))
    assert {"alarms"} == laws(_chain((1, DELAYED), (99, FIRED), (101, END)))
    assert {"alarms"} == laws(
        _chain((1, replace(FIRED, cause=Cause.COMMAND)), (99, FIRED), (900, END))
    )


def test_it_finds_a_retry_that_is_early() -> None:
    """A backoff is an alarm, too."""
    waits = replace(DELAYED, cause=Cause.RETRY, attempt=1)
    retried = replace(FIRED, cause=Cause.RETRY, attempt=1)
    assert set() == laws(
        _chain((1, DELAYED), (100, FIRED), (101, waits), (102, retried), (103, END))
    )
    assert {"alarms"} == laws(_chain((1, DELAYED), (2, waits), (3, retried), (103, END)))


@pytest.mark.parametrize("transition", [DELAYED, replace(FIRED, cause=Cause.COMMAND)])
def test_it_finds_what_does_not_rest(transition: Transition) -> None:
    """Nothing may be left that should still happen."""
    assert {"rest"} == laws(_chain((1, transition)))


def test_it_finds_an_attempt_too_many() -> None:
    """The maximum is the maximum."""
    retries = [
        (n, Transition(to="f", status=Status.RUNNING, cause=Cause.RETRY, attempt=n))
        for n in range(4)
    ]
    assert set() == laws(_chain(*retries[:3], (9, END)))
    assert {"attempts"} == laws(_chain(*retries, (9, END)))


def test_it_finds_an_attempt_that_was_not_counted() -> None:
    """Attempts go up by one."""
    retry = Transition(to="f", status=Status.RUNNING, cause=Cause.RETRY, attempt=2)
    assert {"attempts"} == laws(_chain((1, replace(retry, attempt=0)), (2, retry), (3, END)))


def test_it_finds_giving_up_too_soon() -> None:
    """All attempts are used before a state is given up."""
    begun = replace(FIRED, cause=Cause.RETRY, attempt=1)
    first = replace(begun, attempt=0)
    gave_up = replace(FAILED, attempt=1, reason="gave up after 2 attempts: ValueError: no")
    assert {"giving_up"} == laws(_chain((0, first), (1, begun), (2, gave_up)))
    last = replace(begun, attempt=2)
    assert set() == laws(
        _chain((0, first), (1, begun), (2, last), (3, replace(gave_up, attempt=2)))
    )


def test_it_finds_what_failed_and_was_not_given_up() -> None:
    """FAILED is what the kernel, or a ``Fail``, makes of a state; nothing else."""
    assert set() == laws(_chain((1, BEGUN), (2, FAILED)))
    for wrong in (replace(FAILED, cause=Cause.RETRY), replace(FAILED, alarm=Alarm(3, "f"))):
        assert "giving_up" in laws(_chain((1, BEGUN), (2, wrong)))


@pytest.mark.parametrize(
    ("given_up", "broken"),
    [
        (Transition(to="undo", status=Status.RUNNING, cause=Cause.GAVE_UP), set[str]()),
        (Transition(to="f", status=Status.RUNNING, cause=Cause.GAVE_UP), {"giving_up"}),
        (
            Transition(to="undo", status=Status.RUNNING, cause=Cause.GAVE_UP, attempt=1),
            {"giving_up"},
        ),
        (Transition(to="undo", status=Status.FAILED, cause=Cause.GAVE_UP), set[str]()),
        (Transition(to="f", status=Status.FAILED, cause=Cause.GAVE_UP), {"giving_up"}),
    ],
)
def test_it_finds_what_was_given_up_and_led_elsewhere(
    given_up: Transition, broken: set[str]
) -> None:
    """To the flow ``on_give_up``, or to FAILED at that flow itself."""
    history = _chain((1, BEGUN), (2, given_up), (3, END))
    assert broken == laws(replace(history, policy=RetryPolicy(on_give_up="undo")))


LOST = Transition(to="f", status=Status.RUNNING, cause=Cause.LOST, attempt=1)
COMMITTED = PlaceChange(Change.COMMITTED, "a", 1, at=1)
CLAIMED = PlaceChange(Change.CLAIMED, "a", 1, "x", "x-1", until=101, at=1)
RENEWED = replace(CLAIMED, change=Change.RENEWED, until=151, at=51)
RELEASED = PlaceChange(Change.RELEASED, "a", 1, at=60)
ENDED = replace(CLAIMED, change=Change.ENDED, until=55, at=55)
MOVED = replace(COMMITTED, rev=2, at=70)
OTHER = replace(CLAIMED, owner="y", claim="y-1", until=171, at=71)


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ((COMMITTED, CLAIMED, RENEWED, RELEASED, OTHER), set[str]()),
        ((COMMITTED, CLAIMED, CLAIMED), set[str]()),  # asked again
        ((COMMITTED, CLAIMED, OTHER), {"claims"}),
        ((COMMITTED, CLAIMED, replace(CLAIMED, claim="x-2")), {"claims"}),
        ((COMMITTED, RENEWED), {"claims"}),
        ((COMMITTED, CLAIMED, replace(RENEWED, owner="y")), {"claims"}),
        ((COMMITTED, MOVED, CLAIMED), {"claims"}),
        ((COMMITTED, CLAIMED, MOVED, RELEASED), {"claims"}),
    ],
)
def test_it_finds_what_was_given_to_two(changes: tuple[PlaceChange, ...], broken: set[str]) -> None:
    """Until whoever has it gives it back."""
    assert broken == laws(History(log=(), changes=changes))


@pytest.mark.parametrize(
    ("call", "broken"),
    [
        (Call("a", 1, "x", 2, 2), set[str]()),
        (Call("a", 1, "x", 2, 3), {"calls"}),  # given back while it ran
        (Call("a", 1, "x", 3, 3), {"calls"}),  # nobody has it any more
        (Call("a", 1, "x", 4, 4), {"calls"}),  # another has it
        (Call("a", 1, "y", 4, 9), set[str]()),
    ],
)
def test_it_finds_a_flow_that_was_called_for_what_others_have(call: Call, broken: set[str]) -> None:
    """Who runs it has it, for as long as it runs."""
    changes = (COMMITTED, CLAIMED, RELEASED, OTHER)
    assert broken == laws(History(log=(), changes=changes, calls=(call,)))


@pytest.mark.parametrize(
    ("changes", "at", "broken"),
    [
        ((COMMITTED, CLAIMED), 101, set[str]()),
        ((COMMITTED, CLAIMED), 100, {"deaths"}),  # too early
        ((COMMITTED, CLAIMED, RENEWED), 150, {"deaths"}),
        ((COMMITTED, CLAIMED, RENEWED), 151, set[str]()),
        ((COMMITTED, CLAIMED, replace(RENEWED, at=110)), 120, set[str]()),  # renewed too late
        ((COMMITTED,), 999, {"deaths"}),  # never taken
        ((COMMITTED, CLAIMED, RELEASED), 999, {"deaths"}),
        ((COMMITTED, CLAIMED, ENDED), 55, set[str]()),  # its owner was taken for dead
        ((COMMITTED, CLAIMED, ENDED), 54, {"deaths"}),
    ],
)
def test_it_finds_an_attempt_for_what_nobody_lost(
    changes: tuple[PlaceChange, ...], at: int, broken: set[str]
) -> None:
    """LOST is what was taken, and whose lease ran out or was ended; not what is ready, or was given
    back."""
    history = _chain((1, BEGUN), (at, LOST), (999, END))
    assert broken == laws(replace(history, changes=changes))


@pytest.mark.parametrize(
    ("before", "after", "broken"),
    [
        (Transition(to="f", status=Status.RUNNING), LOST, set[str]()),
        (Transition(to="f", status=Status.PAUSED), LOST, {"deaths"}),
        (
            Transition(to="f", status=Status.RUNNING),
            replace(LOST, status=Status.DELAYED),
            {"deaths"},
        ),
        (Transition(to="f", status=Status.RUNNING, attempt=1), LOST, {"deaths"}),
    ],
)
def test_it_finds_a_death_of_what_did_not_run(
    before: Transition, after: Transition, broken: set[str]
) -> None:
    """Only what runs can be lost, and every death counts."""
    assert broken == laws(_chain((1, before), (2, after), (3, END)))


@pytest.mark.parametrize("fired", [LOST, FIRED])
def test_it_finds_a_policy_that_leaked_in(fired: Transition) -> None:
    """Whoever fires a version never uses its own."""
    before = DELAYED if fired is FIRED else BEGUN
    mine, theirs = RetryPolicy(lease=10), RetryPolicy(lease=20)

    def history(policy: RetryPolicy) -> History:
        first = Plan("first", (Write(State("a", transition=before), mine),))
        (one,) = first.stamp(1, 1)
        second = Plan("second", (Write(replace(one, transition=fired), policy),))
        (two,) = second.stamp(2, 100)
        third = Plan("third", (Write(replace(two, transition=END)),))
        return History(log=(one, two, *third.stamp(3, 101)), plans=(first, second, third))

    assert set() == laws(history(mine))
    assert {"policies"} == laws(history(theirs))


def test_it_finds_life_after_the_end() -> None:
    """ENDED accepts nothing."""
    assert {"ends"} == laws(_chain((1, END), (2, END)))
