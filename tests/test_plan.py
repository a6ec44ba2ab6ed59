"""What a commit writes: which versions, due when, with which payloads; and its conflicts."""

from __future__ import annotations

from datetime import timedelta

from flowstate import (
    Commit,
    Data,
    DataRef,
    Delay,
    End,
    Pause,
    Plan,
    Require,
    RetryPolicy,
    State,
    Status,
    Transit,
    Transition,
)
from flowstate.leases import Place
from flowstate.plan import Write
from flowstate.transitions import plan

from .helpers import NOW

POLICY = RetryPolicy(lease=30)
HERE = State("a", rev=3, transition=Transition(to="here", status=Status.RUNNING))


# ---------------------------------------------------------------- places and alarms


def test_what_runs_is_in_line_at_once_and_its_alarm_and_lease_are_beside_it() -> None:
    for timeout, alarm in ((None, None), (31, NOW + 31_000), (29, NOW + 29_000)):
        command = Transit(State("a"), "work", timeout=timeout)
        (write,) = plan(Commit(command), commit_id="1", now=NOW, policy=POLICY).writes
        assert (POLICY, 30_000, Place(NOW), alarm) == (
            write.policy,
            write.lease,
            write.place,
            write.alarm,
        )


def test_where_each_state_that_runs_stands_is_asked_once() -> None:
    asked: list[tuple[str, int, int]] = []

    def place_of(state: State, now: int, lease: int) -> Place:
        asked.append((state.id, now, lease))
        return Place(None, "me", "", now + lease)

    own = State("b", retry=RetryPolicy(enabled=False))
    commit = Commit(Transit(State("a"), "x"), Pause(State("p"), "x"), Transit(own, "x"))
    first, paused, last = plan(
        commit, commit_id="1", now=NOW, policy=POLICY, place_of=place_of
    ).writes
    assert [("a", NOW, 30_000), ("b", NOW, 0)] == asked
    assert (None, None) == (paused.place, last.policy)
    assert Place(None, "me", "", NOW + 30_000) == first.place


def test_what_rests_has_its_alarm_if_it_has_one() -> None:
    for command, alarm in (
        (Pause(State("a"), "work"), None),
        (Pause(State("a"), "work", timeout=5, on_timeout="late"), NOW + 5_000),
        (Delay(State("a"), "work", after=timedelta(minutes=1)), NOW + 60_000),
        (Delay(State("a"), "work", at=NOW - 1), NOW - 1),
        (End(State("a")), None),
    ):
        (write,) = plan(Commit(command), commit_id="1", now=NOW, policy=POLICY).writes
        assert (alarm, alarm and POLICY, None) == (write.alarm, write.policy, write.place)


# ---------------------------------------------------------------- what is written


def test_a_plan_writes_in_the_order_of_the_commands_and_requires_the_rest() -> None:
    other, third = State("b", rev=8), State("c", rev=9)
    planned = plan(
        Commit(End(HERE), Require(other), Transit(third, "x")),
        commit_id="c-1",
        now=NOW,
        policy=POLICY,
    )
    assert planned.commit_id == "c-1"
    assert [write.state.id for write in planned.writes] == ["a", "c"]
    assert planned.requires == (("b", 8),)


def test_pending_data_becomes_a_payload_and_a_reference_to_this_commit() -> None:
    pending = Data(b"content", "text/plain")
    old = DataRef(2, 1, "text/plain", "0" * 64)
    state = HERE.attach("new", pending).attach("old", old)
    planned = plan(Commit(End(state)), commit_id="c", now=NOW, policy=POLICY)
    ref = DataRef(0, 7, "text/plain", pending.checksum)
    assert planned.payloads == {pending.checksum: b"content"}
    assert planned.writes[0].state.data == {"new": ref, "old": old}


def test_pending_data_of_a_stacked_state_is_stored_too() -> None:
    pending = Data(b"content")
    state = HERE.stack("caller", State("caller").attach("new", pending))
    planned = plan(Commit(End(state)), commit_id="c", now=NOW, policy=POLICY)
    assert planned.payloads == {pending.checksum: b"content"}
    stacked = planned.writes[0].state.stacked["caller"]
    assert stacked.data == {"new": DataRef(0, 7, pending.content_type, pending.checksum)}


def test_the_same_content_twice_is_one_payload() -> None:
    pending = Data(b"content")
    commit = Commit(End(HERE.attach("x", pending)), End(State("b").attach("y", pending)))
    planned = plan(commit, commit_id="c", now=NOW, policy=POLICY)
    assert planned.payloads == {pending.checksum: b"content"}


# ---------------------------------------------------------------- what it conflicts with


def expecting(writes: dict[str, int], requires: dict[str, int]) -> Plan:
    """A plan that holds if these are the latest revisions."""
    written = tuple(Write(State(id, rev=rev)) for id, rev in writes.items())
    return Plan("c", written, tuple(requires.items()))


def test_a_plan_holds_if_all_is_as_it_expects() -> None:
    """Revision 0 is that of a state that is not there."""
    stored = {"a": 3, "b": 5}
    holds = expecting({"a": 3, "new": 0}, {"b": 5, "nobody": 0})
    assert {} == holds.conflicts(lambda name: stored.get(name, 0))


def test_every_expectation_that_does_not_hold_is_a_conflict_and_no_other() -> None:
    """Written or required; too old, too new, gone or already there: with what was expected and
    what was found."""
    stored = {"old": 7, "new": 2, "there": 4, "fine": 1, "required": 9, "barred": 6}
    refused = expecting(
        {"old": 3, "new": 8, "gone": 5, "there": 0, "fine": 1},
        {"required": 8, "lost": 2, "barred": 0, "nobody": 0},
    )
    assert {
        "old": (3, 7),
        "new": (8, 2),
        "gone": (5, 0),
        "there": (0, 4),
        "required": (8, 9),
        "lost": (2, 0),
        "barred": (0, 6),
    } == refused.conflicts(lambda name: stored.get(name, 0))
