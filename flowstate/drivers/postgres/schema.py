"""The tables of a store, and how an older store becomes a newer one.

``versions`` is the log, each version with what its state was before; ``states`` has a row for each
state: which version is its latest, when that is due, and if it is RUNNING, where it stands.
Revisions come from the one row of ``head``: whoever writes locks it first and keeps it until the
end of the transaction, so that commits become visible in the order of their revisions. Claims do
without it, and change nothing but places. What is indexed by a text of any length is indexed by a
hash of it: labels by their ``key``, flows, owners and claims by PostgreSQL's own
``hashtextextended``.
"""

from __future__ import annotations

import hashlib
from typing import LiteralString

import psycopg

from ...driver import Durability
from ...errors import StoreError, StoreOpenError
from ..schema import check_known
from .connection import LOCK_TIMEOUT, Target
from .errors import grants, quoted, translate
from .session import Connection

_CREATE: tuple[LiteralString, ...] = (
    "CREATE TABLE {s}.meta (version integer NOT NULL)",
    "INSERT INTO {s}.meta VALUES (0)",
    """CREATE TABLE {s}.head (
        singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
        rev bigint NOT NULL DEFAULT 0,
        committed_at bigint NOT NULL DEFAULT 0,
        compacted bigint NOT NULL DEFAULT 0,
        compacted_at bigint NOT NULL DEFAULT 0,
        batches bigint NOT NULL DEFAULT 0,
        hints bigint NOT NULL DEFAULT 0
    )""",
    "INSERT INTO {s}.head DEFAULT VALUES",
    """CREATE TABLE {s}.versions (
        rev bigint PRIMARY KEY,
        id text COLLATE "C" NOT NULL,
        status text COLLATE "C" NOT NULL,
        committed_at bigint NOT NULL,
        commit_id text COLLATE "C" NOT NULL,
        size integer NOT NULL,
        state jsonb NOT NULL
    )""",
    "CREATE INDEX versions_id ON {s}.versions (id, rev)",
    """CREATE TABLE {s}.states (
        id text COLLATE "C" PRIMARY KEY,
        rev bigint NOT NULL,
        due bigint,
        due_key bigint,
        due_flow text COLLATE "C",
        label_keys bigint[]
    )""",
    "CREATE INDEX states_rev ON {s}.states (rev)",
    "CREATE INDEX states_due ON {s}.states (due_key, due) WHERE due IS NOT NULL",
    "CREATE TABLE {s}.labels (key bigint, rev bigint, PRIMARY KEY (key, rev))",
    "CREATE TABLE {s}.current_labels (key bigint, rev bigint, PRIMARY KEY (key, rev))",
    """CREATE TABLE {s}.payloads (
        rev bigint,
        checksum text COLLATE "C",
        content bytea NOT NULL,
        PRIMARY KEY (rev, checksum)
    )""",
    """CREATE TABLE {s}.payload_refs (
        payload_rev bigint,
        checksum text COLLATE "C",
        rev bigint,
        PRIMARY KEY (payload_rev, checksum, rev)
    )""",
    "CREATE INDEX payload_refs_rev ON {s}.payload_refs (rev)",
    "COMMENT ON COLUMN {s}.head.compacted IS 'the highest revision that was ever removed'",
    "COMMENT ON COLUMN {s}.head.compacted_at IS 'when it had been committed'",
    "COMMENT ON COLUMN {s}.head.batches IS 'how often compaction removed something'",
    "COMMENT ON COLUMN {s}.versions.size IS 'bytes of the state as JSON text'",
    "COMMENT ON COLUMN {s}.head.hints IS 'how often due times came nearer without a revision'",
    "COMMENT ON TABLE {s}.payload_refs IS 'which version (rev) refers to which payload'",
    "COMMENT ON COLUMN {s}.labels.key IS 'the first 8 bytes of BLAKE2b of name, NUL, value'",
)

_GRANT: LiteralString = """DO $$ DECLARE given record; BEGIN
    FOR given IN
        SELECT quote_ident(n.nspname) AS schema, a.privilege_type AS privilege,
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
        FROM pg_catalog.pg_class m JOIN pg_catalog.pg_namespace n ON n.oid = m.relnamespace
        JOIN pg_catalog.pg_class v ON v.relnamespace = n.oid AND v.relname = 'versions',
        LATERAL pg_catalog.aclexplode(v.relacl) a
        WHERE m.oid = (SELECT tableoid FROM {s}.meta) AND a.grantee <> v.relowner
    LOOP
        EXECUTE 'GRANT ' || given.privilege || ' ON ' || given.schema || '.{table} TO '
            || given.role;
    END LOOP;
END $$"""
"""Who may use the other tables may use a new one."""

_ADD_PLACES: tuple[LiteralString, ...] = (
    "DROP INDEX {s}.states_due",
    """ALTER TABLE {s}.states
        ADD COLUMN alarm bigint,
        ADD COLUMN lease bigint NOT NULL DEFAULT 0,
        ADD COLUMN flow text COLLATE "C",
        ADD COLUMN since bigint,
        ADD COLUMN owner text COLLATE "C",
        ADD COLUMN claim text COLLATE "C",
        ADD COLUMN until bigint,
        ADD COLUMN policy text COLLATE "C"
    """,
    # alarms of what is not RUNNING are all that can have been due there
    "UPDATE {s}.states SET alarm = due WHERE due >= 0",
    """UPDATE {s}.states s SET
        alarm = CASE WHEN jsonb_typeof(v.state -> 'transition' -> 'alarm' -> 'at') = 'number'
            THEN (v.state -> 'transition' -> 'alarm' ->> 'at')::bigint END,
        lease = CASE WHEN s.due IS NULL THEN 0
            WHEN jsonb_typeof(v.state -> 'retry' -> 'lease') = 'number'
            THEN round((v.state -> 'retry' ->> 'lease')::numeric * 1000)::bigint
            ELSE 30000 END,
        flow = coalesce(v.state -> 'transition' ->> 'to', ''),
        since = CASE WHEN s.due < 0 THEN s.due + 253402300800000 END,
        owner = CASE WHEN s.due < 0 THEN NULL ELSE '0.1' END,
        claim = CASE WHEN s.due < 0 THEN NULL ELSE '' END,
        until = CASE WHEN s.due >= 0 THEN s.due END
    FROM {s}.versions v WHERE v.rev = s.rev AND v.status = 'running'""",
    "ALTER TABLE {s}.states DROP COLUMN due, DROP COLUMN due_key, DROP COLUMN due_flow",
    """CREATE INDEX states_due ON {s}.states (least(alarm, until), rev)
        WHERE least(alarm, until) IS NOT NULL""",
    """CREATE INDEX states_line ON {s}.states (hashtextextended(flow, 0), since, rev)
        WHERE since IS NOT NULL""",
    """CREATE INDEX states_taken ON {s}.states
        (hashtextextended(owner, 0), hashtextextended(claim, 0)) WHERE owner IS NOT NULL""",
    """CREATE TABLE {s}.records (
        id text COLLATE "C" PRIMARY KEY,
        digest text NOT NULL,
        commit_id text NOT NULL,
        rev bigint NOT NULL,
        committed_at bigint NOT NULL
    )""",
    "CREATE INDEX records_committed ON {s}.records (committed_at)",
    _GRANT.replace("{table}", "records"),
    "COMMENT ON TABLE {s}.records IS 'commits that were given an id by who asked for them'",
    "COMMENT ON COLUMN {s}.head.hints IS 'how often something was released'",
    "COMMENT ON COLUMN {s}.states.alarm IS 'when its alarm comes (ms)'",
    "COMMENT ON COLUMN {s}.states.lease IS 'how long who takes it has it for (ms); 0: for ever'",
    "COMMENT ON COLUMN {s}.states.flow IS 'the flow that is to run it, if it is RUNNING'",
    "COMMENT ON COLUMN {s}.states.since IS 'since when it is ready (ms)'",
    "COMMENT ON COLUMN {s}.states.owner IS 'who has taken it'",
    "COMMENT ON COLUMN {s}.states.claim IS 'the id of the claim by which it was taken'",
    "COMMENT ON COLUMN {s}.states.until IS 'when the lease of its owner ends (ms)'",
    "COMMENT ON COLUMN {s}.states.policy IS 'the retry policy that it goes by, as JSON text'",
    """CREATE FUNCTION {s}.refuse_older() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'the store was migrated by a newer flowstate, and this process knows '
            'nothing of it; nothing was written. Upgrade flowstate, and restart this process';
    END $$""",
    """CREATE TRIGGER refuse_older BEFORE DELETE ON {s}.versions FOR EACH STATEMENT
        WHEN (pg_catalog.current_setting('flowstate.asks_version', true) IS DISTINCT FROM 'on')
        EXECUTE FUNCTION {s}.refuse_older()""",
)
"""Places beside current versions, and the policy that each goes by; records of commits under ids
of their callers' own.

In 0.1 what was RUNNING had one time, ``due``: that of its alarm, or the end of its lease if that
was sooner, or since when it was released, which is below 0. What was leased is taken by an owner
whom nobody knows. The length of a lease was not stored: it is that of the state's own policy, or
what policies have unless told otherwise.

Flowstate 0.1 does not ask for the version when it writes, and a process that runs it may have the
store open. Each of its commits and renewals writes to columns of ``states`` that are gone. Its
compaction deletes from ``versions``: the trigger refuses whoever does not say that it asks, as
``Writer`` does in each transaction.
"""

_ADD_LEAVING: tuple[LiteralString, ...] = (
    """ALTER TABLE {s}.versions
        ADD COLUMN flow text COLLATE "C",
        ADD COLUMN labels jsonb,
        ADD COLUMN was_labels jsonb,
        ADD COLUMN was_status text COLLATE "C",
        ADD COLUMN was_flow text COLLATE "C"
    """,
    """WITH told AS (
        SELECT v.rev, v.id, v.status,
            CASE WHEN jsonb_typeof(v.state -> 'transition') = 'object'
                OR (v.status = 'new' AND NOT v.state ? 'transition')
                THEN coalesce(v.state -> 'transition' ->> 'to', '') END AS flow,
            CASE WHEN jsonb_typeof(v.state -> 'labels') = 'object' THEN v.state -> 'labels'
                WHEN v.state ? 'labels' OR NOT (v.state ? 'transition' OR v.status = 'new')
                THEN 'null' END AS labels
        FROM {s}.versions v
    ), next AS (
        SELECT t.*, lag(t.rev) OVER previous AS previous,
            lag(coalesce(t.labels, '{{}}')) OVER previous AS was_labels,
            lag(t.status) OVER previous AS was_status,
            lag(t.flow) OVER previous AS was_flow
        FROM told t WINDOW previous AS (PARTITION BY t.id ORDER BY t.rev)
    )
    UPDATE {s}.versions v SET flow = n.flow, labels = n.labels,
        was_labels = CASE WHEN jsonb_typeof(n.was_labels) = 'object'
            THEN nullif(n.was_labels, coalesce(n.labels, '{{}}')) END,
        was_status = nullif(n.was_status, n.status),
        was_flow = nullif(n.was_flow, n.flow)
    FROM next n WHERE v.rev = n.rev""",
    "CREATE TABLE {s}.left_labels (key bigint, rev bigint, PRIMARY KEY (key, rev))",
    _GRANT.replace("{table}", "left_labels"),
    """INSERT INTO {s}.left_labels
        SELECT l.key, n.rev FROM {s}.labels l JOIN (
            SELECT v.rev, lag(v.rev) OVER (PARTITION BY v.id ORDER BY v.rev) AS previous
            FROM {s}.versions v
        ) n ON n.previous = l.rev
        WHERE NOT EXISTS (SELECT FROM {s}.labels o WHERE o.key = l.key AND o.rev = n.rev)""",
    'ALTER TABLE {s}.states ADD COLUMN resting text COLLATE "C"',
    """UPDATE {s}.states s SET resting = v.status
        FROM {s}.versions v WHERE v.rev = s.rev AND v.status <> 'running'""",
    "CREATE INDEX states_resting ON {s}.states (resting, rev) WHERE resting IS NOT NULL",
    "ALTER TABLE {s}.payloads ALTER COLUMN content DROP NOT NULL",
    "COMMENT ON COLUMN {s}.versions.flow IS 'that of the transition; NULL: it cannot be told'",
    "COMMENT ON COLUMN {s}.versions.labels IS 'NULL: it has none; null: they cannot be told'",
    "COMMENT ON COLUMN {s}.versions.was_labels IS 'those of the version before, if others'",
    "COMMENT ON COLUMN {s}.versions.was_status IS 'that of the version before, if another'",
    "COMMENT ON COLUMN {s}.versions.was_flow IS 'that of the version before, if another'",
    "COMMENT ON TABLE {s}.left_labels IS 'the labels that a state lost with a version (rev)'",
    "COMMENT ON COLUMN {s}.states.resting IS 'the status of the version, unless it is RUNNING'",
    "COMMENT ON COLUMN {s}.payloads.content IS 'NULL: it was forgotten'",
)
"""What queries ask for in columns beside each version, and what its state was before; current
versions by their status, unless it is RUNNING; payloads without their content.

What a version left is made of the version before, if that is there.
"""

MIGRATIONS: tuple[tuple[LiteralString, ...], ...] = (_CREATE, _ADD_PLACES, _ADD_LEAVING)
"""Migration n makes version n + 1 of version n. Only ever add to the end."""

VERSION = len(MIGRATIONS)
MIGRATION_S = 3600.0
"""How long a statement of a migration may take, which may look at everything that is stored."""

TABLES = (
    "meta",
    "head",
    "versions",
    "states",
    "labels",
    "current_labels",
    "left_labels",
    "payloads",
    "payload_refs",
    "records",
)


def key(*texts: str) -> int:
    """What stands for texts of any length in an index: two that share it only cost a look."""
    digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def prepare(connection: Connection, target: Target) -> None:
    """Make the store, or bring it to the present version, in one transaction.

    Raises ``StoreOpenError`` or a subclass of it, and leaves all as it was then.
    """
    try:
        _check_encoding(connection, target)
        found = _version(connection, target)
        if found != VERSION:
            _check_mode(target, found)
            _migrate(connection, target)
        _check_readable(connection, target)
    except psycopg.Error as error:
        failure = translate(target, error)
        if not isinstance(failure, StoreOpenError):
            failure = StoreOpenError(target.url, failure.problem)
        raise failure from error


def durability(connection: Connection, target: Target) -> Durability:
    """What an acknowledged commit survives, given what the server is set to."""
    if target.synchronous == "off" or _setting(connection, "fsync") == "off":
        return Durability.PROCESS
    waits = target.synchronous in {"on", "remote_apply"}
    # an acknowledged commit is on the disk of a standby as well
    has_standby = waits and _setting(connection, "synchronous_standby_names")
    return Durability.NODE if has_standby else Durability.POWER


def _setting(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT pg_catalog.current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row else ""


def _version(connection: Connection, target: Target) -> int:
    """The schema's version, 0 if it has no tables. Raises ``StoreOpenError`` if it is not ours."""
    names = {
        name
        for (name,) in connection.execute(
            "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v')",
            (target.schema,),
        )
    }
    if not names:
        return 0
    if not {"meta", "head", "versions"} <= names:
        raise StoreOpenError(
            target.url,
            f"the schema {target.schema!r} holds tables of something else; it was left untouched. "
            "Name another with ?schema=…",
        )
    try:
        row = connection.execute(target.sql("SELECT version FROM {s}.meta"), ()).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise _not_readable(connection, target, error) from error
    found: int = row[0] if row else 0
    check_known(target.url, found, VERSION)
    return found


def _check_mode(target: Target, found: int) -> None:
    if not found and target.mode != "rwc":
        raise StoreOpenError(
            target.url,
            f"there is no store in the schema {target.schema!r}, and mode={target.mode} makes none",
        )
    if target.mode == "ro":
        raise StoreOpenError(
            target.url,
            f"has schema version {found}, older than the {VERSION} of this flowstate; open it once "
            "without mode=ro to bring it there",
        )


def _migrate(connection: Connection, target: Target) -> None:
    try:
        with connection.patience(MIGRATION_S), connection.transaction():
            lock = key("flowstate", target.schema)
            connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (lock,))
            settings = "SELECT pg_catalog.set_config('lock_timeout', %s, true)"
            connection.execute(settings, (LOCK_TIMEOUT,))
            # again, now that nobody else can: two processes may have started at once
            found = _version(connection, target)
            if found == VERSION:
                return
            if found:  # whoever writes has locked one of them, and asks for the version then
                connection.execute(target.sql("SELECT FROM {s}.head FOR UPDATE"), ())
                connection.execute(target.sql("LOCK TABLE {s}.states"), ())
            if not _schema_exists(connection, target):
                connection.execute(target.sql("CREATE SCHEMA {s}"), ())
            for migration in MIGRATIONS[found:]:
                for statement in migration:
                    connection.execute(target.sql(statement), ())
            connection.execute(target.sql("UPDATE {s}.meta SET version = %s"), (VERSION,))
    except psycopg.errors.InsufficientPrivilege as error:
        raise _not_made(connection, target, error) from error


def _schema_exists(connection: Connection, target: Target) -> bool:
    found = connection.execute(
        "SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s", (target.schema,)
    )
    return found.fetchone() is not None


def _check_encoding(connection: Connection, target: Target) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreOpenError(
            target.url,
            f"the database is encoded in {encoding}, which cannot keep every text; make one with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )


def _check_readable(connection: Connection, target: Target) -> None:
    """Raise ``StoreOpenError`` with the tables that this role may not read."""
    missing = [
        name
        for name, allowed in connection.execute(
            "SELECT c.relname, pg_catalog.has_table_privilege(c.oid, 'SELECT') "
            "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname = ANY(%s) ORDER BY c.relname",
            (target.schema, list(TABLES)),
        )
        if not allowed
    ]
    if missing:
        role = _role(connection)
        raise StoreOpenError(
            target.url,
            f"the role {role!r} has no right SELECT on {', '.join(missing)}. "
            f"{grants(target, role)}",
        )


def _not_readable(connection: Connection, target: Target, error: psycopg.Error) -> StoreError:
    """Which right is missing for looking at the tables."""
    right = "a right"
    if not _may(connection, target, "USAGE"):
        right = f"the right USAGE on the schema {target.schema!r}"
    role = _role(connection)
    return StoreOpenError(
        target.url,
        f"the role {role!r} lacks {right} ({error.diag.message_primary}). {grants(target, role)}",
    )


def _not_made(connection: Connection, target: Target, error: psycopg.Error) -> StoreError:
    """Which right is missing for making the tables, or for changing them."""
    role, message = _role(connection), error.diag.message_primary
    if found := _version(connection, target):
        return StoreOpenError(
            target.url,
            f"has schema version {found}, older than the {VERSION} of this flowstate, and the role "
            f"{role!r} may not change its tables ({message}). Open the store once as their owner",
        )
    if not _schema_exists(connection, target):
        return StoreOpenError(
            target.url,
            f"there is no schema {target.schema!r}, and the role {role!r} has no right CREATE on "
            f"the database to make it ({message}). Let an administrator do: CREATE SCHEMA "
            f"{quoted(target.schema)} AUTHORIZATION {quoted(role)}",
        )
    right = "USAGE" if not _may(connection, target, "USAGE") else "CREATE"
    return StoreOpenError(
        target.url,
        f"the role {role!r} has no right {right} on the schema {target.schema!r}, which is to get "
        f"its tables ({message}). Let its owner do: GRANT USAGE, CREATE ON SCHEMA "
        f"{quoted(target.schema)} TO {quoted(role)}, or open the store once as its owner",
    )


def _may(connection: Connection, target: Target, right: str) -> bool:
    row = connection.execute(
        "SELECT pg_catalog.has_schema_privilege(%s, %s)", (target.schema, right)
    ).fetchone()
    return bool(row and row[0])


def _role(connection: Connection) -> str:
    row = connection.execute("SELECT current_user::text").fetchone()
    return str(row[0]) if row else "?"
