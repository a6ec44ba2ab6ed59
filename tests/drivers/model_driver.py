"""A driver over ``flowstate.testing.model``: slow, obvious, open to whoever wants to break it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

from attrs import define, field
from msgspec.structs import replace

from flowstate import (
    Compaction,
    DataForgottenError,
    DataNotFoundError,
    DataRef,
    Driver,
    DuePage,
    Durability,
    Page,
    Plan,
    Query,
    Retention,
    State,
)
from flowstate.clock import SystemClock
from flowstate.drivers.head import Head
from flowstate.leases import Claimed, Held, Holding, Place, Renewal
from flowstate.plan import Record
from flowstate.testing import Store, StoredVersion
from flowstate.testing.model import Model


@define(eq=False)
class ModelDriver(Driver):
    """All that is stored is in ``model``, which has the rules as well: a driver that keeps to
    others subclasses this, or ``Model``."""

    durability: ClassVar[Durability] = Durability.NONE

    model: Model = field(factory=Model)
    _news: Head = field(factory=Head, init=False)

    async def commit(self, plan: Plan) -> tuple[State, ...]:
        newest = self.model.log[-1].committed_at if self.model.log else 0
        now = max(SystemClock().now(), newest)
        versions = self.model.commit(plan, self.model.head + 1, now)
        self._news.advance(self.model.head)
        return versions

    async def record(self, id: str) -> Record | None:
        return self.model.records.get(id)

    async def forget_records(self, before: int, limit: int) -> int:
        return self.model.forget_records(before, limit)

    async def get(self, id: str, rev: int | None = None) -> State | None:
        return self.model.current.get(id) if rev is None else self.model.get(id, rev)

    async def find(self, query: Query) -> State | None:
        return self.model.find(query)

    async def read(
        self, query: Query, after: int, limit: int, *, newest_first: bool = False
    ) -> Page:
        model = self.model
        found = tuple(model.read(query, after, newest_first=newest_first)[:limit])
        end = 1 if newest_first else max(after, model.head)
        upto = found[-1].rev if len(found) == limit else end
        compacted = query.compacted(model.compacted, model.compacted_at)
        left = {state.rev: was for state in found if (was := model.left(state)) is not None}
        if not query.leaving or query.latest:
            left = {}
        return Page(found, upto, compacted, left=left, newest_first=newest_first)

    async def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        return self.model.count(query, by)

    async def head(self) -> int:
        return self.model.head

    async def wait(self, after: int) -> int:
        return await self._news.wait(after)

    async def due(self, until: int, limit: int) -> DuePage:
        return self.model.due(until, limit)

    async def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        return self.model.claim(room, limit, owner, claim, now)

    async def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed, ...]:
        return self.model.take(versions, owner, claim, now)

    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        return self.model.renew(held, owner, now)

    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        self.model.release(held, owner, now)
        self._news.hint()

    async def end_leases(self, owner: str, now: int) -> None:
        self.model.end_leases(owner, now)
        self._news.hint()

    async def holdings(self, owner: str | None = None) -> tuple[Holding, ...]:
        return self.model.holdings(owner)

    async def place(self, id: str) -> Place | None:
        return self.model.place(id)

    async def line(self) -> Mapping[str, int]:
        return self.model.line()

    async def load(self, ref: DataRef) -> bytes:
        key = ref.rev, ref.checksum
        content = self.model.payloads.get(key)
        if content is None:
            error = DataForgottenError if key in self.model.payloads else DataNotFoundError
            raise error(f"payload {ref.checksum} stored at revision {ref.rev}")
        return content

    async def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        return self.model.forget(id, payloads)

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        versions = [state for state in self.model.log if state.rev > after]
        old = [state.rev for state in versions if retention.is_old(state.committed_at)]
        upto = ([after, *old[:limit]])[-1]
        batch = self.model.compact(retention, after, upto, dry_run=dry_run)
        return replace(batch, done=len(old) <= limit)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


@define
class ModelStore(Store):
    """The model is what lies behind the driver's back."""

    made: ModelDriver = field(factory=ModelDriver)

    def driver(self) -> Driver:
        return self.made

    def raw_versions(self) -> list[StoredVersion]:
        model = self.made.model
        commit_ids = {state.rev: id for id, states in model.outcomes.items() for state in states}
        return [StoredVersion(s.rev, s.id, commit_ids.get(s.rev, "")) for s in model.log]

    def raw_payloads(self) -> list[tuple[int, str]]:
        return list(self.made.model.payloads)
