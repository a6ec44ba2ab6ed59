"""Reading versions: which index to ask, and pages that look at a bounded number of versions.

Every method runs in a worker thread, and what it finds is of one moment. It costs one round trip,
also where a transaction is needed for hints to the planner: nothing is waited for inside, so none
is ever left open. Only what compaction decides takes several.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, LiteralString

import psycopg
from attrs import define

from ...data import DataRef
from ...errors import FlowstateError
from ...leases import DuePage, Holding, Place
from ...plan import Record
from ...query import Page, Query
from ...retention import Compaction, Retention
from ...state import State
from ..reader import MAX_SCAN, DueRow, StoreReader
from . import queries
from .arrays import BigInts
from .compactor import Compactor, Removal
from .connection import BY_INDEX, IDLE_TIMEOUT, Target
from .errors import is_lost, translate
from .places import (
    DUE,
    LINE,
    MAY_CLAIM,
    OWNERS,
    PLACE,
    PRESENT,
    TAKEN,
    TAKEN_BY,
    json_object,
)
from .rows import left_of
from .session import DEADLINE_S, Connection

_SETTINGS: LiteralString = f"""
SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', %(idle)s, true),
pg_catalog.set_config('statement_timeout',
    coalesce(nullif(pg_catalog.current_setting('statement_timeout'), '0'), %(statement)s), true),
{BY_INDEX}
"""
_LIMITS = {"idle": IDLE_TIMEOUT, "statement": f"{DEADLINE_S:g}s"}
"""What nobody waits for any more, the server does not go on with: unless it is set so already."""


@define(eq=False)
class Reader(StoreReader):
    """Reads on one connection."""

    target: Target
    connection: Connection
    is_up_to_date: Callable[[], bool] = lambda: True
    """Whether it is connected to where the driver writes, as far as that is known: what was the
    primary may go on answering for a while, and knows nothing of what was committed since."""

    @property
    def _name(self) -> str:
        return self.target.url

    @property
    def is_usable(self) -> bool:
        return not self.connection.closed and self.is_up_to_date()

    def close(self) -> None:
        self.connection.close()

    def head(self) -> int:
        head: int = self._one("SELECT rev FROM {s}.head")[0]
        return head

    def get(self, id: str, rev: int | None) -> State | None:
        if rev is None:
            rows = self._rows(
                "SELECT v.rev, v.id, v.state::text FROM {s}.versions v WHERE v.id = %(id)s "
                "ORDER BY v.rev DESC LIMIT 1",
                id=id,
            )
        else:
            rows = self._rows(
                "SELECT v.rev, v.id, v.state::text FROM {s}.versions v "
                "WHERE v.rev = %(rev)s AND v.id = %(id)s",
                id=id,
                rev=rev,
            )
        return self._newest_of(self._entry(*row) for row in rows)

    def record(self, id: str) -> Record | None:
        rows = self._rows(
            "SELECT r.digest, r.commit_id, r.rev, r.committed_at FROM {s}.records r "
            "WHERE r.id = %(id)s",
            id=id,
        )
        return Record(*rows[0]) if rows else None

    def read(self, query: Query, after: int, limit: int, newest_first: bool) -> Page:  # noqa: FBT001
        floor = self._rev_before(query.since_ms) if query.since_ms else 0
        if not newest_first:
            floor = max(floor, after)
        low, high = min(floor + 1, queries.MAX_REV), after - 1 if newest_first else queries.MAX_REV
        limit = min(limit, MAX_SCAN)
        text, values = queries.page(query, limit, newest_first)
        rows = self._indexed(text, low=low, high=high, limit=limit, **values)
        upto, removed_rev, removed_at = rows[0][:3]
        found = [row[3:] for row in rows if row[3] is not None]
        entries = [self._entry(*row[:3]) for row in found]
        if len(entries) == limit:
            upto = entries[-1].rev
        if not newest_first:
            upto = max(upto, floor)
        return Page.of(
            entries,
            upto,
            query.compacted(removed_rev, removed_at),
            {row[0]: left_of(*row[3:]) for row in found if any(was is not None for was in row[3:])},
            newest_first=newest_first,
        )

    def find(self, query: Query) -> State | None:
        text, values = queries.newest(query)
        return self._newest_of(self._entry(*row) for row in self._indexed(text, **values))

    def count(self, query: Query, by: Literal["status", "flow"]) -> Mapping[str, int]:
        text, values = queries.count(query, by)
        return dict(self._indexed(text, **values))

    def due(self, until: int, limit: int) -> DuePage:
        return self._due_page(limit, lambda most: self._soonest(until, most))

    def may_claim(self, room: Mapping[str, int], owner: str, claim: str, now: int) -> bool:
        given = {"room": json_object(room), "owner": owner, "claim": claim, "now": now}
        may: bool = self._indexed(MAY_CLAIM, **given)[0][0]
        return may

    def owners(self) -> list[str]:
        """Everybody who has taken something."""
        return [owner for (owner,) in self._indexed(OWNERS)]

    def present(self, keys: Sequence[int]) -> set[int]:
        """Those of these locks that are held."""
        return {key for (key,) in self._rows(PRESENT, keys=BigInts.of(keys))}

    def holdings(self, owner: str | None) -> tuple[Holding, ...]:
        rows = self._indexed(TAKEN) if owner is None else self._indexed(TAKEN_BY, owner=owner)
        return tuple(
            [Holding(id, rev, flow, Place(None, *place)) for id, rev, flow, *place in rows]
        )

    def place(self, id: str) -> Place | None:
        rows = self._rows(PLACE, id=id)
        if not rows:
            return None
        since, owner, claim, until = rows[0]
        return Place(since, owner or "", claim or "", until)

    def line(self) -> Mapping[str, int]:
        return dict(self._indexed(LINE))

    def dry_run(self, retention: Retention, after: int, limit: int) -> Compaction:
        with self._snapshot():
            return Compactor(retention, self._ask).dry_run(after, limit)

    def removal(self, retention: Retention, after: int, limit: int) -> Removal:
        """What a batch of compaction is to remove."""
        with self._snapshot():
            return Compactor(retention, self._ask).removal(after, limit)

    # ------------------------------------------------------------ inside

    def _soonest(self, until: int, most: int) -> tuple[list[DueRow], int | None]:
        """For ``_due_page``."""
        rows = self._indexed(DUE, until=until, most=most)
        due = [DueRow(*row) for row in rows if row[1] is not None]
        return due, rows[-1][0] if len(due) < len(rows) else None

    def _payload(self, ref: DataRef) -> tuple[bytes | None] | None:
        rows = self._rows(
            "SELECT content FROM {s}.payloads WHERE rev = %(rev)s AND checksum = %(checksum)s",
            rev=ref.rev,
            checksum=ref.checksum,
        )
        return (rows[0][0],) if rows else None

    def _rev_before(self, instant: int) -> int:
        """The newest revision committed before that time; see ``Driver.commit`` on their order."""
        rev: int = self._indexed(queries.REV_BEFORE, instant=instant)[0][0]
        return rev

    def _one(self, text: LiteralString, **values: Any) -> tuple[Any, ...]:
        return self._rows(text, **values)[0]

    def _rows(self, text: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
        """What a statement finds that needs no hint to the planner."""
        with self._translated():
            return self._execute(text, values).fetchall()

    def _indexed(self, text: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
        """What a statement finds through indexes, whatever the planner would prefer."""
        with self._translated():
            with self.connection.pipeline():
                self._execute("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
                self._execute(_SETTINGS, _LIMITS)
                found = self._execute(text, values)
                self._execute("COMMIT")
            return found.fetchall()

    @contextmanager
    def _snapshot(self) -> Generator[None]:
        """Several statements about one moment, through indexes."""
        with self._translated():
            # not in a pipeline, in which the server would not see it idle if we hang
            self._execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._execute(_SETTINGS, _LIMITS)
            yield
            self._execute("COMMIT")

    def _ask(self, text: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
        return self._execute(text, values).fetchall()

    def _execute(
        self, text: LiteralString, values: Mapping[str, Any] | None = None
    ) -> psycopg.Cursor[Any]:
        return self.connection.execute(self.target.sql(text), values, binary=True)

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except FlowstateError:
            raise
        except Exception as error:
            self._recover(error)
            raise translate(self.target, error) from error

    def _recover(self, error: Exception) -> None:
        """Make ready for another transaction, or close a connection of which nobody knows how it
        is."""
        if isinstance(error, psycopg.Error) and not is_lost(error):
            with suppress(Exception):
                self.connection.rollback()
                return
        self.connection.close()
