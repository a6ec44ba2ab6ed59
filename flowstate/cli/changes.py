"""The differences between a version of a state and the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from flowstate import Cause, State

from . import output

_NOTHING: Mapping[str, str] = {}


def changes(before: State | None, after: State) -> Iterator[Text]:
    """A line for each difference; for a first version (*before* is None), for all that it has."""
    transition = after.transition
    if transition.reason:
        yield Text(output.plain(transition.reason), style="italic")
    if transition.cause is not Cause.COMMAND or transition.attempt:
        attempt = f", attempt {transition.attempt}" if transition.attempt else ""
        yield Text(f"cause {transition.cause.value}{attempt}", style="yellow")
    if transition.alarm:
        yield Text(f"alarm {output.alarm(transition.alarm)}", style="yellow")
    for kind, of in _KINDS.items():
        yield from _differences(kind, of(before) if before else _NOTHING, of(after))
    # those of a transition belong to it alone, so there is no difference to show
    for key, value in transition.annotations.items():
        yield Text.assemble(("@ ", "blue"), (f"{output.plain(key)}=", "dim"), output.plain(value))


def _differences(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Text]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        name = (f"{kind}{output.plain(key)}=", "dim")
        if old is None:
            yield Text.assemble(("+ ", "green"), name, output.plain(new or ""))
        elif new is None:
            yield Text.assemble(("- ", "red"), name, (output.plain(old), "strike"))
        else:
            yield Text.assemble(("~ ", "yellow"), name, output.plain(old), " → ", output.plain(new))


def _labels(state: State) -> Mapping[str, str]:
    return state.labels


def _annotations(state: State) -> Mapping[str, str]:
    return state.annotations


def _data(state: State) -> Mapping[str, str]:
    return {
        name: f"{data.content_type}, {output.size(data.size)} ({data.checksum[:8]})"
        for name, data in state.data.items()
    }


def _stacked(state: State) -> Mapping[str, str]:
    return {name: other.id for name, other in state.stacked.items()}


def _retry(state: State) -> Mapping[str, str]:
    return {"policy": repr(state.retry)} if state.retry else {}


_KINDS: Mapping[str, Any] = {
    "": _labels,
    "annotation ": _annotations,
    "data ": _data,
    "stacked ": _stacked,
    "retry ": _retry,
}
