"""What a query asks of the tables: the statements for pages, the newest version and counts, each
with the values that it needs. Nothing is executed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, LiteralString, TypeAlias

from ... import codec
from ...query import Query
from ...state import MAX_ID_BYTES, Status
from ..reader import MAX_SCAN, SCAN_PER_VERSION
from .arrays import BigInts, Documents, Texts
from .rows import resting
from .schema import key

Asked: TypeAlias = tuple[LiteralString, dict[str, Any]]
"""A statement or a part of one, and the values for it."""

MAX_REV = 2**63 - 1
FEW = 1_000
"""Current versions that are looked through one and all, though they may not be the newest."""
_LAST_REST = "\U0010ffff" * (MAX_ID_BYTES // 4 + 1)
"""Above whatever an id has after a prefix."""


# ---------------------------------------------------------------- what a query asks for


def _filters(query: Query, *, leaving: bool = False) -> Asked:
    """Everything that a version must be besides where it is looked for; *leaving*: also what its
    state leaves what matches with."""
    values: dict[str, Any] = {}
    conditions: list[Literal["labels", "status", "flow"]] = []
    if query.alternatives:
        conditions.append("labels")
        values["documents"] = Documents.of(map(codec.encode, query.alternatives))
    if query.statuses:
        conditions.append("status")
        values["statuses"] = _names(query.statuses)
    if query.flows:
        conditions.append("flow")
        values["flows"] = Texts.of(query.flows)
    filters: LiteralString = ""
    if conditions:
        matches: LiteralString = " AND ".join([_MATCHES[each] for each in conditions])
        matched: LiteralString = " AND ".join([_MATCHED[each] for each in conditions])
        filters = f" AND ({matches} OR {matched})" if leaving else " AND " + matches
    if query.id_prefix:
        filters += " AND left(v.id, length(%(prefix)s)) = %(prefix)s"
        values["prefix"] = query.id_prefix
    if query.since_ms:
        filters += " AND v.committed_at >= %(since)s"
        values["since"] = query.since_ms
    return filters, values


def page(query: Query, limit: int, newest_first: bool) -> Asked:  # noqa: FBT001
    """The statement for a page, and what it needs to know."""
    leaving = query.leaving and not query.latest
    filters, values = _filters(query, leaving=leaving)
    if query.id or query.alternatives or query.latest:
        lists, more = _lists(query, leaving=leaving)
        text = _PAGE_OF_CANDIDATES.replace("{lists}", lists)
        most = min(MAX_SCAN, limit if _is_exact(query) else SCAN_PER_VERSION * limit)
        values |= {**more, "most": most}
    else:
        text = _FILTERED_PAGE if filters else _PAGE
        values["most"] = MAX_SCAN
    text = text.replace("{filters}", filters)
    text = text.replace("{row}", _ROW_AND_BEFORE if leaving else _ROW)
    for mark, part in (_DOWN if newest_first else _UP).items():
        text = text.replace(mark, part)
    return text, values


def _lists(query: Query, *, leaving: bool) -> Asked:
    """The revisions that an index offers for a page."""
    if query.id:
        return _REVS_OF_ID_LATEST if query.latest else _REVS_OF_ID, {"id": query.id}
    lists: LiteralString = _REVS_LATEST
    values: dict[str, Any] = {}
    if query.alternatives:
        labelled = _CURRENT_WITH if query.latest else _WITH_OR_LOST if leaving else _WITH
        lists = _REVS_LABELLED.replace("{labelled}", labelled)
        rests = query.latest and _rests(query)
        lists = lists.replace("{others}", _OR_RESTING if rests else "")
        values |= _wanted(query)
    elif _rests(query):
        lists = _REVS_RESTING
    if query.latest and query.id_prefix:
        lists = _REVS_OF_FEW.replace("{few}", _FEW_PREFIXED).replace("{otherwise}", lists)
        values |= _few(query)
    return lists, values


def _is_exact(query: Query) -> bool:
    """Whether every candidate that the index offers matches, so that no more are needed than the
    page may hold."""
    if query.flows or query.id_prefix:
        return False  # no index has them
    if query.id:
        return not query.alternatives and not query.statuses  # the index is that by id
    if query.alternatives:  # the index is that by one label
        return not query.statuses and all(len(labels) == 1 for labels in query.alternatives)
    return not query.statuses or _rests(query)  # the index is that by status


def newest(query: Query) -> Asked:
    """The statement for the newest version, and what it needs to know."""
    filters, values = _filters(query)
    few: LiteralString = _FEW_PREFIXED if query.id_prefix else ""
    text: LiteralString = _FIND
    if query.id:
        few, text = "", _FIND_ID
        values["id"] = query.id
    elif query.alternatives:
        few, text = few or (_FEW_RESTING if _rests(query) else ""), _FIND_LABELLED
        values |= _wanted(query)
    elif _rests(query):
        text = _FIND_RESTING
    if few:
        text = _FIND_AMONG_FEW.replace("{few}", few).replace("{otherwise}", text)
        values |= _few(query)
    return text.replace("{filters}", filters), values


def count(query: Query, by: Literal["status", "flow"]) -> Asked:
    """The statement that counts, and what it needs to know."""
    filters, values = _filters(query)
    revs: LiteralString = _ALL
    if query.id:
        revs = _OF_ID
        values["id"] = query.id
    elif query.alternatives:
        revs = _LABELLED
        values |= _wanted(query)
    elif query.id_prefix:
        revs = _PREFIXED
        values |= _few(query)
    elif _rests(query):
        revs = _RESTING
    text = _COUNT.replace("{by}", _COUNTED[by]).replace("{revs}", revs)
    return text.replace("{filters}", filters), values


def _rests(query: Query) -> bool:
    """Whether only states are asked for that ``states_resting`` has."""
    return bool(query.statuses) and None not in map(resting, query.statuses)


def _wanted(query: Query) -> Mapping[str, Any]:
    """The labels of each alternative."""
    pairs = [
        (number, key(name, value))
        for number, labels in enumerate(query.alternatives)
        for name, value in labels.items()
    ]
    return {
        "numbers": BigInts.of(number for number, _ in pairs),
        "keys": BigInts.of(label for _, label in pairs),
    }


def _few(query: Query) -> Mapping[str, Any]:
    """The ids with a prefix as a range, and how many are few."""
    return {"prefix": query.id_prefix, "prefix_end": query.id_prefix + _LAST_REST, "few": FEW}


def _names(statuses: Iterable[Status]) -> Texts:
    return Texts.of(status.value for status in statuses)


# ---------------------------------------------------------------- statements

_MATCHES: Mapping[Literal["labels", "status", "flow"], LiteralString] = {
    "labels": "(v.labels @> ANY(%(documents)s) OR v.labels = 'null')",
    "status": "v.status = ANY(%(statuses)s)",
    "flow": "(v.flow = ANY(%(flows)s) OR v.flow IS NULL)",
}
"""Conditions on a version. Of what certainly cannot be read, nobody can tell whether it matches."""

_MATCHED: Mapping[Literal["labels", "status", "flow"], LiteralString] = {
    "labels": "coalesce(v.was_labels, v.labels) @> ANY(%(documents)s)",
    "status": "coalesce(v.was_status, v.status) = ANY(%(statuses)s)",
    "flow": "coalesce(v.was_flow, v.flow) = ANY(%(flows)s)",
}
"""The same of what its state was before."""

_ROW: LiteralString = "v.rev, v.id, v.state::text"
_ROW_AND_BEFORE: LiteralString = _ROW + ", v.was_labels::text, v.was_status, v.was_flow"

_PAGE: LiteralString = """
SELECT {end}, h.compacted, h.compacted_at, {row}
FROM {s}.head h LEFT JOIN LATERAL (
    SELECT v.* FROM {s}.versions v
    WHERE v.rev BETWEEN %(low)s AND %(high)s AND v.rev <= h.rev
    ORDER BY v.rev{order} LIMIT %(limit)s
) v ON true ORDER BY v.rev{order}
"""

_FILTERED_PAGE: LiteralString = """
WITH bound AS MATERIALIZED (
    SELECT h.compacted, h.compacted_at, {looked} AS upto FROM {s}.head h
)
SELECT b.upto, b.compacted, b.compacted_at, {row}
FROM bound b LEFT JOIN LATERAL (
    SELECT v.* FROM {s}.versions v WHERE {within}{filters}
    ORDER BY v.rev{order} LIMIT %(limit)s
) v ON true ORDER BY v.rev{order}
"""
"""Looks at ``most`` versions. They are counted only up to where some were removed: above that,
every revision has its version. No condition on ids is written as one that an index might serve, for
then the planner may look at all versions that meet it."""

_PAGE_OF_CANDIDATES: LiteralString = """
WITH lists AS MATERIALIZED ({lists}),
bound AS MATERIALIZED (
    SELECT h.compacted, h.compacted_at, {offered} AS upto FROM {s}.head h
)
SELECT b.upto, b.compacted, b.compacted_at, {row}
FROM bound b LEFT JOIN LATERAL (
    SELECT v.*
    FROM (
        SELECT DISTINCT r.rev FROM lists, unnest(revs) AS r(rev) WHERE r.rev {beside} b.upto
        ORDER BY r.rev{order}
    ) c CROSS JOIN LATERAL (SELECT v.* FROM {s}.versions v WHERE v.rev = c.rev{filters}) v
    ORDER BY v.rev{order} LIMIT %(limit)s
) v ON true ORDER BY v.rev{order}
"""
"""``lists`` holds arrays of revisions between ``low`` and ``high``, in the order of the page, at
most ``most`` of them each: of one that is full, more may follow."""

_UP: Mapping[LiteralString, LiteralString] = {
    "{order}": "",
    "{further}": " DESC",
    "{end}": "h.rev",
    "{looked}": """least(h.rev, CASE
        WHEN %(low)s > h.compacted THEN least(%(low)s - 1, h.rev) + %(most)s
        ELSE (
            SELECT v.rev FROM {s}.versions v WHERE v.rev >= %(low)s
            ORDER BY v.rev OFFSET %(most)s - 1 LIMIT 1
        )
    END)""",
    "{within}": "v.rev BETWEEN %(low)s AND b.upto",
    "{offered}": """least(h.rev, (
        SELECT min(revs[cardinality(revs)]) FROM lists WHERE cardinality(revs) = %(most)s
    ))""",
    "{beside}": "<=",
}
"""The parts of a page's statement in revision order."""

_DOWN: Mapping[LiteralString, LiteralString] = {
    "{order}": " DESC",
    "{further}": "",
    "{end}": "1::bigint",
    "{looked}": """(
        SELECT CASE WHEN d.rev > %(low)s THEN d.rev ELSE 1 END FROM (SELECT CASE
            WHEN least(%(high)s, h.rev) - %(most)s >= h.compacted
            THEN least(%(high)s, h.rev) - %(most)s + 1
            ELSE (
                SELECT v.rev FROM {s}.versions v WHERE v.rev <= %(high)s
                ORDER BY v.rev DESC OFFSET %(most)s - 1 LIMIT 1
            )
        END AS rev) d
    )""",
    "{within}": "v.rev BETWEEN greatest(%(low)s, b.upto) AND %(high)s",
    "{offered}": """coalesce((
        SELECT max(revs[cardinality(revs)]) FROM lists WHERE cardinality(revs) = %(most)s
    ), 1)""",
    "{beside}": ">=",
}
"""The same, the newest first."""

_REVS_OF_ID: LiteralString = """SELECT array(
    SELECT v.rev FROM {s}.versions v WHERE v.id = %(id)s AND v.rev BETWEEN %(low)s AND %(high)s
    ORDER BY v.rev{order} LIMIT %(most)s
) AS revs"""

_REVS_OF_ID_LATEST: LiteralString = """SELECT array(
    SELECT s.rev FROM {s}.states s WHERE s.id = %(id)s AND s.rev BETWEEN %(low)s AND %(high)s
) AS revs"""

_REVS_LATEST: LiteralString = """SELECT array(
    SELECT s.rev FROM {s}.states s WHERE s.rev BETWEEN %(low)s AND %(high)s
    ORDER BY s.rev{order} LIMIT %(most)s
) AS revs"""

_REVS_RESTING: LiteralString = """SELECT array(
    SELECT s.rev FROM {s}.states s WHERE s.resting = r.status
    AND s.rev BETWEEN %(low)s AND %(high)s ORDER BY s.rev{order} LIMIT %(most)s
) AS revs FROM unnest(%(statuses)s) AS r(status)"""

_REVS_LABELLED: LiteralString = """
SELECT DISTINCT ON (l.number) l.number, l.revs FROM (
    SELECT w.number, array({labelled} ORDER BY rev{order} LIMIT %(most)s) AS revs
    FROM unnest(%(numbers)s, %(keys)s) AS w(number, key){others}
) l ORDER BY l.number, cardinality(l.revs), l.revs[cardinality(l.revs)]{further}"""
"""For each alternative the revisions with whichever of its labels the fewest have; of two that have
as many as were asked for, the one that gets further."""

_WITH: LiteralString = """
        SELECT l.rev FROM {s}.labels l WHERE l.key = w.key AND l.rev BETWEEN %(low)s AND %(high)s"""

_CURRENT_WITH: LiteralString = _WITH.replace("{s}.labels", "{s}.current_labels")

_WITH_OR_LOST: LiteralString = (
    "(" + _WITH + " ORDER BY l.rev{order} LIMIT %(most)s) UNION ALL ("
    + _WITH.replace("{s}.labels", "{s}.left_labels") + " ORDER BY l.rev{order} LIMIT %(most)s)"
)  # fmt: skip

_OR_RESTING: LiteralString = (
    """
    UNION ALL SELECT n.number, o.revs FROM (SELECT DISTINCT unnest(%(numbers)s) AS number) n
    CROSS JOIN (SELECT array(
        SELECT r.rev FROM ("""
    + _REVS_RESTING
    + """) l, unnest(l.revs) AS r(rev) ORDER BY r.rev{order} LIMIT %(most)s
    ) AS revs) o"""
)
"""Or what rests in the statuses that are asked for, if fewer do."""

_REVS_OF_FEW: LiteralString = """
WITH few AS MATERIALIZED ({few})
SELECT array(
    SELECT f.rev FROM few f WHERE f.rev BETWEEN %(low)s AND %(high)s ORDER BY f.rev{order}
) AS revs WHERE (SELECT count(*) FROM few) <= %(few)s
UNION ALL SELECT o.revs FROM ({otherwise}) o WHERE (SELECT count(*) FROM few) > %(few)s"""
"""Whatever they are, if they are few, else what an index of another kind offers."""

_FEW_PREFIXED: LiteralString = """
SELECT s.rev FROM {s}.states s WHERE s.id BETWEEN %(prefix)s AND %(prefix_end)s
ORDER BY s.id LIMIT %(few)s + 1"""

_FEW_RESTING: LiteralString = """
SELECT s.rev FROM unnest(%(statuses)s) AS r(status) CROSS JOIN LATERAL (
    SELECT s.rev FROM {s}.states s WHERE s.resting = r.status ORDER BY s.rev LIMIT %(few)s + 1
) s LIMIT %(few)s + 1"""

_FIND_ID: LiteralString = """
SELECT v.rev, v.id, v.state::text FROM {s}.states s CROSS JOIN LATERAL (
    SELECT v.* FROM {s}.versions v WHERE v.rev = s.rev{filters}
) v WHERE s.id = %(id)s
"""

_FIND: LiteralString = """
SELECT v.rev, v.id, v.state::text FROM {s}.states s CROSS JOIN LATERAL (
    SELECT v.* FROM {s}.versions v WHERE v.rev = s.rev{filters}
) v ORDER BY s.rev DESC LIMIT 1
"""

_FIND_RESTING: LiteralString = """
SELECT f.rev, f.id, f.state::text FROM unnest(%(statuses)s) AS r(status) CROSS JOIN LATERAL (
    SELECT v.* FROM {s}.states s CROSS JOIN LATERAL (
        SELECT v.* FROM {s}.versions v WHERE v.rev = s.rev{filters}
    ) v WHERE s.resting = r.status ORDER BY s.rev DESC LIMIT 1
) f ORDER BY f.rev DESC LIMIT 1
"""

_FIND_AMONG_FEW: LiteralString = """
WITH few AS MATERIALIZED ({few})
SELECT n.rev, n.id, n.state::text FROM (
    SELECT v.* FROM (SELECT f.rev FROM few f ORDER BY f.rev DESC) f CROSS JOIN LATERAL (
        SELECT v.* FROM {s}.versions v WHERE v.rev = f.rev{filters}
    ) v WHERE (SELECT count(*) FROM few) <= %(few)s ORDER BY f.rev DESC LIMIT 1
) n
UNION ALL SELECT o.* FROM ({otherwise}) o WHERE (SELECT count(*) FROM few) > %(few)s
"""

_RAREST: LiteralString = """
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
"""
"""For each alternative whichever of its labels the fewest current versions have. Counts no further
than it must."""

_FIND_LABELLED: LiteralString = (
    _RAREST
    + """
SELECT f.rev, f.id, f.state::text FROM rarest r CROSS JOIN LATERAL (
    SELECT v.* FROM {s}.current_labels l CROSS JOIN LATERAL (
        SELECT v.* FROM {s}.versions v WHERE v.rev = l.rev{filters}
    ) v WHERE l.key = r.key ORDER BY l.rev DESC LIMIT 1
) f ORDER BY f.rev DESC LIMIT 1
"""
)

_COUNT: LiteralString = """
SELECT {by}, count(*) FROM ({revs}) c CROSS JOIN LATERAL (
    SELECT v.* FROM {s}.versions v WHERE v.rev = c.rev{filters} OFFSET 0
) v GROUP BY 1
"""
"""OFFSET 0 keeps the planner from going through all versions first."""

_COUNTED: Mapping[Literal["status", "flow"], LiteralString] = {
    "status": "v.status",
    "flow": "coalesce(v.flow, '')",
}

_ALL: LiteralString = "SELECT s.rev FROM {s}.states s"

_OF_ID: LiteralString = _ALL + " WHERE s.id = %(id)s"

_PREFIXED: LiteralString = _ALL + " WHERE s.id BETWEEN %(prefix)s AND %(prefix_end)s"

_RESTING: LiteralString = """
SELECT s.rev FROM unnest(%(statuses)s) AS r(status) CROSS JOIN LATERAL (
    SELECT s.rev FROM {s}.states s WHERE s.resting = r.status ORDER BY s.rev
) s"""

_LABELLED: LiteralString = (
    _RAREST
    + """
SELECT DISTINCT l.rev FROM rarest r CROSS JOIN LATERAL (
    SELECT l.rev FROM {s}.current_labels l WHERE l.key = r.key ORDER BY l.rev
) l"""
)

REV_BEFORE: LiteralString = """
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
