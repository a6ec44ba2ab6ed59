"""Which versions may match a query: the index to ask, and how far what it offers goes."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import define, frozen

from ...query import Query
from ...state import Status

FEW_IDS = 1_000
"""States that are looked up one by one, by a prefix of their ids, at most."""


@frozen
class Condition:
    """A piece of a WHERE clause with the values for its marks."""

    sql: str
    values: tuple[Any, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        return Condition(f"{self.sql} AND {other.sql}", self.values + other.values)

    def __or__(self, other: Condition) -> Condition:
        return Condition(f"({self.sql} OR {other.sql})", self.values + other.values)


ANY = Condition("1")
"""What holds for every version."""

Source: TypeAlias = Condition
"""Where revisions are to be found: a table, WHERE and a condition."""
Group: TypeAlias = Sequence[Source]
"""Sources that have everything between them."""


@frozen
class Span:
    """The revisions between two others, these not counted, upwards or downwards."""

    low: int
    high: int
    falling: bool = False

    @property
    def is_empty(self) -> bool:
        return self.high - self.low <= 1

    @property
    def order(self) -> str:
        """For ORDER BY."""
        return "rev DESC" if self.falling else "rev"

    @property
    def condition(self) -> Condition:
        return Condition("rev > ? AND rev < ?", (self.low, self.high))

    def beyond(self, rev: int) -> Span:
        """What comes after a revision."""
        return Span(self.low, rev, falling=True) if self.falling else Span(rev, self.high)

    def as_far_as(self, rev: int) -> Span:
        """What comes up to a revision, that one counted."""
        if self.falling:
            return Span(rev - 1, self.high, falling=True)
        return Span(self.low, rev + 1)

    def has(self, rev: int) -> bool:
        return self.low < rev < self.high

    def is_before(self, rev: int, other: int) -> bool:
        """Whether a revision comes before another in this order."""
        return rev > other if self.falling else rev < other

    def revs(self, above: int) -> Sequence[int]:
        """Its revisions above another, in its order."""
        revs = range(max(self.low, above) + 1, self.high)
        return revs[::-1] if self.falling else revs


@frozen
class Offer:
    """Revisions that an index offers, in the order of a span."""

    revs: Collection[int]
    end: int | None
    """As far as it they are all there are; None: to the end of the span."""


@define(eq=False)
class Candidates:
    """Asks on one connection, inside a transaction that others begin and end."""

    connection: sqlite3.Connection

    def offer(self, query: Query, span: Span, most: int) -> Offer:
        """Revisions that indexes offer: of each alternative those that the fewest have."""
        offers = [
            min(
                (self._offered(group, span, most) for group in groups),
                key=lambda offer: _cost(offer, span),
            )
            for groups in self._groups(query, most)
        ]
        return _merged(offers, span)

    def _groups(self, query: Query, most: int) -> list[list[Group]]:
        """Where versions that may match are, for each alternative: any of the groups will do."""
        if query.id:
            return [[[Source(_OF_ID_CURRENT if query.latest else _OF_ID, (query.id,))]]]
        of_current = list(self._groups_of_current(query, most)) if query.latest else []
        if not query.alternatives:
            return [of_current or [[Source(_CURRENT)]]]
        tables = ["current_labels"] if query.latest else ["labels"]
        if query.leaving:
            tables.append("left_labels")
        return [
            [*([_with(table, label) for table in tables] for label in labels.items()), *of_current]
            for labels in query.alternatives
        ]

    def _groups_of_current(self, query: Query, most: int) -> Iterator[Group]:
        """The same, of current versions, whatever their labels."""
        if query.id_prefix:
            few = min(most, FEW_IDS)
            prefix = {"prefix": query.id_prefix, "length": len(query.id_prefix), "most": few + 1}
            revs = [rev for (rev,) in self.connection.execute(_WITH_PREFIX, prefix)]
            if len(revs) <= few:
                yield [Source(_GIVEN, (json.dumps(revs),))]
        if query.statuses and Status.RUNNING not in query.statuses:
            yield [Source(_RESTING, (status.value,)) for status in query.statuses]

    def _offered(self, group: Group, span: Span, most: int) -> Offer:
        return _merged([self._revs(source, span, most) for source in group], span)

    def _revs(self, source: Source, span: Span, most: int) -> Offer:
        where = source & span.condition
        sql = f"SELECT rev FROM {where.sql} ORDER BY {span.order} LIMIT ?"
        revs = [rev for (rev,) in self.connection.execute(sql, (*where.values, most))]
        return Offer(revs, revs[-1] if len(revs) == most else None)


def are(revs: Collection[int]) -> Condition:
    """That a version is one of these."""
    return Condition("rev IN (SELECT value FROM json_each(?))", (json.dumps(list(revs)),))


def columns(query: Query) -> Condition:
    """What the columns can tell; the rest is decided by ``query.selects``."""
    where = _at(query, "status", "flow")
    if query.leaving and (query.statuses or query.flows):
        where |= _at(query, "coalesce(was_status, status)", "coalesce(was_flow, flow)")
    if query.latest and query.alternatives:
        where &= Condition(_HAS_LABELS, (_pairs(query.alternatives),))
    if query.id_prefix:
        prefix = query.id_prefix
        where &= Condition("substr(id, 1, ?) = ?", (len(prefix), prefix))
    return where


def _at(query: Query, status: str, flow: str) -> Condition:
    """That these are the status and the flow that are asked for."""
    where = ANY
    if query.statuses:
        where &= _in(status, [each.value for each in query.statuses])
    if query.flows:
        # it is not known of what could not be read already when it was migrated
        where &= _in(flow, query.flows) | Condition(f"{flow} IS NULL")
    return where


def _in(what: str, values: Collection[str]) -> Condition:
    return Condition(f"{what} IN ({','.join('?' * len(values))})", tuple(values))


def _pairs(alternatives: Collection[Mapping[str, str]]) -> str:
    """Labels as JSON: for each alternative an array of pairs."""
    return json.dumps([list(labels.items()) for labels in alternatives])


def _with(table: str, label: tuple[str, str]) -> Source:
    return Source(f"{table} WHERE key = ? AND value = ?", label)


def _cost(offer: Offer, span: Span) -> tuple[bool, int]:
    """What it costs to look at an offer: little if it is all there is and few; else the less, the
    further it goes."""
    if offer.end is None:
        return False, len(offer.revs)
    return True, offer.end if span.falling else -offer.end


def _merged(offers: Sequence[Offer], span: Span) -> Offer:
    """What several offer together, each revision once."""
    if len(offers) == 1:
        return offers[0]
    ends = [offer.end for offer in offers if offer.end is not None]
    end = (max if span.falling else min)(ends, default=None)
    if end is not None:
        span = span.as_far_as(end)
    merged = heapq.merge(*(offer.revs for offer in offers), reverse=span.falling)
    return Offer(dict.fromkeys(filter(span.has, merged)), end)


# ---------------------------------------------------------------- statements

_OF_ID = "versions WHERE id = ?"
_OF_ID_CURRENT = "versions WHERE rev = (SELECT max(rev) FROM versions WHERE id = ?)"
_CURRENT = "versions WHERE current = 1"
_RESTING = "versions WHERE current = 1 AND status <> 'running' AND status = ?"
_GIVEN = "(SELECT value AS rev FROM json_each(?)) WHERE 1"

_WITH_PREFIX = """
WITH RECURSIVE ids (id) AS (
    SELECT (SELECT id FROM versions WHERE id >= :prefix ORDER BY id LIMIT 1)
    UNION ALL
    SELECT (SELECT id FROM versions WHERE id > ids.id ORDER BY id LIMIT 1) FROM ids
    WHERE substr(ids.id, 1, :length) = :prefix LIMIT :most
)
SELECT (SELECT max(rev) FROM versions WHERE id = ids.id) FROM ids
WHERE substr(ids.id, 1, :length) = :prefix
"""
"""From one id to the next: a step of the index each, whatever versions there are."""

_HAS_LABELS = """
EXISTS (
    SELECT 1 FROM json_each(?) AS labels WHERE NOT EXISTS (
        SELECT 1 FROM json_each(labels.value) AS label WHERE NOT EXISTS (
            SELECT 1 FROM current_labels AS has WHERE has.key = CAST(label.value ->> 0 AS TEXT)
            AND has.value = CAST(label.value ->> 1 AS TEXT) AND has.rev = versions.rev
        )
    )
)
"""
