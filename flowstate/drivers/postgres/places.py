"""Statements about places: what is ready, what is taken, what is due.

Claims exclude each other by a lock of their own, so that what is first in line is given first; they
lock rows only as far as nobody else has, so they never wait for who commits. Who renews or releases
has locked the head row, like who commits. So nobody who has locked a row waits for another.

``hashtextextended`` is what flows, owners and claims are indexed by, which may be long. Of two
flows with the same hash of 64 bits, the second is not seen until nothing is ready for the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from ... import codec

READY_FLOWS: LiteralString = """
ready AS (
    (SELECT hashtextextended(s.flow, 0) AS key, s.flow, s.since FROM {s}.states s
    WHERE s.since IS NOT NULL ORDER BY hashtextextended(s.flow, 0), s.since LIMIT 1)
    UNION ALL SELECT n.* FROM ready r CROSS JOIN LATERAL (
        SELECT hashtextextended(s.flow, 0), s.flow, s.since FROM {s}.states s
        WHERE s.since IS NOT NULL AND hashtextextended(s.flow, 0) > r.key
        ORDER BY hashtextextended(s.flow, 0), s.since LIMIT 1
    ) n
)
"""
"""The flows that something is ready for, each with since when: from one to the next, a step of the
index each, however much is ready."""

_IN_LINE: LiteralString = """
s.since IS NOT NULL AND hashtextextended(s.flow, 0) = r.key AND s.flow = r.flow
AND (s.alarm IS NULL OR s.alarm > %(now)s)
"""
"""What is ready for a flow r, without what is due."""

_HELD: LiteralString = """
held AS MATERIALIZED (
    SELECT a.number, s.rev, s.policy FROM asked a CROSS JOIN LATERAL (
        SELECT s.rev, s.policy FROM {s}.states s WHERE s.owner IS NOT NULL
        AND hashtextextended(s.owner, 0) = hashtextextended(a.owner, 0)
        AND hashtextextended(s.claim, 0) = hashtextextended(a.claim, 0)
        AND s.owner = a.owner AND s.claim = a.claim
    ) s
)
"""
"""What is taken by the claims that are ``asked``."""

_ONE: LiteralString = """
asked AS MATERIALIZED (
    SELECT 0 AS number, %(owner)s AS owner, %(claim)s AS claim, %(now)s AS now
), """

MAY_CLAIM: LiteralString = (
    "WITH RECURSIVE room AS MATERIALIZED (SELECT %(room)s::jsonb AS of), "
    + _ONE
    + _HELD
    + ", "
    + READY_FLOWS
    + "SELECT EXISTS (SELECT FROM held) OR EXISTS ("
    + "SELECT FROM ready r CROSS JOIN LATERAL (SELECT FROM {s}.states s WHERE "
    + _IN_LINE
    + "ORDER BY s.since, s.rev LIMIT 1) s WHERE ((SELECT of FROM room) -> r.flow)::bigint > 0)"
)

_TAKING: LiteralString = """
, locked AS MATERIALIZED (
    SELECT c.*, s.policy FROM chosen c CROSS JOIN LATERAL (
        SELECT s.policy FROM {s}.states s
        WHERE s.id = c.id AND s.rev = c.rev AND s.since IS NOT NULL
        AND (s.alarm IS NULL OR s.alarm > c.now) AND (SELECT version FROM {s}.meta) = %(known)s
        FOR UPDATE OF s SKIP LOCKED
    ) s WHERE NOT EXISTS (SELECT FROM held h WHERE h.number = c.number)
), taken AS (
    UPDATE {s}.states s SET since = NULL, owner = l.owner, claim = l.claim,
        until = CASE WHEN s.lease > 0 THEN l.now + s.lease END
    FROM locked l WHERE s.id = l.id RETURNING s.rev
), given AS (
    SELECT number, place, rev, policy FROM locked
    UNION ALL SELECT number, 0, rev, policy FROM held
)
SELECT g.number, g.rev, v.id, v.state::text, g.policy
FROM given g JOIN {s}.versions v ON v.rev = g.rev ORDER BY g.place, g.rev
"""
"""Takes what is ``chosen`` for each claim, as far as nobody else does; if something is taken by
that claim already, gives that."""

CLAIM: LiteralString = (
    "WITH RECURSIVE room AS MATERIALIZED (SELECT %(room)s::jsonb AS of), "
    + _ONE
    + _HELD
    + ", "
    + READY_FLOWS
    + """, first AS MATERIALIZED (
    SELECT r.key, r.flow, r.most, s.* FROM (
        SELECT r.key, r.flow, ((SELECT of FROM room) -> r.flow)::bigint AS most FROM ready r
    ) r CROSS JOIN LATERAL (SELECT s.id, s.rev, s.since FROM {s}.states s WHERE """
    + _IN_LINE
    + """ORDER BY s.since, s.rev LIMIT 1) s WHERE r.most > 0
), others AS MATERIALIZED (
    SELECT s.* FROM first r CROSS JOIN LATERAL (
        SELECT s.id, s.rev, s.since FROM {s}.states s WHERE """
    + _IN_LINE
    + """AND (s.since, s.rev) > (r.since, r.rev) ORDER BY s.since, s.rev
        LIMIT greatest(0, least(r.most - 1, %(limit)s - (SELECT count(*) FROM first)))
    ) s
), chosen AS MATERIALIZED (
    SELECT a.*, c.id, c.rev, row_number() OVER (ORDER BY c.turn, c.since, c.rev) AS place
    FROM asked a CROSS JOIN (
        SELECT 1 AS turn, id, rev, since FROM first UNION ALL SELECT 2, id, rev, since FROM others
    ) c ORDER BY c.turn, c.since, c.rev LIMIT %(limit)s
)"""
    + _TAKING
)
"""Of each flow no more is read than may be given once each has given its first."""

TAKE: LiteralString = (
    """WITH asked AS MATERIALIZED (
    SELECT a.* FROM unnest(%(asking)s, %(by)s) WITH ORDINALITY AS a(owner, claim, number)
), each AS MATERIALIZED (
    SELECT * FROM unnest(
        %(numbers)s, %(owners)s, %(claims)s, %(nows)s, %(ids)s, %(revs)s
    ) AS e(number, owner, claim, now, id, rev)
), """
    + _HELD
    + """, chosen AS MATERIALIZED (
    SELECT DISTINCT ON (id, rev) e.*, 0 AS place FROM each e
    WHERE NOT EXISTS (SELECT FROM held h WHERE h.number = e.number) ORDER BY id, rev, number
)"""
    + _TAKING
)
"""Several claims at once, numbered from 1; what several name is given to the first."""

HELD: LiteralString = """
SELECT h.id, coalesce(s.rev = h.rev, false),
    coalesce(s.rev = h.rev AND s.owner = %(owner)s AND s.claim = h.claim, false)
FROM unnest(%(ids)s, %(revs)s, %(claims)s) AS h(id, rev, claim)
LEFT JOIN {s}.states s ON s.id = h.id
"""

_OF_HELD: LiteralString = """
FROM unnest(%(ids)s, %(revs)s, %(claims)s) AS h(id, rev, claim)
WHERE s.id = h.id AND s.rev = h.rev AND s.owner = %(owner)s AND s.claim = h.claim
AND (SELECT version FROM {s}.meta) = %(known)s
"""

RENEW: LiteralString = (
    "UPDATE {s}.states s SET until = CASE WHEN s.lease > 0 THEN %(now)s + s.lease END" + _OF_HELD
)

RELEASE: LiteralString = (
    """WITH released AS (
    UPDATE {s}.states s SET since = %(now)s, owner = NULL, claim = NULL, until = NULL"""
    + _OF_HELD
    + """RETURNING s.rev
) UPDATE {s}.head SET hints = hints + 1 WHERE EXISTS (SELECT FROM released)
"""
)

DUE: LiteralString = """
WITH due AS MATERIALIZED (
    SELECT least(s.alarm, s.until) AS at, s.rev, s.policy FROM {s}.states s
    WHERE least(s.alarm, s.until) IS NOT NULL AND least(s.alarm, s.until) <= %(until)s
    ORDER BY least(s.alarm, s.until), s.rev LIMIT %(most)s
), following AS (
    SELECT least(s.alarm, s.until) AS at FROM {s}.states s
    WHERE least(s.alarm, s.until) IS NOT NULL AND least(s.alarm, s.until) > %(until)s
    ORDER BY least(s.alarm, s.until) LIMIT 1
)
SELECT d.at, v.rev, v.id, v.state::text, d.policy FROM due d JOIN {s}.versions v ON v.rev = d.rev
UNION ALL SELECT at, NULL, NULL, NULL, NULL FROM following
ORDER BY 1, 2
"""
"""What is due, and without a revision the soonest of what is not yet."""

TAKEN: LiteralString = """
SELECT s.id, s.rev, s.flow, s.owner, s.claim, s.until FROM {s}.states s
WHERE s.owner IS NOT NULL ORDER BY hashtextextended(s.owner, 0)
"""

TAKEN_BY: LiteralString = """
SELECT s.id, s.rev, s.flow, s.owner, s.claim, s.until FROM {s}.states s
WHERE s.owner IS NOT NULL AND hashtextextended(s.owner, 0) = hashtextextended(%(owner)s, 0)
AND s.owner = %(owner)s
"""

OWNERS: LiteralString = """
WITH RECURSIVE owners (place, owner) AS (
    (SELECT hashtextextended(s.owner, 0), s.owner FROM {s}.states s WHERE s.owner IS NOT NULL
    ORDER BY hashtextextended(s.owner, 0) LIMIT 1)
    UNION ALL
    SELECT n.place, n.owner FROM owners o CROSS JOIN LATERAL (
        SELECT hashtextextended(s.owner, 0) AS place, s.owner FROM {s}.states s
        WHERE s.owner IS NOT NULL AND hashtextextended(s.owner, 0) > o.place
        ORDER BY hashtextextended(s.owner, 0) LIMIT 1
    ) n
)
SELECT owner FROM owners
"""
"""From one owner to the next: a step of the index each, however much they have taken."""

PRESENT: LiteralString = """
SELECT k.key FROM unnest(%(keys)s) AS k(key) WHERE EXISTS (
    SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted
    AND l.database = (
        SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
    )
    AND l.objsubid = 1 AND l.classid::bigint = (k.key >> 32) & 4294967295
    AND l.objid::bigint = k.key & 4294967295
)
"""
"""Which of the locks of sessions are held."""

END_LEASES: LiteralString = """
WITH ended AS (
    UPDATE {s}.states s SET until = %(now)s
    WHERE s.owner IS NOT NULL AND hashtextextended(s.owner, 0) = hashtextextended(%(owner)s, 0)
    AND s.owner = %(owner)s AND s.until > %(now)s
    AND (SELECT version FROM {s}.meta) = %(known)s
    RETURNING s.rev
) UPDATE {s}.head SET hints = hints + 1 WHERE EXISTS (SELECT FROM ended)
"""

PLACE: LiteralString = """
SELECT s.since, s.owner, s.claim, s.until FROM {s}.states s
WHERE s.id = %(id)s AND (s.since IS NOT NULL OR s.owner IS NOT NULL)
"""

LINE: LiteralString = "WITH RECURSIVE " + READY_FLOWS + "SELECT flow, since FROM ready"


def json_object(room: Mapping[str, int]) -> str:
    """What is looked up in for each flow, however many there are."""
    return codec.encode(room).decode()
