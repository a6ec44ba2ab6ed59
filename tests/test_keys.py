"""What makes two commits under one id of their caller the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowstate import (
    Commit,
    Data,
    DataRef,
    Delay,
    End,
    Engine,
    Flows,
    InvalidValueError,
    Pause,
    Require,
    Resume,
    Retry,
    RetryPolicy,
    Save,
    State,
    Status,
    Transit,
    Transition,
)
from flowstate.data import JSON
from flowstate.keys import is_same, key_of

from .helpers import to_datetime

PAUSED = Transition("work", Status.PAUSED)
STORED = State("a", rev=7, transition=PAUSED, committed_at=1)
LATER = State("a", labels={"paid": "yes"}, rev=9, transition=Transition("x", Status.RUNNING))


def are_same(one: Commit, other: Commit) -> bool:
    return is_same(key_of(one, "k").digest, key_of(other, "k").digest)


flows = Flows()


@flows.flow("x")
async def charge(state: State, engine: Engine) -> Commit:
    return Commit(End(state))


def program() -> Commit:
    """What a program makes each time that it is run."""
    order = State("a").attach("order", {"pears": 2}).with_labels(kind="order", to="me")
    return Commit(
        Transit(order.stack("before", State("b")), "charge", {"by": "web"}, timeout=30),
        Delay(State("c"), to="remind", after=timedelta(days=1)),
        Require(State("d")),
    )


def test_the_same_program_run_again_has_the_same_digest() -> None:
    assert key_of(program(), "k") == key_of(program(), "k")


def test_the_digest_is_the_same_in_every_process() -> None:
    """A program may be run again years later, by newer code."""
    commands, content = key_of(program(), "k").digest.split("/")
    assert commands == "e3fd019586792d3daa21494d4fd3439e7fefeeb894e0a19a705913f8b4edfa18"
    assert content == "75048edb7c1cd5d58943579ebca380bb63b124c4ed5e8d314a37704187311ed5"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Transit(State("a"), "x", timeout=1), Transit(State("a"), "x", timeout=2)),
        (Transit(State("a"), "x", timeout=1), Transit(State("a"), "x", timeout=to_datetime(5_000))),
        (Delay(State("a"), "x", after=1), Delay(State("a"), "x", at=datetime.now(UTC))),
        (Retry(STORED, 1), Retry(STORED, 2)),
        (Resume(STORED), Resume(LATER)),
        (Save(STORED.with_labels(a="b")), Save(LATER)),
        (Transit(State("a"), "x"), Transit(State("a"), charge)),
        (
            Transit(State("a", labels={"k": "1", "l": "2"}), "x"),
            Transit(State("a", labels={"l": "2", "k": "1"}), "x"),
        ),
        # what is stored may hold something else by now
        (Transit(State("a", labels={"kind": "order"}), "x"), Transit(LATER, "x")),
    ],
)
def test_times_revisions_and_what_was_read_do_not_count(one: Any, other: Any) -> None:
    assert are_same(Commit(one), Commit(other))
    assert are_same(Commit(other), Commit(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Transit(State("a"), "x"), Transit(State("b"), "x")),
        (Transit(State("a"), "x"), Transit(State("a"), "y")),
        (Transit(State("a"), "x"), Pause(State("a"), "x")),
        (Transit(State("a"), "x"), Transit(State("a"), "x", {"by": "me"})),
        (
            Transit(State("a"), "x", timeout=1, on_timeout="y"),
            Transit(State("a"), "x", timeout=1, on_timeout="z"),
        ),
        (End(STORED, "paid"), End(LATER, "sent")),
        (Transit(State("a"), "x"), Transit(State("a", labels={"k": "v"}), "x")),
        (Transit(State("a"), "x"), Transit(State("a", annotations={"k": "v"}), "x")),
        (Transit(State("a"), "x"), Transit(State("a", retry=RetryPolicy()), "x")),
        (
            Transit(State("a").attach("order", b"pears"), "x"),
            Transit(State("a").attach("order", b"figs"), "x"),
        ),
        (
            Transit(State("a", data={"order": Data(b"1")}), "x"),
            Transit(State("a", data={"order": Data(b"1", JSON)}), "x"),
        ),
        (
            Transit(State("a").stack("b", State("b")), "x"),
            Transit(State("a").stack("b", State("b", labels={"k": "v"})), "x"),
        ),
    ],
)
def test_other_commands_states_and_contents_are_told(one: Any, other: Any) -> None:
    assert not are_same(Commit(one), Commit(other))


def test_the_order_of_the_commands_counts() -> None:
    """The revisions of a commit are in that order."""
    a, b = Transit(State("a"), "x"), Transit(State("b"), "x")
    assert not are_same(Commit(a, b), Commit(b, a))
    assert not are_same(Commit(a, b), Commit(a))


def test_a_payload_counts_by_its_checksum_wherever_it_is() -> None:
    data = Data(b"pears")
    stored = DataRef(3, data.size, data.content_type, data.checksum)
    one = Commit(Transit(State("a", data={"order": data}), "x"))
    assert are_same(one, Commit(Transit(State("a", data={"order": stored}), "x")))


@pytest.mark.parametrize("id", ["", "x" * 513, "a\0b", "\ud800", 7, None])
def test_an_id_is_text_that_every_store_keeps(id: Any) -> None:
    with pytest.raises(InvalidValueError, match="commit_id"):
        key_of(program(), id)
