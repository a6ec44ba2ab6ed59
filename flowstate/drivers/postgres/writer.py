"""Writing plans: a group of them in one transaction, in two round trips.

The first locks the head row and asks what is stored; the second writes and commits. Whoever holds
the head row is the only one who writes, so there is one order of everything and no deadlock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, LiteralString, TypeVar

import psycopg
from attrs import define, field

from ...clock import Clock
from ...errors import (
    FlowstateError,
    StoreBusyError,
    StoreReadOnlyError,
    StoreUnreachableError,
    UnknownOutcomeError,
)
from ...leases import Claimed, Held, Renewal
from ...plan import Following, NextVersion, Plan, Record, RecordedError
from ...query import Unreadable
from ...retention import Compaction
from ..group_commit import Take, Taken
from ..plans import GroupPlan, Latest, Outcome, ids_of, keys_of, reused_by
from ..schema import check_unchanged
from ..threaded import StoreWriter
from .arrays import BigInts, Texts
from .compactor import Removal
from .connection import BY_INDEX, IDLE_TIMEOUT, LOCK_TIMEOUT, Target, pauses
from .errors import RETRYABLE, is_lost, translate
from .holders import claims_key, end_hung
from .places import CLAIM, END_LEASES, HELD, RELEASE, RENEW, TAKE, json_object
from .rows import Keys, left_of, statements
from .schema import VERSION
from .session import Connection

T = TypeVar("T")

LOCK_HEAD: LiteralString = "SELECT FROM {s}.head FOR UPDATE"
TRANSACTION_TIMEOUT: LiteralString = "2min"
"""How long a transaction that writes may take before its COMMIT, where the server can see to it."""
NOTIFY_EVERY_S = 0.005
"""Between two notifications, at least, while there is more to write."""

_PLAN_ONCE: LiteralString = (
    "SELECT pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true)"
)
"""Has the server plan each statement of a commit once for a connection: planning one again, for the
values that it is given, costs more than doing it, and comes to the same."""
_OTHERS: LiteralString = """
SELECT count(DISTINCT v.id) FROM unnest(%(revs)s, %(checksums)s) AS k(rev, checksum)
JOIN {s}.payload_refs r ON r.payload_rev = k.rev AND r.checksum = k.checksum
JOIN {s}.versions v ON v.rev = r.rev WHERE v.id <> %(id)s
"""
"""How many states besides one refer to these payloads."""
_FORGET: LiteralString = """
UPDATE {s}.payloads p SET content = NULL FROM unnest(%(revs)s, %(checksums)s) AS k(rev, checksum)
WHERE p.rev = k.rev AND p.checksum = k.checksum AND p.content IS NOT NULL
AND (SELECT m.version FROM {s}.meta m) = %(known)s
"""

_FAIL_ALL = (StoreUnreachableError, StoreReadOnlyError, StoreBusyError)
"""Errors that are the same for every plan of a group: trying each plan alone is of no use."""


@define(eq=False)
class _Attempt:
    """One attempt to write a group."""

    outcomes: list[Outcome] = field(factory=list[Outcome])
    """What was decided, once the statements that write were sent: from then on, whether they were
    committed may be unknown."""


@define(eq=False)
class Writer(StoreWriter):
    """Writes on one connection. ``written`` may be called in any thread.

    ``clock`` is the store's; None: that of the server.
    """

    target: Target
    connection: Connection
    clock: Clock | None = None
    closing: threading.Event = field(factory=threading.Event)
    """Set once the driver is being closed: a server that does not answer is not waited for."""
    newest: int = field(default=0, init=False)
    """The newest revision that was written here."""
    _notification_pending: bool = field(default=False, init=False)
    """Whether something was written of which other processes were not notified."""
    _notified_at: float = field(default=0.0, init=False)

    @property
    def _name(self) -> str:
        return self.target.url

    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        unknown: UnknownOutcomeError | None = None
        waits = pauses(self.target.reconnect)
        while True:
            attempt = _Attempt()
            try:
                self._transact(plans, attempt)
            except Exception as error:  # noqa: BLE001  (it is the outcome)
                failure = self._recover(error)
                if attempt.outcomes:  # it held the lock, so it saw what an earlier attempt did
                    is_known = isinstance(error, psycopg.Error) and not is_lost(error)
                    unknown = None if is_known else self._unknown_outcome(failure)
                if not _is_retryable(error) or not self._wait(waits):
                    break
            else:
                return attempt.outcomes
        if len(plans) > 1 and not isinstance(failure, _FAIL_ALL):
            # it may be one plan that the server does not take
            half = len(plans) // 2
            return [*self.write(plans[:half]), *self.write(plans[half:])]
        return [unknown or failure] * len(plans)

    def claim(
        self, room: Mapping[str, int], limit: int, owner: str, claim: str, now: int
    ) -> tuple[Claimed | Unreadable, ...]:
        given = {"room": json_object(room), "limit": limit}
        given |= {"owner": owner, "claim": claim, "now": now}
        return tuple([version for _, version in self._retrying(lambda: self._claim(CLAIM, given))])

    def take(self, takes: Sequence[Take]) -> Sequence[Taken]:
        each = [
            (number, take, id, rev)
            for number, take in enumerate(takes, 1)
            for id, rev in take.versions
        ]
        given = {
            "asking": Texts.of(take.owner for take in takes),
            "by": Texts.of(take.claim for take in takes),
            "numbers": BigInts.of(number for number, *_ in each),
            "owners": Texts.of(take.owner for _, take, *_ in each),
            "claims": Texts.of(take.claim for _, take, *_ in each),
            "nows": BigInts.of(take.now for _, take, *_ in each),
            "ids": Texts.of(id for *_, id, _ in each),
            "revs": BigInts.of(rev for *_, rev in each),
        }
        taken: list[list[Claimed | Unreadable]] = [[] for _ in takes]
        for number, version in self._retrying(lambda: self._claim(TAKE, given)):
            taken[number - 1].append(version)
        return [tuple(versions) for versions in taken]

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        found = self._retrying(lambda: self._move(RENEW, held, owner, now))
        moved = frozenset(id for id, is_current, _ in found if not is_current)
        lost = frozenset(id for id, is_current, is_held in found if is_current and not is_held)
        return Renewal(moved, lost)

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        found = self._retrying(lambda: self._move(RELEASE, held, owner, now))
        self._notification_pending |= any(is_held for *_, is_held in found)

    def end_leases(self, owner: str, now: int) -> None:
        self._notification_pending |= self._retrying(lambda: self._end_leases(owner, now))

    def compact(self, removal: Removal) -> Compaction | None:
        """Remove a batch; None if another batch was removed since this one was decided, perhaps
        this one itself, if only the answer was lost."""
        return self._retrying(lambda: self._compact(removal))

    def forget_records(self, before: int, limit: int) -> int:
        return self._retrying(lambda: self._forget_records(before, limit))

    def replicate(self) -> None:
        """Have all that is committed be as durable as a commit is."""
        self._retrying(self._replicate)

    def forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        """As ``Driver.forget`` says. PostgreSQL keeps the rows as they were, with the content, in
        the table's files until VACUUM has removed them, and in its log (WAL) and whatever is made
        of that: archives, standbys, backups."""
        return self._retrying(lambda: self._forget(id, payloads))

    def notify(self, more: bool) -> None:  # noqa: FBT001  (a callback)
        """Notify other processes of what was written; *more* is to come.

        Outside the transaction, for a NOTIFY in it would make all who commit to this database wait
        for each other. A hint: it may fail.
        """
        now = time.monotonic()
        if not self._notification_pending or (more and now - self._notified_at < NOTIFY_EVERY_S):
            return
        self._notification_pending = False
        self._notified_at = now
        try:
            self.connection.execute("SELECT pg_catalog.pg_notify(%s, '')", (self.target.channel,))
        except Exception as error:  # noqa: BLE001  (it is a hint)
            self._recover(error)

    def written(self) -> tuple[int, int]:
        """The id of the server's process for this connection, and the newest revision that was
        written here."""
        connection = self.connection
        return (0 if connection.closed else connection.info.backend_pid), self.newest

    def close(self) -> None:
        self.connection.close()

    # ------------------------------------------------------------ one transaction

    def _transact(self, plans: Sequence[Plan], attempt: _Attempt) -> None:
        with self._transaction(self.target.synchronous) as pipeline:
            self._execute(_PLAN_ONCE)
            self._execute(LOCK_HEAD)
            asked = self._ask(plans)
            keyed = self._ask_records(keys) if (keys := keys_of(plans)) else None
            pipeline.sync()  # so that the server sees it idle if we hang
            group = self._group(asked.fetchall())
            plans = self._settled(plans)
            if keyed is not None:
                group.records.update((id, Record(*record)) for id, *record in keyed.fetchall())
            next_version = self._next_versions(plans, group)
            outcomes = [group.decide(plan, next_version) for plan in plans]
            if group.writes_something:
                writing = list(statements(group))
                attempt.outcomes = outcomes
                for text, parameters in writing:
                    self._execute(text, *parameters)
                self._execute("COMMIT")
            elif any(isinstance(outcome, tuple | RecordedError) for outcome in outcomes):
                # what is given again may not have reached the disk, or a standby, when whoever
                # committed it lost the answer: now it has to, with the lock of the head row
                attempt.outcomes = outcomes
                self._execute("COMMIT")
            else:
                self._execute("ROLLBACK")
        attempt.outcomes = outcomes
        self.newest = max(self.newest, group.first + len(group.versions) - 1)
        self._notification_pending |= bool(group.versions)

    @property
    def _has_transaction_timeout(self) -> bool:
        return self.connection.pgconn.server_version >= 170000  # noqa: PLR2004

    @contextmanager
    def _transaction(self, synchronous: str) -> Generator[psycopg.Pipeline]:
        """Begins one; to commit it, or to roll it back, is up to what is inside."""
        self._connect()
        with self.connection.pipeline() as pipeline:
            self._execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            bound = TRANSACTION_TIMEOUT if self._has_transaction_timeout else None
            self._execute(_settings(LOCK_TIMEOUT, IDLE_TIMEOUT, bound), synchronous)
            yield pipeline
        self.connection.check_replicated()

    def _ask(self, plans: Sequence[Plan]) -> psycopg.Cursor[Any]:
        """The schema's version, the head, and the latest versions of the states that the plans are
        about."""
        return self._execute(
            "SELECT (SELECT m.version FROM {s}.meta m), h.rev, h.committed_at, "
            "(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint, "
            "s.id, s.rev, s.label_keys, "
            "coalesce(v.labels, '{{}}')::text, v.status, v.flow "
            "FROM {s}.head h LEFT JOIN {s}.states s ON s.id = ANY(%s) "
            "LEFT JOIN {s}.versions v ON v.rev = s.rev",
            Texts.of(ids_of(plans)),
        )

    def _ask_records(self, keys: Sequence[str]) -> psycopg.Cursor[Any]:
        """What is recorded under these ids of callers."""
        return self._execute(
            "SELECT r.id, r.digest, r.commit_id, r.rev, r.committed_at "
            "FROM {s}.records r WHERE r.id = ANY(%s)",
            Texts.of(keys),
        )

    def _group(self, rows: Sequence[tuple[Any, ...]]) -> GroupPlan[Keys]:
        version, head, committed_at, now = rows[0][:4]
        check_unchanged(self.target.url, version, VERSION)
        if self.clock is not None:
            now = self.clock.now()
        latest = {
            id: Latest[Keys](rev, keys, left_of(labels, status, flow))
            for *_, id, rev, keys, labels, status, flow in rows
            if id is not None
        }
        return GroupPlan(head + 1, max(committed_at, now), latest)

    def _settled(self, plans: Sequence[Plan]) -> Sequence[Plan]:
        """The plans with what is gone of the payloads that they refer to (``Plan.settled``)."""
        reused = reused_by(plans)
        if not reused:
            return plans
        rows = self._execute(
            "SELECT p.rev, p.checksum FROM unnest(%s, %s) AS k(rev, checksum) "
            "JOIN {s}.payloads p ON p.rev = k.rev AND p.checksum = k.checksum "
            "WHERE p.content IS NOT NULL",
            BigInts.of(rev for rev, _ in reused),
            Texts.of(checksum for _, checksum in reused),
        ).fetchall()
        stored = set(rows)
        return [plan.settled(stored) for plan in plans]

    def _next_versions(self, plans: Sequence[Plan], group: GroupPlan[Keys]) -> NextVersion:
        """For ``Plan.first_outcome``, of all plans: read in one round trip."""
        asked = {
            (write.state.id, write.state.rev)
            for plan in plans
            if plan.conflicts(group.latest_rev) or (plan.key and plan.key.id in group.records)
            for write in plan.writes
        }
        if not asked:
            return lambda _id, _rev: None
        rows = self._execute(
            "SELECT w.id, w.rev, v.rev, v.committed_at, v.commit_id, v.state::text "
            "FROM unnest(%s, %s) AS w(id, rev) "
            "CROSS JOIN LATERAL (SELECT v.* FROM {s}.versions v "
            "WHERE v.id = w.id AND v.rev > w.rev ORDER BY v.rev LIMIT 1) v",
            Texts.of(id for id, _ in asked),
            BigInts.of(rev for _, rev in asked),
        ).fetchall()
        found = {
            (id, expected): Following(rev, committed_at, commit_id, self._readable(rev, id, state))
            for id, expected, rev, committed_at, commit_id, state in rows
        }
        return lambda of_state, expected: found.get((of_state, expected))

    def _claim(
        self, text: LiteralString, given: Mapping[str, Any]
    ) -> list[tuple[int, Claimed | Unreadable]]:
        """Take what a statement chooses; gives each version with the number of its claim. Does not
        wait for those who commit, nor do they wait for more than this one round trip."""
        with self._transaction(synchronous="off"):
            self._execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", claims_key(self.target))
            found = self._named(text, known=VERSION, **given)
            # whoever migrates waits for the table that was written to, so it was the same before
            asked = self._execute("SELECT version FROM {s}.meta")
            self._execute("COMMIT")
        ((version,),) = asked.fetchall()
        check_unchanged(self.target.url, version, VERSION)
        return [(number, self._claimed(*row)) for number, *row in found.fetchall()]

    def _move(
        self, text: LiteralString, held: Collection[Held], owner: str, now: int
    ) -> list[tuple[str, bool, bool]]:
        """Move what is held, by a statement; gives for each the id, whether it is at that revision,
        and whether it was taken by that claim."""
        ids, revs, claims = zip(*held, strict=True)
        given = {"ids": Texts.of(ids), "revs": BigInts.of(revs), "claims": Texts.of(claims)}
        with self._transaction(synchronous="off"):
            self._execute(LOCK_HEAD)
            asked = self._execute("SELECT version FROM {s}.meta")
            found = self._named(HELD, owner=owner, **given)
            self._named(text, owner=owner, now=now, known=VERSION, **given)
            self._execute("COMMIT")
        ((version,),) = asked.fetchall()
        check_unchanged(self.target.url, version, VERSION)
        return found.fetchall()

    def _end_leases(self, owner: str, now: int) -> bool:
        """Gives whether there were any."""
        with self._transaction(synchronous="off"):
            self._execute(LOCK_HEAD)
            asked = self._execute("SELECT version FROM {s}.meta")
            ended = self._named(END_LEASES, owner=owner, now=now, known=VERSION)
            self._execute("COMMIT")
        ((version,),) = asked.fetchall()
        check_unchanged(self.target.url, version, VERSION)
        return ended.rowcount > 0

    def _compact(self, removal: Removal) -> Compaction | None:
        with self._transaction(self.target.synchronous) as pipeline:
            self._execute(LOCK_HEAD)
            asked = self._execute("SELECT h.batches, m.version FROM {s}.head h, {s}.meta m")
            pipeline.sync()  # so that the server sees it idle if we hang
            ((batches, version),) = asked.fetchall()
            check_unchanged(self.target.url, version, VERSION)
            if batches != removal.batches:
                self._execute("ROLLBACK")
                return None
            *_, payloads = [self._execute(text, *given) for text, given in removal.statements]
            self._execute("COMMIT")
        return removal.batch.summary([size for (size,) in payloads])

    def _forget_records(self, before: int, limit: int) -> int:
        with self._transaction(self.target.synchronous):
            self._execute(LOCK_HEAD)
            asked = self._execute("SELECT version FROM {s}.meta")
            forgotten = self._execute(
                "DELETE FROM {s}.records r WHERE r.id IN (SELECT o.id FROM {s}.records o "
                "WHERE o.committed_at < %s ORDER BY o.committed_at LIMIT %s) "
                "AND (SELECT m.version FROM {s}.meta m) = %s",
                before,
                limit,
                VERSION,
            )
            self._execute("COMMIT")
        ((version,),) = asked.fetchall()
        check_unchanged(self.target.url, version, VERSION)
        return forgotten.rowcount

    def _replicate(self) -> None:
        with self._transaction(self.target.synchronous):
            self._execute(LOCK_HEAD)
            self._execute("COMMIT")

    def _forget(self, id: str, payloads: Collection[tuple[int, str]]) -> int:
        revs, checksums = zip(*payloads, strict=True)
        keys = {"revs": BigInts.of(revs), "checksums": Texts.of(checksums)}
        with self._transaction(self.target.synchronous):
            self._execute(LOCK_HEAD)
            asked = self._execute("SELECT version FROM {s}.meta")
            others = self._named(_OTHERS, id=id, **keys)
            self._named(_FORGET, known=VERSION, **keys)
            self._execute("COMMIT")
        ((version,),) = asked.fetchall()
        check_unchanged(self.target.url, version, VERSION)
        ((count,),) = others.fetchall()
        return int(count)

    # ------------------------------------------------------------ the connection

    def _retrying(self, transact: Callable[[], T]) -> T:
        """Do what may be done twice, and retry it for as long as the server may be away."""
        waits = pauses(self.target.reconnect)
        while True:
            try:
                return transact()
            except Exception as error:
                failure = self._recover(error)
                if not _is_retryable(error) or not self._wait(waits):
                    if failure is error:
                        raise
                    raise failure from error

    def _execute(self, text: LiteralString, *parameters: Any) -> psycopg.Cursor[Any]:
        return self.connection.execute(self.target.sql(text), parameters, binary=True)

    def _named(self, text: LiteralString, **parameters: Any) -> psycopg.Cursor[Any]:
        return self.connection.execute(self.target.sql(text), parameters, binary=True)

    def _connect(self) -> None:
        if self.connection.closed:
            if self.closing.is_set():
                raise psycopg.OperationalError("the driver is being closed")
            self.connection = self.target.connect(self.closing)

    def _recover(self, error: Exception) -> Exception:
        """Make ready for another transaction; gives the error in our terms."""
        failure = error
        if not isinstance(error, FlowstateError):
            failure = translate(self.target, error)
            failure.__cause__ = error
        try:
            # a server that cannot write may be a primary that became a standby: find the new one
            if _is_lost(error) or isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                self.connection.close()
            else:
                self.connection.rollback()
            if isinstance(error, psycopg.errors.LockNotAvailable):
                with suppress(psycopg.Error):  # it may lack the right to
                    end_hung(self.connection, self.target)
        except Exception:  # noqa: BLE001  (whatever it is, another connection is made)
            self.connection.close()
        return failure

    def _unknown_outcome(self, failure: Exception) -> UnknownOutcomeError:
        unknown = UnknownOutcomeError(
            self.target.url, f"the connection was lost while committing ({failure.__cause__})"
        )
        unknown.__cause__ = failure.__cause__
        return unknown

    def _wait(self, waits: Iterator[float]) -> bool:
        """Wait before another attempt; False if there is to be none."""
        pause = next(waits, None)
        return pause is not None and not self.closing.wait(pause)


@lru_cache
def _settings(
    lock: LiteralString, idle: LiteralString, transaction: LiteralString | None
) -> LiteralString:
    """A statement that has a transaction go by these; all but its parameter is text, which costs
    less with each commit."""
    text: LiteralString = f"""
        SELECT pg_catalog.set_config('synchronous_commit', %s, true),
        pg_catalog.set_config('lock_timeout', '{lock}', true),
        pg_catalog.set_config('idle_in_transaction_session_timeout', '{idle}', true),
        pg_catalog.set_config('flowstate.asks_version', 'on', true), {BY_INDEX}"""
    if transaction is None:
        return text
    return f"{text}, pg_catalog.set_config('transaction_timeout', '{transaction}', true)"


def _is_lost(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and is_lost(error)


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and (is_lost(error) or error.sqlstate in RETRYABLE)
