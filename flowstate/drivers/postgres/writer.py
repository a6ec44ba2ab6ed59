"""Writing plans: a group of them in one transaction, in two round trips.

The first locks the head row and asks what is stored; the second writes and commits. Whoever holds
the head row is the only one who writes, so there is one order of everything and no deadlock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, LiteralString, TypeVar

import psycopg
from attrs import define, field

from ...clock import Clock
from ...errors import (
    StoreBusyError,
    StoreReadOnlyError,
    StoreUnreachableError,
    UnknownOutcomeError,
)
from ...plan import Plan
from ...retention import Compaction
from ...state import State
from ..group import Outcome
from ..plans import Group, Latest, wanted_ids
from .arrays import BigInts, Texts
from .compactor import Removal
from .connection import BY_INDEX, Connection, Target, pauses
from .errors import AGAIN, is_lost, translate
from .rows import Keys, statements

T = TypeVar("T")

LOCK_TIMEOUT = "10s"
"""How long to wait for others who commit."""
IDLE_TIMEOUT = "5s"
"""How long a process that hangs in the middle of a commit holds up the others."""
ANNOUNCE_EVERY_S = 0.005
"""While there is more to write, others are told of it no more often."""

_ALIKE = (StoreUnreachableError, StoreReadOnlyError, StoreBusyError)
"""What fails for one plan as for many."""


@define(eq=False)
class _Attempt:
    """One try to write a group: how far it came."""

    outcomes: list[Outcome] = field(factory=list[Outcome])
    """What was decided, once the writing was sent: from then on its outcome may be unknown."""


@define(eq=False)
class Writer:
    """Writes with one connection. All methods run in the writer thread, but ``hurry`` and
    ``written``.

    ``clock`` is the store's; None: that of the server.
    """

    target: Target
    connection: Connection
    clock: Clock | None = None
    newest: int = field(default=0, init=False)
    """The newest revision that it wrote."""
    _is_news: bool = field(default=False, init=False)
    """Whether others have yet to be told of something."""
    _announced: float = field(default=0.0, init=False)
    _hurrying: threading.Event = field(factory=threading.Event, init=False)

    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        """One outcome for each plan. A plan that fails fails alone."""
        lost: UnknownOutcomeError | None = None
        waits = pauses(self.target.reconnect)
        while True:
            attempt = _Attempt()
            try:
                self._transact(plans, attempt)
            except Exception as error:  # noqa: BLE001  (it is the outcome)
                failure = self._recover(error)
                if attempt.outcomes:  # it held the lock: what an earlier try did is known now
                    lost = self._unknown(failure) if _is_gone(error) else None
                if not _is_worth_another(error) or not self._wait(waits):
                    break
            else:
                return attempt.outcomes
        if lost is not None:
            return [lost] * len(plans)
        if attempt.outcomes and len(plans) > 1 and not isinstance(failure, _ALIKE):
            # it may be one plan that the server does not take
            half = len(plans) // 2
            return [*self.write(plans[:half]), *self.write(plans[half:])]
        return [failure] * len(plans)

    def renew(self, leases: Collection[tuple[str, int]], until: int) -> frozenset[str]:
        """Move due times; gives the ids that have moved on."""
        current = self._patiently(lambda: self._renew(leases, until))
        return frozenset(id for id, rev in leases if (id, rev) not in current)

    def compact(self, removal: Removal) -> Compaction | None:
        """Remove a batch; None if another one came between, or if it is gone already because only
        the answer was lost: what it came to is not known then."""
        return self._patiently(lambda: self._compact(removal))

    def announce(self, more: bool) -> None:  # noqa: FBT001  (a callback)
        """Let other processes know that there is something new; *more* is to come.

        Outside the transaction, for notifying in it would make all who commit to this database
        wait for each other. A hint: it may fail.
        """
        now = time.monotonic()
        if not self._is_news or (more and now - self._announced < ANNOUNCE_EVERY_S):
            return
        self._is_news = False
        self._announced = now
        try:
            self.connection.execute("SELECT pg_catalog.pg_notify(%s, '')", (self.target.channel,))
        except psycopg.Error as error:
            self._recover(error)

    def written(self) -> tuple[int, int]:
        """The server's process that writes for us, and the newest revision that it wrote."""
        connection = self.connection
        return (0 if connection.closed else connection.info.backend_pid), self.newest

    def hurry(self) -> None:
        """Do not wait for a server that is gone: the driver is being closed."""
        self._hurrying.set()

    # ------------------------------------------------------------ one transaction

    def _transact(self, plans: Sequence[Plan], attempt: _Attempt) -> None:
        self._connect()
        with self.connection.pipeline() as pipeline:
            self._begin()
            asked = self._ask(plans)
            pipeline.sync()  # so that the server sees it idle if we hang
            group = self._group(asked.fetchall())
            first_outcomes = self._first_outcomes(plans, group)
            outcomes = [group.decide(plan, lambda plan: first_outcomes.get(plan.commit_id))
                        for plan in plans]  # fmt: skip
            if group.versions:
                written = list(statements(group))
                attempt.outcomes = outcomes
                for text, parameters in written:
                    self._execute(text, *parameters)
                self._execute("COMMIT")
            else:
                self._execute("ROLLBACK")
        attempt.outcomes = outcomes
        self.newest = max(self.newest, group.first + len(group.versions) - 1)
        self._is_news |= bool(group.versions)

    def _begin(self) -> None:
        self._execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        self._execute(
            "SELECT pg_catalog.set_config('synchronous_commit', %s, true), "
            "pg_catalog.set_config('lock_timeout', %s, true), "
            "pg_catalog.set_config('idle_in_transaction_session_timeout', %s, true), " + BY_INDEX,
            self.target.synchronous,
            LOCK_TIMEOUT,
            IDLE_TIMEOUT,
        )
        self._execute("SELECT FROM {s}.head FOR UPDATE")

    def _ask(self, plans: Sequence[Plan]) -> psycopg.Cursor[Any]:
        """The head, and what is known of the states that the plans are about."""
        return self._execute(
            "SELECT h.rev, h.committed_at, "
            "(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint, "
            "s.id, s.rev, s.label_keys "
            "FROM {s}.head h LEFT JOIN {s}.states s ON s.id = ANY(%s)",
            Texts.of(wanted_ids(plans)),
        )

    def _group(self, rows: Sequence[tuple[Any, ...]]) -> Group[Keys]:
        head, committed_at, now = rows[0][:3]
        if self.clock is not None:
            now = self.clock.now()
        latest = {id: Latest[Keys](rev, keys) for *_, id, rev, keys in rows if id is not None}
        return Group(head + 1, max(committed_at, now), latest)

    def _first_outcomes(
        self, plans: Sequence[Plan], group: Group[Keys]
    ) -> dict[str, tuple[State, ...]]:
        """Commit id -> what it wrote, for those of the plans that were committed before."""
        suspects = [plan for plan in plans if group.conflicts(plan)]
        asked = [
            (number, place, write.state.id, write.state.rev, plan.commit_id)
            for number, plan in enumerate(suspects)
            for place, write in enumerate(plan.writes)
        ]
        if not asked:
            return {}
        numbers, places, ids, revs, commit_ids = zip(*asked, strict=True)
        # only the very next version can be of a plan that expected this revision
        rows = self._execute(
            "SELECT w.number, w.place, v.rev, v.committed_at "
            "FROM unnest(%s, %s, %s, %s, %s) AS w(number, place, id, rev, commit_id) "
            "CROSS JOIN LATERAL (SELECT v.rev, v.committed_at, v.commit_id FROM {s}.versions v "
            "WHERE v.id = w.id AND v.rev > w.rev ORDER BY v.rev LIMIT 1) v "
            "WHERE v.commit_id = w.commit_id",
            BigInts.of(numbers),
            BigInts.of(places),
            Texts.of(ids),
            BigInts.of(revs),
            Texts.of(commit_ids),
        ).fetchall()
        return {
            plan.commit_id: plan.stamp(rev - place, committed_at)
            for number, place, rev, committed_at in rows
            for plan in suspects[number : number + 1]
        }

    def _renew(self, leases: Collection[tuple[str, int]], until: int) -> set[tuple[str, int]]:
        """Those of the leases whose version is current."""
        ids = Texts.of(id for id, _ in leases)
        revs = BigInts.of(rev for _, rev in leases)
        self._connect()
        with self.connection.pipeline():
            self._begin()
            current = self._execute(
                "SELECT s.id, s.rev FROM unnest(%s, %s) AS l(id, rev) "
                "JOIN {s}.states s ON s.id = l.id AND s.rev = l.rev",
                ids,
                revs,
            )
            hinted = self._execute(
                "WITH moved AS (UPDATE {s}.states s SET due = %s "
                "FROM (SELECT o.id, o.rev, o.due FROM unnest(%s, %s) AS l(id, rev) "
                "JOIN {s}.states o ON o.id = l.id AND o.rev = l.rev WHERE o.due IS NOT NULL) o "
                "WHERE s.id = o.id AND s.rev = o.rev RETURNING o.due > s.due AS is_nearer) "
                "UPDATE {s}.head SET hints = hints + 1 "
                "WHERE (SELECT bool_or(is_nearer) FROM moved)",
                until,
                ids,
                revs,
            )
            self._execute("COMMIT")
        self._is_news |= hinted.rowcount > 0
        return set(current.fetchall())

    def _compact(self, removal: Removal) -> Compaction | None:
        self._connect()
        with self.connection.pipeline() as pipeline:
            self._begin()
            asked = self._execute("SELECT batches FROM {s}.head")
            pipeline.sync()  # so that the server sees it idle if we hang
            if asked.fetchall() != [(removal.batches,)]:
                self._execute("ROLLBACK")
                return None
            *_, payloads = [self._execute(text, *given) for text, given in removal.statements]
            self._execute("COMMIT")
        return removal.batch.summary([size for (size,) in payloads])

    # ------------------------------------------------------------ the connection

    def _patiently(self, do: Callable[[], T]) -> T:
        """Do what may be done twice; again for as long as the server may be away."""
        waits = pauses(self.target.reconnect)
        while True:
            try:
                return do()
            except Exception as error:
                failure = self._recover(error)
                if not _is_worth_another(error) or not self._wait(waits):
                    if failure is error:
                        raise
                    raise failure from error

    def _execute(self, text: LiteralString, *parameters: Any) -> psycopg.Cursor[Any]:
        return self.connection.execute(self.target.sql(text), parameters, binary=True)

    def _connect(self) -> None:
        if self.connection.closed:
            self.connection = self.target.connect()

    def _recover(self, error: Exception) -> Exception:
        """Make ready for another transaction; gives the error in our terms."""
        failure = error
        if isinstance(error, psycopg.Error):
            failure = translate(self.target, error)
            failure.__cause__ = error
        try:
            # one that cannot write may be a primary that became a standby: look for the new one
            if _is_gone(error) or isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                self.connection.close()
            else:
                self.connection.rollback()
        except psycopg.Error:
            self.connection.close()
        return failure

    def _unknown(self, failure: Exception) -> UnknownOutcomeError:
        lost = UnknownOutcomeError(
            self.target.url, f"the connection was lost while committing ({failure.__cause__})"
        )
        lost.__cause__ = failure.__cause__
        return lost

    def _wait(self, waits: Iterator[float]) -> bool:
        """Wait before another try; False if there is to be none."""
        pause = next(waits, None)
        return pause is not None and not self._hurrying.wait(pause)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and is_lost(error)


def _is_worth_another(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and (is_lost(error) or error.sqlstate in AGAIN)
