"""A driver around a driver: what is done to every call is written in one method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal, TypeVar

from attrs import define

from ..data import DataRef
from ..driver import Driver, Durability
from ..leases import Claimed, DuePage, Held, Holding, Place, Renewal
from ..plan import Plan, Record
from ..query import Page, Query, Unreadable
from ..retention import Compaction, Retention
from ..state import State

R = TypeVar("R")


@define(eq=False)
class WrapperDriver(Driver):
    """Delegates every call to *driver*, through ``around``. A subclass overrides that, or a method.

    ``async with`` opens and closes the driver inside.
    """

    driver: Driver

    async def around(
        self,
        name: str,  # noqa: ARG002  (subclasses use it)
        call: Callable[[], Awaitable[R]],
    ) -> R:
        """Every call to the store passes here; *name* is the name of the method."""
        return await call()

    # computed here, where other drivers have an attribute of their class
    @property
    def durability(self) -> Durability:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """The durability of the driver inside."""
        return self.driver.durability

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        return await self.around("commit", lambda: self.driver.commit(plan))

    async def record(self, id: str) -> Record | None:
        return await self.around("record", lambda: self.driver.record(id))

    async def forget_records(self, before: int, limit: int) -> int:
        return await self.around(
            "forget_records", lambda: self.driver.forget_records(before, limit)
        )

    async def get(self, id: str, rev: int | None = None) -> State | None:
        return await self.around("get", lambda: self.driver.get(id, rev))

    async def find(self, query: Query) -> State | None:
        return await self.around("find", lambda: self.driver.find(query))

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        return await self.around(
            "read", lambda: self.driver.read(query, after, limit, newest_first=newest_first)
        )

    async def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        return await self.around("count", lambda: self.driver.count(query, by))

    async def head(self) -> int:
        return await self.around("head", self.driver.head)

    async def wait(self, after: int) -> int:
        return await self.around("wait", lambda: self.driver.wait(after))

    async def due(self, until: int, limit: int) -> DuePage:
        return await self.around("due", lambda: self.driver.due(until, limit))

    async def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        return await self.around("claim", lambda: self.driver.claim(room, limit, owner, claim, now))

    async def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        return await self.around("take", lambda: self.driver.take(versions, owner, claim, now))

    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        return await self.around("renew", lambda: self.driver.renew(held, owner, now))

    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        await self.around("release", lambda: self.driver.release(held, owner, now))

    @property
    def session(self) -> str:
        return self.driver.session

    @property
    def attends(self) -> bool:
        return self.driver.attends

    async def attend(self) -> None:
        await self.around("attend", self.driver.attend)

    async def owners(self) -> Mapping[str, bool | None]:
        return await self.around("owners", self.driver.owners)

    async def end_leases(self, owner: str, now: int) -> None:
        await self.around("end_leases", lambda: self.driver.end_leases(owner, now))

    async def holdings(self, owner: str | None = None) -> tuple[Holding, ...]:
        return await self.around("holdings", lambda: self.driver.holdings(owner))

    async def place(self, id: str) -> Place | None:
        return await self.around("place", lambda: self.driver.place(id))

    async def line(self) -> Mapping[str, int]:
        return await self.around("line", self.driver.line)

    async def load(self, ref: DataRef) -> bytes:
        return await self.around("load", lambda: self.driver.load(ref))

    async def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        return await self.around("forget", lambda: self.driver.forget(id, payloads))

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        return await self.around(
            "compact", lambda: self.driver.compact(retention, after, limit, dry_run=dry_run)
        )

    async def open(self) -> None:
        await self.driver.open()

    async def close(self) -> None:
        await self.driver.close()
