"""The store that a driver is tested on, and what it holds, read without the driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeAlias

import pytest

from ..driver import Driver


class StoredVersion(NamedTuple):
    """One version as it lies in the store."""

    rev: int
    id: str
    commit_id: str


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

    def _cannot(self, method: str) -> NoReturn:
        if self.raw:
            name = type(self).__name__
            raise NotImplementedError(f"{name} declares raw: give it {method}, or raw = False")
        pytest.skip("the store does not declare that it can be read without its driver")


MakeStore: TypeAlias = Callable[[Path], Store]
"""Makes an empty store; its files, if any, go into the directory that is given."""
