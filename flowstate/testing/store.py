"""The store that a driver is tested on, and a look at it behind the driver's back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from ..driver import Driver


class StoredVersion(NamedTuple):
    """One version as it lies in the store."""

    rev: int
    id: str
    commit_id: str


class Store(ABC):
    """One store, empty at first. What a driver can do beyond the contract is declared here; tests
    of what is not declared are skipped."""

    shared: ClassVar[bool] = False
    """Several drivers of one process may use the store at once."""
    processes: ClassVar[bool] = False
    """Several processes may: they open ``url`` with ``flowstate.connect``."""
    persistent: ClassVar[bool] = False
    """A driver that is opened after the last one was closed finds what that one left."""

    @property
    def url(self) -> str:
        """Where another process finds the store."""
        raise NotImplementedError(f"{type(self).__name__} declares processes: give it a url")

    @abstractmethod
    def driver(self) -> Driver:
        """A driver on this store, not open: a new one each time if the store is shared or
        persistent, else always the same one."""

    @abstractmethod
    def raw_versions(self) -> list[StoredVersion]:
        """Everything that is stored, by rising revision, read without the driver."""

    @abstractmethod
    def raw_payloads(self) -> list[tuple[int, str]]:
        """The (revision, checksum) of each payload that is stored, read without the driver."""
