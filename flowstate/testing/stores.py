"""Stores that are made without a ``Store``: from a URL, or from whatever makes a driver.

What such a store can do is taken from the driver's durability: what survives its process can be
opened again, and by several drivers at once. *lacks* takes that back.
"""

from __future__ import annotations

import inspect
import itertools
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attrs import define, field, frozen

from ..driver import Driver, Durability
from ..drivers import connect
from ..drivers.url import StoreUrl
from ..errors import StoreError, StoreUrlError
from .store import MakeStore, Store, StoredVersion
from .wrapper import WrapperDriver


class Ability(Enum):
    """What a store can do beyond the contract; ``Store`` says what each means."""

    SHARED = "shared"
    PROCESSES = "processes"
    PERSISTENT = "persistent"


class NotNewError(StoreError):
    """A store that laws were to be proved on is in use."""


class NoStoreError(StoreError):
    """What was to make a store failed, or gave something else. An error that it raised is the
    cause."""


# ---------------------------------------------------------------- from a URL


@define
class UrlStores:
    """Makes stores by writing into a URL: ``{tmp}`` is a directory of each store's own, ``{n}`` a
    name that no other store has, in no other run."""

    template: str
    _run: str = field(factory=lambda: secrets.token_hex(4), init=False)
    _numbers: Iterator[int] = field(factory=lambda: itertools.count(1), init=False)

    def __attrs_post_init__(self) -> None:
        """Raises ``StoreUrlError`` if the URL is none, or names a single store that lasts."""
        url = self._url(Path("tmp"), "n")
        if connect(url).durability is not Durability.NONE and url == self.template:
            raise StoreUrlError(
                StoreUrl.parse(url).text,
                "is one store, and each law needs a new one; nothing was opened. Put {tmp} (a new "
                "directory, removed afterwards) or {n} (a new name) into the URL, e.g. "
                "sqlite:///{tmp}/store.db",
            )

    def __call__(self, path: Path) -> Store:
        url = self._url(path, f"{self._run}_{next(self._numbers)}")
        return _UrlStore(url, connect(url))

    def _url(self, path: Path, name: str) -> str:
        return self.template.replace("{tmp}", quote(str(path))).replace("{n}", name)

    @property
    def left_behind(self) -> str:
        """The URLs of the stores that are not removed, without a password; empty if there are
        none."""
        if "{n}" not in self.template:
            return ""
        return StoreUrl.parse(self._url(Path("tmp"), f"{self._run}_*")).text


class _Outside(Store):
    """A store that is seen through its driver alone."""

    raw = False
    first: Driver
    """The driver that the store was made with, to ask it what the store can do."""

    @property
    def is_durable(self) -> bool:
        return self.first.durability is not Durability.NONE

    @property
    def shared(self) -> bool:  # type: ignore[override]  # computed, where Store has a constant
        return self.is_durable

    @property
    def persistent(self) -> bool:  # type: ignore[override]  # computed, where Store has a constant
        return self.is_durable


@frozen
class _UrlStore(_Outside):
    where: str
    first: Driver

    @property
    def url(self) -> str:
        return self.where

    @property
    def processes(self) -> bool:  # type: ignore[override]  # computed, where Store has a constant
        return self.is_durable

    def driver(self) -> Driver:
        return connect(self.where) if self.is_durable else self.first


# ---------------------------------------------------------------- from a callable


def stores_of(make: Callable[..., Any]) -> MakeStore:
    """A function that makes stores by calling *make*, which gives a ``Store`` or a ``Driver``.

    If *make* takes an argument, it is given an empty directory for its files. The function raises
    ``NoStoreError`` if *make* gives something else.
    """
    name: str = getattr(make, "__name__", None) or repr(make)
    if not callable(make):
        raise NoStoreError(name, f"cannot be called; {_WANTED}")
    takes_path = _needs_argument(make)

    def call(path: Path) -> Any:
        return make(path) if takes_path else make()

    def new_store(path: Path) -> Store:
        made = call(path)
        if isinstance(made, Store):
            return made
        if not isinstance(made, Driver):
            raise NoStoreError(name, f"gives a {type(made).__name__}; {_WANTED}")
        if not takes_path and made.durability is not Durability.NONE:
            raise NoStoreError(
                name,
                "gives a driver on a store that lasts, and each law needs a new one; let it take "
                "a directory to put that in",
            )
        return _DriverStore(path, made, call)

    return new_store


@frozen
class _DriverStore(_Outside):
    path: Path
    first: Driver
    make: Callable[[Path], Driver]

    def driver(self) -> Driver:
        return self.make(self.path) if self.is_durable else self.first


_WANTED = "it takes what makes a flowstate.testing.Store or a flowstate.Driver"


def _needs_argument(make: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except ValueError:  # written in C
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in positional and each.default is each.empty for each in parameters)


# ---------------------------------------------------------------- only new ones


@define
class NewStore(Store):
    """A store that is refused, with ``NotNewError``, unless it is empty when it is first opened.

    It is without the abilities in *lacks*, though the store inside declares them.
    """

    inside: Store
    lacks: Collection[Ability] = ()
    _was_opened: bool = field(default=False, init=False)

    @property
    def shared(self) -> bool:  # type: ignore[override]  # computed, where Store has a constant
        return self.inside.shared and Ability.SHARED not in self.lacks

    @property
    def processes(self) -> bool:  # type: ignore[override]  # computed, where Store has a constant
        return self.inside.processes and Ability.PROCESSES not in self.lacks

    @property
    def persistent(self) -> bool:  # type: ignore[override]  # computed, where Store has a constant
        return self.inside.persistent and Ability.PERSISTENT not in self.lacks

    @property
    def raw(self) -> bool:  # type: ignore[override]  # computed, where Store has a constant
        return self.inside.raw

    @property
    def url(self) -> str:
        return self.inside.url

    def driver(self) -> Driver:
        driver = self.inside.driver()
        if self._was_opened:
            return driver
        self._was_opened = True
        return _FirstDriver(driver, self.inside)

    def raw_versions(self) -> list[StoredVersion]:
        return self.inside.raw_versions()

    def raw_payloads(self) -> list[tuple[int, str]]:
        return self.inside.raw_payloads()

    def locked(self) -> AbstractContextManager[object]:
        return self.inside.locked()


@define(eq=False)
class _FirstDriver(WrapperDriver):
    store: Store

    async def open(self) -> None:
        await self.driver.open()
        head = await self.driver.head()
        if head:
            await self.driver.close()
            where = StoreUrl.parse(self.store.url).text if self.store.processes else "the store"
            raise NotNewError(
                where,
                f"is not new: its head is {head}. Laws are proved on new stores only; nothing was "
                "written to it",
            )
