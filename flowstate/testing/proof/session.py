"""The proof itself: a run of pytest that gives a verdict for each law."""

from __future__ import annotations

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import define, field

from ...errors import InvalidValueError
from ..store import MakeStore, Store
from ..stores import Ability, NewStore, NoStoreError, NotNewError
from .reading import (
    MACHINE,
    failure_of,
    first_of,
    law_of,
    parameters_of,
    place_of,
    reason_of,
)
from .verdicts import Failure, Judgement, Law, Listener, Verdict

BACKENDS = ("asyncio", "trio")
PATIENCE_S = 30.0
"""How long a law waits for what must happen before it fails (s)."""

_HERE = Path(__file__).parent
STORES = "stores"
"""The directory that the directories of the stores are in."""
_TESTING = "flowstate.testing"
_REWRITTEN = ("conformance", "stateful", "proof.machine")
"""Modules whose assertions show their values."""
_ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
_FOREIGN = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


class NoSuchLawError(InvalidValueError):
    """No law matches what was selected and not left out."""


def prove(  # noqa: PLR0913  (all but one are by name)
    load: Callable[[], MakeStore],
    *,
    select: Collection[str] = (),
    leave_out: Collection[str] = (),
    backends: Collection[str] = BACKENDS,
    patience_s: float = PATIENCE_S,
    examples: int = 0,
    lacks: Collection[Ability] = (),
    listener: Listener | None = None,
    directory: Path | None = None,
) -> list[Verdict]:
    """Prove the laws on the stores that *load* gives a maker of, and give a verdict for each.

    *load* is called once the run has begun, so that what it imports shows values where it asserts.
    *select* and *leave_out* are numbers of laws (``5``, ``law 5``), or words of their headings,
    names or texts. With *examples*, the machine tries so many series of operations. *lacks* is what
    the stores cannot do though they say so. The files of the stores go to *directory*, which is
    empty, or else to a temporary directory.

    Raises ``NotNewError`` if a store is in use, before anything is written to it,
    ``NoStoreError`` if there is none, ``NoSuchLawError``, and whatever *load* raises.
    """
    # a loop that is not installed cannot be proved on
    loops = tuple(name for name in backends if find_spec(name) is not None)
    with (
        nullcontext(directory)
        if directory is not None
        else tempfile.TemporaryDirectory(prefix="flowstate-check-")
    ) as given:
        folder = Path(given)
        setup = Setup(patience_s, examples, tuple(lacks))
        run = _Run(load, setup, folder, tuple(select), tuple(leave_out), loops, listener)
        configuration = folder / "pytest.ini"
        configuration.write_text("[pytest]\n")
        files = [_HERE / "suite.py", *([_HERE / "machine.py"] if examples else [])]
        options = [
            f"-c{configuration}",
            f"--rootdir={folder}",
            f"--basetemp={folder / STORES}",
            "-otmp_path_retention_policy=none",
            "--noconftest",
            "-panyio",
            "-pno:cacheprovider",
            "-pno:terminalreporter",
            "-pno:faulthandler",  # the caller's business
            "-vv",  # assertions show all of their values
        ]
        with _alone(folder):
            pytest.main([*map(str, files), *options], plugins=[run])
    if run.error is not None:
        raise run.error
    return run.verdicts


@contextmanager
def _alone(directory: Path) -> Generator[None]:
    """Nothing of the caller's pytest and hypothesis is used, and nothing is left for it."""
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT, HYPOTHESIS_STORAGE_DIRECTORY=str(directory))
    for name in _FOREIGN:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in (*_ENVIRONMENT, "HYPOTHESIS_STORAGE_DIRECTORY", *_FOREIGN):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@define
class Setup:
    """The stores, and the limits, that the tests are given."""

    patience_s: float
    examples: int
    lacks: tuple[Ability, ...]
    make: MakeStore = field(init=False)

    def new_store(self, path: Path) -> Store:
        try:
            return NewStore(self.make(path), self.lacks)
        except NoStoreError:
            raise
        except Exception as error:
            reason = f"cannot be made: {type(error).__name__}: {error}"
            raise NoStoreError("the store", reason) from error


SETUP = pytest.StashKey[Setup]()


@define(eq=False)
class _Run:
    """A plugin of pytest: chooses the tests, and makes verdicts of their reports."""

    load: Callable[[], MakeStore]
    setup: Setup
    directory: Path
    select: tuple[str, ...]
    leave_out: tuple[str, ...]
    backends: tuple[str, ...]
    listener: Listener | None
    verdicts: list[Verdict] = field(factory=list[Verdict], init=False)
    error: BaseException | None = field(default=None, init=False)
    """The error that ended the run early."""
    _now: str = field(default="", init=False)
    """The name of the law whose cases are being tried."""
    _left: Counter[str] = field(factory=Counter[str], init=False)
    """law -> how many of its cases are still to be tried"""
    _tried: Counter[str] = field(factory=Counter[str], init=False)
    """law -> how many of its cases were tried and did not fail"""
    _seconds: defaultdict[str, float] = field(factory=lambda: defaultdict(float), init=False)
    _reasons: dict[str, list[str]] = field(factory=dict[str, list[str]], init=False)
    _failures: dict[str, list[Failure]] = field(factory=dict[str, list[Failure]], init=False)

    # ------------------------------------------------------------ before

    def pytest_configure(self) -> None:
        pytest.register_assert_rewrite(*(f"{_TESTING}.{name}" for name in _REWRITTEN))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        try:
            self.setup.make = self.load()
        except BaseException as error:  # noqa: BLE001  (it is raised to the caller of prove)
            self._stop(error)
        session.config.stash[SETUP] = self.setup

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=place_of)
        chosen = [
            item for item in items if place_of(item) == MACHINE or self._is_chosen(law_of(item))
        ]
        laws = list({law_of(item).name: None for item in chosen})
        if not laws:
            self._stop(self._no_such_law(law_of(item) for item in items))
        wanted = {
            name: [item for item in chosen if law_of(item).name == name and self._is_on_loop(item)]
            # some laws have one loop of their own
            or [item for item in chosen if law_of(item).name == name]
            for name in laws
        }
        items[:] = [item for cases in wanted.values() for item in cases]
        self._left.update(law_of(item).name for item in items)
        if self.listener is not None:
            self.listener.starts(len(laws))

    def _is_chosen(self, law: Law) -> bool:
        selected = not self.select or any(map(law.matches, self.select))
        return selected and not any(map(law.matches, self.leave_out))

    def _no_such_law(self, laws: Iterable[Law]) -> NoSuchLawError:
        asked = ", ".join(map(repr, self.select)) or "all"
        but = ", ".join(map(repr, self.leave_out))
        titles = dict.fromkeys(law.title for law in laws)
        return NoSuchLawError(
            "law",
            f"none matches {asked}{f' but {but}' if but else ''}; give the number of a law, or "
            f"words of its heading, name or text. There are: {'; '.join(titles)}",
        )

    def _is_on_loop(self, item: pytest.Item) -> bool:
        loop = parameters_of(item).get("anyio_backend")
        return loop is None or loop in self.backends

    # ------------------------------------------------------------ meanwhile

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        law = law_of(item)
        if law.name != self._now and self.listener is not None:
            self.listener.begins(law)
        self._now = law.name

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        law = law_of(item)
        self._seconds[law.name] += call.duration
        if report.failed and call.excinfo is not None:
            error = first_of(call.excinfo.value)
            if isinstance(error, NotNewError | NoStoreError):
                self.error = error
                item.session.shouldstop = str(error)
            self._failures.setdefault(law.name, []).append(
                failure_of(item, call.excinfo.value, self.directory / STORES)
            )
        elif report.skipped:
            self._reasons.setdefault(law.name, []).append(reason_of(report))
        elif report.when == "call":
            self._tried[law.name] += 1
        if report.when == "teardown":
            self._left[law.name] -= 1
            if not self._left[law.name] and self.error is None:
                self._judge(law)
        return report

    def _judge(self, law: Law) -> None:
        failures = self._failures.get(law.name, [])
        if failures:
            judgement = Judgement.BROKEN
        else:
            judgement = Judgement.KEPT if self._tried[law.name] else Judgement.NOT_PROVED
        reasons = tuple(dict.fromkeys(self._reasons.get(law.name, [])))
        verdict = Verdict(law, judgement, self._seconds[law.name], reasons, tuple(failures))
        self.verdicts.append(verdict)
        if self.listener is not None:
            self.listener.judged(verdict)

    # ------------------------------------------------------------ the end

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.error = self.error or excinfo.value

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._stop(RuntimeError(f"the suite cannot be collected: {report.longreprtext}"))

    def _stop(self, error: BaseException) -> NoReturn:
        self.error = error
        pytest.exit(str(error))
