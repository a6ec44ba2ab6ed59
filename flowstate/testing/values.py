"""Strategies of Hypothesis for values: whatever a commit takes, odd texts included.

::

    from hypothesis import given
    from flowstate.testing import values

    @given(values.states())
    def test_what_i_show_of_a_state(state): ...

What is drawn is small, so that it is drawn fast and can be read. Where a strategy takes another
one, it draws that part from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from hypothesis import strategies as st

from ..checks import MAX_WHOLE
from ..clock import MAX_DURATION_S, MAX_INSTANT_MS
from ..data import Data, DataRef, checksum
from ..state import Alarm, Cause, RetryPolicy, State, Status, Transition

ODD_TEXTS = (
    'it\'s "100%" \\ \\u0041 {} %s $1 ?',
    'null {"a": [1]}',
    "\x01\x1f\x7f\x85\u2028 \t\r\n",
    "😀",
    "שלום \u202eabc",
    "é e\u0301 ☃",
    "\uffff\U0010ffff\ufeff",
)
"""Texts that somebody's store may not give back: they come more often than by chance."""


STACKED = 2
"""How deep states are drawn in each other."""
FEW = 3
"""Fields that are drawn at a time, of those that have a default."""

T = TypeVar("T")


def texts(max_size: int = 8) -> st.SearchStrategy[str]:
    """Any text that a value takes: any Unicode but the NUL character."""
    characters = st.characters(exclude_characters="\0", codec="utf-8")
    return st.text(characters, max_size=max_size) | st.sampled_from(ODD_TEXTS)


def names(max_size: int = 8) -> st.SearchStrategy[str]:
    """Texts that are not empty: ids, flows, keys, content types."""
    return texts(max_size).filter(bool)


def labels() -> st.SearchStrategy[dict[str, str]]:
    """Labels, or annotations: text by name."""
    return st.dictionaries(names(), texts(), max_size=3)


def instants() -> st.SearchStrategy[int]:
    """Milliseconds since the epoch."""
    return st.integers(0, MAX_INSTANT_MS)


def durations(min_s: float = 0) -> st.SearchStrategy[float]:
    """Seconds, in whole milliseconds."""
    return st.integers(round(min_s * 1000), MAX_DURATION_S * 1000).map(lambda ms: ms / 1000)


def whole(low: int = 0) -> st.SearchStrategy[int]:
    """Revisions, sizes, attempts: whole numbers up to 2**63 - 1."""
    return st.integers(low, 9) | st.integers(low, MAX_WHOLE)


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Retry policies."""
    backoff, max_backoff = sorted(draw(st.tuples(durations(), durations())))
    return RetryPolicy(
        lease=draw(durations(1)),
        max_attempts=draw(st.none() | whole(1)),
        backoff=backoff,
        max_backoff=max_backoff,
        enabled=draw(st.booleans()),
        on_give_up=draw(texts()),
    )


def alarms() -> st.SearchStrategy[Alarm]:
    """Alarms, with another one behind some of them."""
    last = st.builds(Alarm, instants(), names())
    return st.builds(Alarm, instants(), names(), st.none() | last)


def transitions() -> st.SearchStrategy[Transition]:
    """Transitions of every status and cause."""
    always = {"status": st.sampled_from(Status)}
    perhaps = {
        "to": texts(),
        "cause": st.sampled_from(Cause),
        "attempt": whole(),
        "reason": texts(),
        "traceback": texts(),
        "alarm": alarms(),
        "annotations": labels(),
    }
    return _few(Transition, always, perhaps)


def pending() -> st.SearchStrategy[Data]:
    """Payloads that no commit has stored yet; small ones, of which some are the same. Some were
    stored before, where they are not any more."""
    content = st.sampled_from([b"", b"pears", b"\0\xff"]) | st.binary(max_size=8)
    return st.builds(_pending, content, names(), st.none() | whole())


def _pending(content: bytes, content_type: str, rev: int | None) -> Data:
    if rev is None:
        return Data(content, content_type)
    ref = DataRef(rev, len(content), content_type, checksum(content))
    return Data(content, content_type, ref)


def references() -> st.SearchStrategy[DataRef]:
    """References to payloads that are not there."""
    checksums = st.binary(min_size=32, max_size=32).map(bytes.hex)
    return st.builds(DataRef, whole(), whole(), names(), checksums)


def payloads() -> st.SearchStrategy[Data | DataRef]:
    """Payloads, and references to what is not there."""
    return pending() | references()


def states(
    ids: st.SearchStrategy[str] | None = None,
    data: st.SearchStrategy[Data | DataRef] | st.SearchStrategy[Data] | None = None,
) -> st.SearchStrategy[State]:
    """New states, which a commit takes as they are; what is stacked inside may be any version.

    *ids* are those of the states themselves, *data* the payloads of all of them.
    """
    perhaps: dict[str, st.SearchStrategy[Any]] = {
        "labels": labels(),
        "annotations": labels(),
        "data": st.dictionaries(names(), payloads() if data is None else data, max_size=2),
        "transition": transitions(),
        "retry": policies(),
    }
    committed = {"rev": whole(), "committed_at": whole()}
    for _ in range(STACKED):
        inner = _few(State, {"id": names()}, perhaps | committed)
        perhaps["stacked"] = st.dictionaries(names(), inner, max_size=1)
    return _few(State, {"id": names() if ids is None else ids}, perhaps)


@st.composite
def _few(
    draw: st.DrawFn,
    kind: type[T],
    always: Mapping[str, st.SearchStrategy[Any]],
    perhaps: Mapping[str, st.SearchStrategy[Any]],
) -> T:
    """A value with some fields, and a few of others: all of them at a time take long to draw."""
    chosen = draw(st.sets(st.sampled_from(sorted(perhaps)), max_size=FEW))
    given = {name: draw(field) for name, field in always.items()}
    given |= {name: draw(perhaps[name]) for name in sorted(chosen)}
    return kind(**given)
