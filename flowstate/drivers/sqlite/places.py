"""Places: claiming what is ready, taking, renewing and releasing; what these ask the tables.

A fixed number of statements for each, for the reason that ``writer.py`` gives.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import define

from ...leases import Claimed, Held, Renewal
from ...query import Unreadable
from .rows import ROW

_Make: TypeAlias = Callable[[int, str, bytes, str | None], Claimed | Unreadable]


@define(eq=False)
class Places:
    """Works on one connection, inside a transaction that others begin and end."""

    connection: sqlite3.Connection
    claimed: _Make
    """Makes what is given of ``ROW`` and the policy."""

    def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        return self._held(owner, claim) or self._take(
            self._first(room, limit, now), owner, claim, now
        )

    def take(
        self, versions: Collection[tuple[str, int]], owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        if held := self._held(owner, claim):
            return held
        wanted = set(versions)
        rows = self._rows(_ARE_READY, json.dumps([rev for _, rev in versions]), now)
        return self._take([rev for id, rev in rows if (id, rev) in wanted], owner, claim, now)

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        current = self._current(held)
        moved: set[str] = set()
        lost: set[str] = set()
        revs: list[int] = []
        for id, rev, claim in held:
            taken_by = current.get((id, rev))
            if taken_by is None:
                moved.add(id)
            elif taken_by != (owner, claim):
                lost.add(id)
            else:
                revs.append(rev)
        if revs:
            self.connection.execute(_RENEW, {"now": now, "revs": json.dumps(revs)})
        return Renewal(frozenset(moved), frozenset(lost))

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        current = self._current(held)
        revs = [rev for id, rev, claim in held if current.get((id, rev)) == (owner, claim)]
        if revs:
            self.connection.execute(_RELEASE, (now, json.dumps(revs)))
            self.connection.execute(_COUNT_CHANGE)

    def end_leases(self, owner: str, now: int) -> None:
        ended = self.connection.execute(_END_LEASES, {"now": now, "owner": owner})
        if ended.rowcount:
            self.connection.execute(_COUNT_CHANGE)

    # ------------------------------------------------------------ inside

    def _first(self, room: Mapping[str, int], limit: int, now: int) -> list[int]:
        """The revisions to take, in the order in which they are given."""
        flows = [flow for (flow,) in self._rows(READY_FLOWS) if room.get(flow, 0) > 0]
        if not flows or limit <= 0:
            return []
        first = self._rows(_FIRST, now, json.dumps(flows), limit)
        # so many others of each flow that it can be all that there is room for
        others = limit - len(first)
        begin = [(flow, min(room[flow] - 1, others), since, rev) for flow, since, rev in first]
        following = self._rows(_FOLLOWING, json.dumps(begin), now, others) if others else []
        return [rev for _, _, rev in first] + [rev for (rev,) in following]

    def _take(
        self, revs: Sequence[int], owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        """Take what is ready."""
        if not revs:
            return ()
        values = {"owner": owner, "claim": claim, "now": now, "revs": json.dumps(revs)}
        taken = {row[0]: row for row in self.connection.execute(_TAKE, values)}
        return tuple([self.claimed(*taken[rev]) for rev in revs])

    def _held(self, owner: str, claim: str) -> tuple[Claimed | Unreadable, ...]:
        """What is taken by that claim."""
        return tuple([self.claimed(*row) for row in self._rows(_HELD, owner, claim)])

    def _current(self, held: Collection[Held]) -> dict[tuple[str, int], tuple[str | None, str]]:
        """The current versions among these: (id, rev) -> (owner, claim)."""
        rows = self._rows(_CURRENT, json.dumps([rev for _, rev, _ in held]))
        return {(id, rev): (owner, claim) for id, rev, owner, claim in rows}

    def _rows(self, sql: str, *parameters: Any) -> list[Any]:
        return self.connection.execute(sql, parameters).fetchall()


# ---------------------------------------------------------------- statements

IS_HELD = """
SELECT 1 FROM versions WHERE owner = ? AND claim = ? LIMIT 1
"""

READY_FLOWS = """
WITH RECURSIVE flows (flow) AS (
    SELECT (
        SELECT flow FROM versions WHERE since IS NOT NULL ORDER BY flow LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT flow FROM versions WHERE since IS NOT NULL AND flow > flows.flow
        ORDER BY flow LIMIT 1
    ) FROM flows WHERE flow IS NOT NULL
)
SELECT flow FROM flows WHERE flow IS NOT NULL
"""
"""From one flow to the next: a step of the index each, however much is ready."""

_HELD = f"""
SELECT {ROW}, policy FROM versions WHERE owner = ? AND claim = ? ORDER BY rev
"""

_ARE_READY = """
SELECT id, rev FROM versions WHERE rev IN (SELECT value FROM json_each(?))
AND since IS NOT NULL AND (alarm IS NULL OR alarm > ?) ORDER BY since, rev
"""

_FIRST = """
SELECT flow, since, rev FROM versions WHERE rev IN (
    SELECT (
        SELECT rev FROM versions WHERE flow = wanted.value AND since IS NOT NULL
        AND (alarm IS NULL OR alarm > ?) ORDER BY since, rev LIMIT 1
    ) FROM json_each(?) AS wanted
) ORDER BY since, rev LIMIT ?
"""
"""What is first in line of each flow."""

_FOLLOWING = """
WITH RECURSIVE line (place, flow, room, since, rev) AS (
    SELECT 1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)
    UNION ALL
    SELECT place + 1, next.flow, room - 1, next.since, next.rev
    FROM line CROSS JOIN versions AS next ON next.rev = (
        SELECT rev FROM versions WHERE flow = line.flow AND since IS NOT NULL
        AND (since, rev) > (line.since, line.rev) AND (alarm IS NULL OR alarm > ?)
        ORDER BY since, rev LIMIT 1
    ) WHERE room > 0
)
SELECT rev FROM line WHERE place > 1 ORDER BY since, rev LIMIT ?
"""
"""What follows in the line of each flow, as much of each as there is room for."""

_LEASE_ENDS = "iif(lease > 0, :now + lease, NULL)"
_LEASED = f"""
until = {_LEASE_ENDS},
due_at = coalesce(min(alarm, {_LEASE_ENDS}), alarm, {_LEASE_ENDS})
WHERE rev IN (SELECT value FROM json_each(:revs))
"""

_TAKE = f"""
UPDATE versions SET since = NULL, owner = :owner, claim = :claim, {_LEASED}
RETURNING {ROW}, policy
"""

_CURRENT = """
SELECT id, rev, owner, claim FROM versions
WHERE current = 1 AND rev IN (SELECT value FROM json_each(?))
"""

_RENEW = f"""
UPDATE versions SET {_LEASED}
"""

_RELEASE = """
UPDATE versions
SET since = ?, owner = NULL, claim = NULL, until = NULL, due_at = alarm
WHERE rev IN (SELECT value FROM json_each(?))
"""

_END_LEASES = """
UPDATE versions SET until = :now, due_at = coalesce(min(alarm, :now), :now)
WHERE owner = :owner AND until > :now
"""

_COUNT_CHANGE = """
UPDATE released SET count = count + 1
"""
