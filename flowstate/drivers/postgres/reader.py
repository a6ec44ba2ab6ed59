"""Reading versions: which index to ask, and pages that look at a bounded number of versions.

Every method runs in a worker thread, and what it finds is of one moment. It costs one round trip,
also where a transaction is needed for hints to the planner: nothing is waited for inside, so none
is ever left open.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from attrs import define

from ... import codec
from ...data import DataRef
from ...leases import DuePage, Holding, Place
from ...plan import Record
from ...query import Page, Query
from ...retention import Compaction, Retention
from ...state import State
from ..reader import MAX_SCAN, SCAN_PER_VERSION, DueRow, StoreReader
from .arrays import BigInts, Documents, Texts
from .compactor import Compactor, Removal
from .connection import BY_INDEX, Connection, Target
from .errors import is_lost, translate
from .places import DUE, LINE, MAY_CLAIM, PLACE, TAKEN, TAKEN_BY, json_object
from .schema import key


@define(eq=False)
class Reader(StoreReader):
    """Reads on one connection."""

    target: Target
    connection: Connection

    @property
    def _name(self) -> str:
        return self.target.url

    @property
    def is_usable(self) -> bool:
        return not self.connection.closed

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

    def read(self, query: Query, after: int, limit: int) -> Page:
        if query.since_ms:
            after = max(after, self._rev_before(query.since_ms))
        limit = min(limit, MAX_SCAN)
        filters, values = _filters(query)
        text, more = _page(query, filters, limit)
        rows = self._indexed(
            text.replace("{filters}", filters), after=after, limit=limit, **more, **values
        )
        upto, floor, removed_at = rows[0][:3]
        entries = [self._entry(*row[3:]) for row in rows if row[3] is not None]
        if len(entries) == limit:
            upto = entries[-1].rev
        return Page.of(entries, max(upto, after), query.compacted(floor, removed_at))

    def find(self, query: Query) -> State | None:
        text, more = _newest(query)
        filters, values = _filters(query)
        rows = self._indexed(text.replace("{filters}", filters), **more, **values)
        return self._newest_of(self._entry(*row) for row in rows)

    def due(self, until: int, limit: int) -> DuePage:
        return self._due_page(limit, lambda most: self._soonest(until, most))

    def may_claim(self, room: Mapping[str, int], owner: str, claim: str, now: int) -> bool:
        given = {"room": json_object(room), "owner": owner, "claim": claim, "now": now}
        may: bool = self._indexed(MAY_CLAIM, **given)[0][0]
        return may

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

    def _payload(self, ref: DataRef) -> bytes | None:
        rows = self._rows(
            "SELECT content FROM {s}.payloads WHERE rev = %(rev)s AND checksum = %(checksum)s",
            rev=ref.rev,
            checksum=ref.checksum,
        )
        return rows[0][0] if rows else None

    def _rev_before(self, instant: int) -> int:
        """The newest revision committed before that time; see ``Driver.commit`` on their order."""
        rev: int = self._indexed(_REV_BEFORE, instant=instant)[0][0]
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
                self._execute("SELECT " + BY_INDEX)
                found = self._execute(text, values)
                self._execute("COMMIT")
            return found.fetchall()

    @contextmanager
    def _snapshot(self) -> Generator[None]:
        """Several statements about one moment, through indexes."""
        with self._translated(), self.connection.pipeline():
            self._execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._execute("SELECT " + BY_INDEX)
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
        except psycopg.Error as error:
            self._recover(error)
            raise translate(self.target, error) from error

    def _recover(self, error: psycopg.Error) -> None:
        """Make ready for another transaction, or close a connection that is lost."""
        try:
            if not is_lost(error):
                self.connection.rollback()
                return
        except psycopg.Error:
            pass
        self.connection.close()


# ---------------------------------------------------------------- what a query asks for


def _filters(query: Query) -> tuple[LiteralString, dict[str, Any]]:
    """Everything that a version must be besides where it is looked for."""
    filters: LiteralString = ""
    values: dict[str, Any] = {}
    if query.alternatives:
        # of what certainly cannot be read, nobody can tell whether it matches
        filters += (
            " AND (v.state -> 'labels' @> ANY(%(documents)s)"
            " OR (v.state -> 'transition' IS NULL AND v.status <> 'new')"  # which is left out
            " OR jsonb_typeof(v.state -> 'labels') <> 'object')"
        )
        values["documents"] = Documents.of(map(codec.encode, query.alternatives))
    if query.statuses:
        filters += " AND v.status = ANY(%(statuses)s)"
        values["statuses"] = Texts.of(status.value for status in query.statuses)
    if query.id_prefix:
        filters += " AND starts_with(v.id, %(prefix)s)"
        values["prefix"] = query.id_prefix
    if query.since_ms:
        filters += " AND v.committed_at >= %(since)s"
        values["since"] = query.since_ms
    return filters, values


def _newest(query: Query) -> tuple[LiteralString, Mapping[str, Any]]:
    """The statement for the newest version, and what it needs to know."""
    if query.id:
        return _FIND_ID, {"id": query.id}
    if query.alternatives:
        return _FIND_LABELLED, _wanted(query)
    return _FIND, {}


def _page(query: Query, filters: str, limit: int) -> tuple[LiteralString, Mapping[str, Any]]:
    """The statement for a page, and what it needs to know."""
    if not query.alternatives and not query.id and not query.latest:
        return (_FILTERED_PAGE, {"most": MAX_SCAN}) if filters else (_PAGE, {})
    more: dict[str, Any] = {}
    if query.id:
        lists = _REVS_OF_ID_LATEST if query.latest else _REVS_OF_ID
        more["id"] = query.id
    elif query.alternatives:
        lists = _REVS_LABELLED_LATEST if query.latest else _REVS_LABELLED
        more.update(_wanted(query))
    else:
        lists = _REVS_LATEST
    more["most"] = min(MAX_SCAN, limit if _is_exact(query) else SCAN_PER_VERSION * limit)
    return _PAGE_OF_CANDIDATES.replace("{lists}", lists), more


def _is_exact(query: Query) -> bool:
    """Whether every candidate that the index offers matches, so that no more are needed than the
    page may hold."""
    if query.statuses or query.id_prefix:
        return False  # no index has them
    if query.id:
        return not query.alternatives  # the index is that by id
    return all(len(labels) == 1 for labels in query.alternatives)  # the index is that by one label


def _wanted(query: Query) -> Mapping[str, Any]:
    pairs = [
        (number, key(name, value))
        for number, labels in enumerate(query.alternatives)
        for name, value in labels.items()
    ]
    return {
        "numbers": BigInts.of(number for number, _ in pairs),
        "keys": BigInts.of(label for _, label in pairs),
    }


# ---------------------------------------------------------------- statements

_PAGE: LiteralString = """
SELECT h.rev, h.compacted, h.compacted_at, v.rev, v.id, v.state::text
FROM {s}.head h LEFT JOIN LATERAL (
    SELECT v.rev, v.id, v.state FROM {s}.versions v WHERE v.rev > %(after)s AND v.rev <= h.rev
    ORDER BY v.rev LIMIT %(limit)s
) v ON true ORDER BY v.rev
"""

_FILTERED_PAGE: LiteralString = """
WITH bound AS MATERIALIZED (
    SELECT h.compacted, h.compacted_at, least(h.rev, CASE
        WHEN %(after)s >= h.compacted THEN least(%(after)s, h.rev) + %(most)s
        ELSE (
            SELECT v.rev FROM {s}.versions v WHERE v.rev > %(after)s
            ORDER BY v.rev OFFSET %(most)s - 1 LIMIT 1
        )
    END) AS upto FROM {s}.head h
)
SELECT b.upto, b.compacted, b.compacted_at, v.rev, v.id, v.state::text
FROM bound b LEFT JOIN LATERAL (
    SELECT v.rev, v.id, v.state FROM {s}.versions v
    WHERE v.rev > %(after)s AND v.rev <= b.upto{filters}
    ORDER BY v.rev LIMIT %(limit)s
) v ON true ORDER BY v.rev
"""
"""Looks at ``most`` versions. They are counted only up to where some were removed: above that,
every revision has its version."""

_PAGE_OF_CANDIDATES: LiteralString = """
WITH lists AS MATERIALIZED ({lists}),
bound AS MATERIALIZED (
    SELECT h.compacted, h.compacted_at, least(h.rev, (
        SELECT min(revs[cardinality(revs)]) FROM lists WHERE cardinality(revs) = %(most)s
    )) AS upto FROM {s}.head h
)
SELECT b.upto, b.compacted, b.compacted_at, v.rev, v.id, v.state::text
FROM bound b LEFT JOIN LATERAL (
    SELECT v.rev, v.id, v.state
    FROM (SELECT DISTINCT r.rev FROM lists, unnest(revs) AS r(rev) WHERE r.rev <= b.upto) c
    CROSS JOIN LATERAL (
        SELECT v.rev, v.id, v.state FROM {s}.versions v WHERE v.rev = c.rev{filters}
    ) v
    ORDER BY v.rev LIMIT %(limit)s
) v ON true ORDER BY v.rev
"""
"""``lists`` holds arrays of revisions above ``after``, ascending, at most ``most`` of them each: of
one that is full, more may follow."""

_REVS_OF_ID: LiteralString = """SELECT array(
    SELECT v.rev FROM {s}.versions v WHERE v.id = %(id)s AND v.rev > %(after)s
    ORDER BY v.rev LIMIT %(most)s
) AS revs"""

_REVS_OF_ID_LATEST: LiteralString = """SELECT array(
    SELECT s.rev FROM {s}.states s WHERE s.id = %(id)s AND s.rev > %(after)s
) AS revs"""

_REVS_LATEST: LiteralString = """SELECT array(
    SELECT s.rev FROM {s}.states s WHERE s.rev > %(after)s ORDER BY s.rev LIMIT %(most)s
) AS revs"""

_REVS_LABELLED: LiteralString = """
SELECT DISTINCT ON (w.number) w.number, l.revs
FROM unnest(%(numbers)s, %(keys)s) AS w(number, key) CROSS JOIN LATERAL (SELECT array(
    SELECT l.rev FROM {s}.labels l WHERE l.key = w.key AND l.rev > %(after)s
    ORDER BY l.rev LIMIT %(most)s
) AS revs) l
ORDER BY w.number, cardinality(l.revs), l.revs[cardinality(l.revs)] DESC"""
"""For each alternative the revisions with whichever of its labels the fewest have; of two that have
as many as were asked for, the one that gets further."""

_REVS_LABELLED_LATEST: LiteralString = _REVS_LABELLED.replace("{s}.labels", "{s}.current_labels")

_FIND_ID: LiteralString = """
SELECT v.rev, v.id, v.state::text FROM {s}.states s CROSS JOIN LATERAL (
    SELECT v.rev, v.id, v.state FROM {s}.versions v WHERE v.rev = s.rev{filters}
) v WHERE s.id = %(id)s
"""

_FIND: LiteralString = """
SELECT v.rev, v.id, v.state::text FROM {s}.states s CROSS JOIN LATERAL (
    SELECT v.rev, v.id, v.state FROM {s}.versions v WHERE v.rev = s.rev{filters}
) v ORDER BY s.rev DESC LIMIT 1
"""

_FIND_LABELLED: LiteralString = """
WITH wanted AS MATERIALIZED (
    SELECT w.number, w.key, count(*) OVER (PARTITION BY w.number) = 1 AS is_alone
    FROM unnest(%(numbers)s, %(keys)s) AS w(number, key)
),
counted AS MATERIALIZED (
    SELECT w.*, CASE WHEN NOT w.is_alone THEN (SELECT count(*) FROM (
        SELECT FROM {s}.current_labels l WHERE l.key = w.key ORDER BY l.rev LIMIT 100
    ) l) END AS few FROM wanted w
),
rarest AS MATERIALIZED (
    SELECT DISTINCT ON (r.number) r.number, r.key FROM (
        SELECT c.number, c.key, CASE
            WHEN c.is_alone OR min(c.few) OVER (PARTITION BY c.number) < 100 THEN c.few
            ELSE (SELECT count(*) FROM (
                SELECT FROM {s}.current_labels l WHERE l.key = c.key ORDER BY l.rev LIMIT 10000
            ) l)
        END AS count FROM counted c
    ) r ORDER BY r.number, r.count
)
SELECT f.rev, f.id, f.state::text FROM rarest r CROSS JOIN LATERAL (
    SELECT v.rev, v.id, v.state FROM {s}.current_labels l CROSS JOIN LATERAL (
        SELECT v.rev, v.id, v.state FROM {s}.versions v WHERE v.rev = l.rev{filters}
    ) v WHERE l.key = r.key ORDER BY l.rev DESC LIMIT 1
) f ORDER BY f.rev DESC LIMIT 1
"""
"""For each alternative, from the newest on, the states with whichever of its labels the fewest
have. Counts no further than it must."""

_REV_BEFORE: LiteralString = """
WITH RECURSIVE search(low, high) AS (
    SELECT 0::bigint, h.rev FROM {s}.head h
    UNION ALL
    SELECT
        CASE WHEN v.committed_at < %(instant)s THEN v.rev ELSE s.low END,
        CASE WHEN v.committed_at < %(instant)s THEN s.high ELSE (s.low + s.high) / 2 END
    FROM search s CROSS JOIN LATERAL (
        SELECT v.rev, v.committed_at FROM {s}.versions v WHERE v.rev > (s.low + s.high) / 2
        ORDER BY v.rev LIMIT 1
    ) v WHERE s.low < s.high
)
SELECT max(low) FROM search
"""
