"""What came out of a flow: whose it is, and how it is kept.

An error is the flow's own unless somebody asked for it: an operator with Ctrl-C, or whoever
cancelled the task that the flow runs in.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import cast

import anyio

from .transitions import Failure

MAX_REASON = 1_000
"""Characters of an error that are kept as a reason."""
MAX_TRACEBACK = 4_000
"""Bytes of a traceback that are kept, its end."""


def is_flows_own(error: BaseException) -> bool:
    """Whether what came out of a flow is the flow's: not the operator's Ctrl-C, nor a cancellation
    that somebody asked this task for."""
    errors = list(_each(error))
    if any(isinstance(each, KeyboardInterrupt | GeneratorExit) for each in errors):
        return False
    cancelled = anyio.get_cancelled_exc_class()
    return not all(isinstance(each, cancelled) for each in errors) or not _is_cancelled()


def _each(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, as a group of tasks raises it, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _each(each)
    else:
        yield error


def _is_cancelled() -> bool:
    """Whether somebody asked this task to stop, by a scope around it or by its event loop."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    asyncio = sys.modules.get("asyncio")
    try:
        task = None if asyncio is None else asyncio.current_task()
    except RuntimeError:  # trio: there is no other way than by a scope
        task = None
    return task is not None and task.cancelling() > 0


def failure_of(error: BaseException) -> Failure:
    """An error as it is kept in a transition."""
    lines = _storable("".join(_traceback(error)).strip())
    return Failure(reason(error), lines.encode()[-MAX_TRACEBACK:].decode(errors="ignore"))


def _traceback(error: BaseException) -> list[str]:
    """The lines of a traceback, from the flow on: what called it is the same for all."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None and _is_internal(place):
        place = place.tb_next
    return traceback.format_exception(type(error), error, place)


def _is_internal(place: TracebackType) -> bool:
    return str(place.tb_frame.f_globals.get("__name__")).startswith(f"{__package__}.")


def reason(error: BaseException) -> str:
    """An error in one line, cut to length."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (an error that cannot say what it is)
        text = f"{type(error).__name__}, which could not be turned into text"
    text = _storable(text)
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def _storable(text: str) -> str:
    """Text that every store can keep: what none could may well be in an error, e.g. in the name of
    a file."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
