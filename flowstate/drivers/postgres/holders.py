"""Ending sessions of processes that hang while they hold what others who write wait for.

The server ends by itself one that is idle in its transaction. But it does not call idle one that
has sent half of a message, or that does not read what it is sent: a process that was stopped there,
or that lost its network, would hold the lock for as long as it stays so. Its transaction is rolled
back, and if it goes on after all, it finds its connection lost and asks what became of its commit.
"""

from __future__ import annotations

from typing import LiteralString

from .connection import Target
from .schema import key
from .session import Connection

HUNG = "8s"
"""How long a session that holds a lock may neither send a whole message nor take what it is sent:
as long as a message of 64 MiB takes at 8 MiB a second, and less than others wait for the lock."""

_END: LiteralString = """
SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
WHERE a.wait_event_type = 'Client' AND a.xact_start IS NOT NULL
AND greatest(a.query_start, a.state_change) < pg_catalog.clock_timestamp() - %(hung)s::interval
AND EXISTS (
    SELECT FROM pg_catalog.pg_locks l
    WHERE l.pid = a.pid AND l.granted AND l.database = a.datid AND (
        l.mode IN ('RowShareLock', 'RowExclusiveLock') AND l.relation IN (
            SELECT c.oid FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relname IN ('head', 'states'))
        OR l.locktype = 'advisory' AND l.objsubid = 1
        AND (l.classid::bigint << 32 | l.objid::bigint) = %(claims)s
    )
)
"""


def claims_key(target: Target) -> int:
    """The key of the lock that orders claims."""
    return key("flowstate claims", target.schema)


def end_hung(connection: Connection, target: Target) -> None:
    """End the sessions that hold a lock of those who write and wait for a client that hangs. The
    role needs the right to, which it has for sessions of its own. Raises ``psycopg.Error``."""
    given = {"hung": HUNG, "schema": target.schema, "claims": claims_key(target)}
    connection.execute(_END, given)
