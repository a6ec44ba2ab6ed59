"""Reading what pytest gives: the law that a test proves, and why it failed or was skipped."""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from .verdicts import Failure, Law

MACHINE = 1_000
"""The place of a test that is in no class: it comes last."""

_PACKAGE = str(Path(__file__).parents[2])
_STDLIB = sysconfig.get_path("stdlib")
_CONFORMANCE = "flowstate/testing/conformance/"
_MACHINE = "flowstate/testing/stateful.py"


def law_of(item: pytest.Item) -> Law:
    """The law that a test proves a case of."""
    function: Any = getattr(item, "function")  # noqa: B009  (only functions are collected)
    module = sys.modules[function.__module__]
    about, _, _ = (module.__doc__ or "").strip().partition("\n\n")
    return Law(
        function.__name__.removeprefix("test_"),
        _prose(about),
        _prose(function.__doc__ or function.__name__),
    )


def place_of(item: pytest.Item) -> int:
    """The place of a law in the suite, whose base classes are in order."""
    function: Any = getattr(item, "function")  # noqa: B009  (only functions are collected)
    cls: type | None = getattr(item, "cls", None)
    if cls is None:
        return MACHINE
    return next(n for n, base in enumerate(cls.__mro__) if function.__name__ in vars(base))


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "").split())


def parameters_of(item: pytest.Item) -> dict[str, Any]:
    callspec: Any = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def reason_of(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return reason.removeprefix("Skipped: ")


def failure_of(item: pytest.Item, raised: BaseException, stores: Path) -> Failure:
    # the directories of the stores are new ones each time, and removed when this is read
    store = re.compile(rf"{re.escape(str(stores))}/[^\s/'\":]+")
    error = first_of(raised)
    _, _, case = item.name.partition("[")
    text = "".join(traceback.format_exception(raised))
    notes: Sequence[str] = getattr(error, "__notes__", ())
    return Failure(
        case.removesuffix("]"),
        store.sub("{tmp}", _message(error)),
        "\n".join(notes),
        _where(traceback.extract_tb(error.__traceback__)),
        store.sub("{tmp}", text),
    )


def _message(error: BaseException) -> str:
    """The type of an error and its text; for a failed assertion the text alone."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, TimeoutError) and not text:
        text = "what must happen did not happen in time"
    message = text if isinstance(error, AssertionError) or name == "Failed" else f"{name}: {text}"
    return message or name


def _where(frames: traceback.StackSummary) -> str:
    """The innermost place in the code of the store's author; if there is none, in the law, in the
    suite, or anywhere."""
    author = [frame for frame in frames if not _is_library(frame.filename)]
    suite = [frame for frame in frames if Path(frame.filename).as_posix().endswith(_MACHINE)]
    suite += [frame for frame in frames if _CONFORMANCE in Path(frame.filename).as_posix()]
    law = [frame for frame in suite if frame.name.startswith("test_")]
    for frame in (*author[-1:], *law[-1:], *suite[-1:], *frames[-1:]):
        return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
    return ""


def _is_library(file: str) -> bool:
    return "site-packages" in file or file.startswith((_PACKAGE, _STDLIB, "<"))


def first_of(error: BaseException) -> BaseException:
    """The first error of the groups that task groups raise, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return first_of(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error
