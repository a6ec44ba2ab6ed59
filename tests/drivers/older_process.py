"""A process of flowstate 0.1, as far as a store can tell: it sends the statements that 0.1 sends.

``python -m tests.drivers.older_process URL`` commits a state, renews its lease and compacts, over
and over, as fast as it can, and prints a line of JSON for each: what it did, to which revision, and
the error if there was one. Like 0.1 it goes on after an error; once everything was refused
``REFUSALS`` times, it ends.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import closing
from typing import Any

from attrs import define, field

ID = "of-0.1"
REFUSALS = 5


@define(eq=False)
class Writer(ABC):
    """What it has written."""

    revs: list[int] = field(factory=list[int], init=False)
    """Of what is stored, the newest last."""

    @abstractmethod
    def begin(self) -> int:
        """Begin a transaction, and give the head."""

    @abstractmethod
    def insert(self, rev: int, superseded: int) -> None: ...

    @abstractmethod
    def move(self, rev: int, until: int) -> None: ...

    @abstractmethod
    def remove(self, rev: int) -> None: ...

    @abstractmethod
    def finish(self, how: str) -> None:
        """COMMIT or ROLLBACK."""

    def commit(self) -> int:
        rev = self.begin() + 1
        self.insert(rev, self.revs[-1] if self.revs else 0)
        self.finish("COMMIT")
        self.revs.append(rev)
        return rev

    def renew(self) -> int:
        self.begin()
        self.move(self.revs[-1], now() + 30_000)
        self.finish("COMMIT")
        return self.revs[-1]

    def compact(self) -> int:
        self.begin()
        self.remove(self.revs[0])
        self.finish("COMMIT")
        return self.revs.pop(0)


def now() -> int:
    return time.time_ns() // 1_000_000


def state(rev: int) -> str:
    transition = {"to": "work", "status": "running"}
    return json.dumps({"id": ID, "rev": rev, "transition": transition, "committed_at": now()})


@define(eq=False)
class SQLite(Writer):
    connection: sqlite3.Connection

    def begin(self) -> int:
        self.connection.execute("BEGIN IMMEDIATE")
        newest = self.connection.execute(
            "SELECT rev, committed_at FROM versions ORDER BY rev DESC LIMIT 1"
        ).fetchone()
        return newest[0] if newest else 0

    def insert(self, rev: int, superseded: int) -> None:
        if superseded:
            self.connection.execute(
                "UPDATE versions SET current = 0, due = NULL, due_flow = NULL "
                "WHERE rev IN (SELECT value FROM json_each(?))",
                (json.dumps([superseded]),),
            )
        due = now() + 30_000
        row = (rev, ID, "running", None, now(), f"{ID}-{rev}", 1, due, "work", state(rev), None)
        self.connection.execute("INSERT INTO versions VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)

    def move(self, rev: int, until: int) -> None:
        self.connection.execute(
            "SELECT id, rev FROM versions "
            "WHERE current = 1 AND rev IN (SELECT value FROM json_each(?))",
            (json.dumps([rev]),),
        ).fetchall()
        self.connection.execute(
            "UPDATE versions SET due = ? "
            "WHERE due IS NOT NULL AND rev IN (SELECT value FROM json_each(?))",
            (until, json.dumps([rev])),
        )

    def remove(self, rev: int) -> None:
        self.connection.execute(
            "SELECT rev, id, committed_at, length(CAST(state AS BLOB)), labels, payloads "
            "FROM versions WHERE rev > ? ORDER BY rev LIMIT ?",
            (rev - 1, 1),
        ).fetchall()
        self.connection.execute(
            "DELETE FROM versions "
            "WHERE (rev) IN (SELECT CAST(value ->> 0 AS INTEGER) FROM json_each(?))",
            (json.dumps([[rev]]),),
        )
        self.connection.execute(
            "UPDATE compacted SET rev = ?, committed_at = ? WHERE rev < ?", (rev, now(), rev)
        )

    def finish(self, how: str) -> None:
        self.connection.rollback() if how == "ROLLBACK" else self.connection.execute(how)


@define(eq=False)
class Postgres(Writer):
    connection: Any
    schema: str

    def begin(self) -> int:
        self._do("BEGIN ISOLATION LEVEL READ COMMITTED")
        self._do("SELECT pg_catalog.set_config('lock_timeout', '10s', true)")
        self._do("SELECT FROM {s}.head FOR UPDATE")
        ((head, *_),) = self._do(
            "SELECT h.rev, h.committed_at, s.id, s.rev, s.label_keys "
            "FROM {s}.head h LEFT JOIN {s}.states s ON s.id = ANY(%s)",
            [ID],
        ).fetchall()
        return int(head)

    def insert(self, rev: int, superseded: int) -> None:  # noqa: ARG002
        text = state(rev)
        self._do(
            "INSERT INTO {s}.versions (rev, id, status, committed_at, commit_id, size, state) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb)",
            *(rev, ID, "running", now(), f"{ID}-{rev}", len(text), text),
        )
        self._do(
            "INSERT INTO {s}.states (id, rev, due, due_key, due_flow, label_keys) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET rev = excluded.rev, "
            "due = excluded.due, due_key = excluded.due_key, due_flow = excluded.due_flow, "
            "label_keys = excluded.label_keys",
            *(ID, rev, now() + 30_000, -5421042622185147307, "work", None),
        )
        self._do("UPDATE {s}.head SET rev = %s, committed_at = %s", rev, now())

    def move(self, rev: int, until: int) -> None:
        self._do(
            "WITH moved AS (UPDATE {s}.states s SET due = %s "
            "FROM (SELECT o.id, o.rev, o.due FROM unnest(%s::text[], %s::bigint[]) AS l(id, rev) "
            "JOIN {s}.states o ON o.id = l.id AND o.rev = l.rev WHERE o.due IS NOT NULL) o "
            "WHERE s.id = o.id AND s.rev = o.rev RETURNING o.due > s.due AS is_nearer) "
            "UPDATE {s}.head SET hints = hints + 1 WHERE (SELECT bool_or(is_nearer) FROM moved)",
            *(until, [ID], [rev]),
        )

    def remove(self, rev: int) -> None:
        self._do("SELECT batches FROM {s}.head").fetchall()
        self._do(
            "DELETE FROM {s}.versions v USING unnest(%s::bigint[]) AS g(rev) WHERE v.rev = g.rev",
            [rev],
        )
        self._do(
            "UPDATE {s}.head SET batches = batches + 1, "
            "compacted = greatest(compacted, %s), compacted_at = greatest(compacted_at, %s)",
            *(rev, now()),
        )

    def finish(self, how: str) -> None:
        self._do(how)

    def _do(self, text: str, *parameters: object) -> Any:
        return self.connection.execute(text.replace("{s}", self.schema).encode(), parameters)


def work(writer: Writer, failures: type[Exception]) -> None:
    writer.commit()
    refused: Counter[str] = Counter()
    while len(refused) < 3 or min(refused.values()) < REFUSALS:
        for write in (writer.commit, writer.renew, writer.compact):
            line: dict[str, object] = {"did": write.__name__}
            try:
                line["rev"] = write()
            except failures as error:
                writer.finish("ROLLBACK")
                refused[write.__name__] += 1
                line["error"] = str(error)
            sys.stdout.write(f"{json.dumps(line)}\n")
            sys.stdout.flush()


def main(url: str) -> None:
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            work(SQLite(connection), sqlite3.Error)
    else:
        import psycopg  # noqa: PLC0415  (the other tests do without it)

        from ..postgres import target  # noqa: PLC0415  (likewise)

        with closing(target(url).connect()) as ours:
            work(Postgres(ours, target(url).schema), psycopg.Error)


if __name__ == "__main__":
    main(sys.argv[1])
