"""The store that a driver is tested on, and what it holds, read without the driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeAlias

import pytest
from attrs import define, field

from ..driver import Driver


class StoredVersion(NamedTuple):
    """One version as it lies in the store."""

    rev: int
    id: str
    commit_id: str


@define
class Faults:
    """Makes statements fail. A store has its drivers call ``meet`` before each of theirs."""

    natives: Sequence[Callable[[], Exception]]
    """Make errors as the store's library raises them."""
    failed: int = field(default=0, init=False)
    """How many statements have failed since ``begin``."""
    _make: Callable[[], Exception] | None = field(default=None, init=False)
    _passed: int = field(default=0, init=False)
    _times: int = field(default=1, init=False)
    _marker: str = field(default="", init=False)

    def begin(
        self, make: Callable[[], Exception], after: int = 0, times: int = 1, marker: str = ""
    ) -> None:
        """Have so many statements fail, one after the other, after so many others; with a *marker*,
        each one in which that is found."""
        self._make, self._marker, self.failed = make, marker, 0
        self._passed, self._times = after, times

    def end(self) -> None:
        """Have none fail any more."""
        self._make = None

    def meet(self, *statement: object) -> None:
        """A statement, with its parameters, is about to be executed."""
        make = self._make
        if make is None or (self._marker and self._marker not in repr(statement)):
            return
        if self._passed:
            self._passed -= 1
            return
        self.failed += 1
        if not self._marker and self.failed == self._times:
            self._make = None
        raise make()


class Store(ABC):
    """One store, empty at first. What a driver can do beyond the contract is declared here; laws
    about what is not declared are not proved."""

    shared: bool = False
    """Several drivers of one process may use the store at once."""
    processes: bool = False
    """Several processes may use the store at once: they open ``url`` with ``flowstate.connect``."""
    persistent: bool = False
    """A driver that is opened after the last one was closed finds what was committed before."""
    raw: bool = True
    """The store can be read without the driver, by ``raw_versions`` and ``raw_payloads``. If it
    cannot, a law about what the driver really stored is not proved."""

    @property
    def url(self) -> str:
        """The URL by which another process opens the store."""
        raise NotImplementedError(f"{type(self).__name__} declares processes: give it a url")

    @abstractmethod
    def driver(self) -> Driver:
        """A driver on this store, not open: another one each time if the store is shared or
        persistent, else always the same."""

    def raw_versions(self) -> list[StoredVersion]:
        """Everything that is stored, by rising revision, read without the driver."""
        self._cannot("raw_versions")

    def raw_payloads(self) -> list[tuple[int, str]]:
        """The (revision, checksum) of each payload that is stored, read without the driver."""
        self._cannot("raw_payloads")

    def locked(self) -> AbstractContextManager[object]:
        """Inside, somebody else holds the store, whose driver is open, against all who write."""
        pytest.skip("the store does not say how it is locked")

    def faults(self) -> Faults:
        """What makes statements of the store's drivers fail, those that are made from then on."""
        pytest.skip("the store does not say how its statements fail")

    def _cannot(self, method: str) -> NoReturn:
        if self.raw:
            name = type(self).__name__
            raise NotImplementedError(f"{name} declares raw: give it {method}, or raw = False")
        pytest.skip("the store does not declare that it can be read without its driver")


MakeStore: TypeAlias = Callable[[Path], Store]
"""Makes an empty store; its files, if any, go into the directory that is given."""
