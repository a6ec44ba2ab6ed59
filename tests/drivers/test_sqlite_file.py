"""SQLite: what can be wrong with a file, and that nothing is lost then.

Every error names the file and the reason, and leaves what was there as it was.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import anyio
import pytest
import sqlite_utils
from attrs import define, field, frozen

from flowstate import (
    Command,
    Commit,
    Delay,
    DuePage,
    Durability,
    End,
    Engine,
    Flows,
    Pause,
    Query,
    SchemaVersionError,
    State,
    Status,
    StoreBusyError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreOpenError,
    StoreReadOnlyError,
    StoreUrlError,
    Transit,
    connect,
)
from flowstate.drivers.sqlite import SQLiteDriver, schema
from flowstate.drivers.sqlite.connection import File
from flowstate.drivers.sqlite.poller import FileSource
from flowstate.drivers.url import StoreUrl
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import TimedDriver, VirtualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.db"


def url(path: Path, options: str = "") -> str:
    return f"sqlite:///{path}{options}"


@frozen
class Watched(File):
    """A file whose connections a test can use too."""

    opened: list[sqlite3.Connection] = field(factory=list[sqlite3.Connection])

    def connect(self, *, creates: bool = False) -> sqlite3.Connection:
        self.opened.append(super().connect(creates=creates))
        return self.opened[-1]

    @property
    def writing(self) -> sqlite3.Connection:
        """The connection that prepares the store, and then writes."""
        return self.opened[0]


async def fill(path: Path, *ids: str) -> None:
    async with connect(url(path)) as driver, Engine(driver) as engine:
        for id in ids:
            await engine.do(Commit(Pause(State(id, labels={"queue": "mail"}), "work")))


async def test_a_relative_path_is_one_file_whatever_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the directory in which it was named; not even a file of that name elsewhere is
    touched."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
        await fill(folder / "orders.db", folder.name)
    monkeypatch.chdir(here)
    driver = connect("sqlite:///orders.db")
    monkeypatch.chdir(elsewhere)
    async with driver, Engine(driver) as engine:
        await engine.do(Commit(Pause(State("more"))))
        monkeypatch.chdir(tmp_path)
        await engine.do(Commit(Pause(State("still more"))))
        assert [state.id async for state in engine.states()] == ["here", "more", "still more"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "here"]


async def ids(path: Path) -> list[str]:
    async with connect(url(path)) as driver, Engine(driver) as engine:
        return [state.id async for state in engine.states()]


# ---------------------------------------------------------------- opening


async def test_a_path_may_begin_with_two_slashes(path: Path) -> None:
    async with connect(f"sqlite:////{path}") as driver, Engine(driver) as engine:
        await engine.do(Commit(Pause(State("a"), "work")))
    assert await ids(path) == ["a"]


async def test_a_file_that_is_no_database_is_refused_untouched(path: Path) -> None:
    """A text file is not turned into a store, nor emptied."""
    path.write_text("dear diary, " * 1_000)
    with pytest.raises(StoreOpenError, match=r"orders\.db: is not a SQLite database"):
        await connect(url(path)).open()
    assert path.read_text() == "dear diary, " * 1_000


async def test_a_database_of_something_else_is_refused_untouched(path: Path) -> None:
    """Somebody's own tables stay theirs."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE diary (day TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreOpenError, match="SQLite database of something else"):
        await connect(url(path)).open()
    assert path.read_bytes() == before


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The directory that has to be made is in the message."""
    with pytest.raises(StoreOpenError, match=r"the directory '.*/nowhere' does not exist"):
        await connect(url(tmp_path / "nowhere" / "orders.db")).open()
    assert not (tmp_path / "nowhere").exists()


async def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """A path that is a directory is told apart from one that cannot be opened."""
    with pytest.raises(StoreOpenError, match="is a directory"):
        await connect(url(tmp_path)).open()


async def test_a_newer_schema_is_refused_untouched(path: Path) -> None:
    """What a newer flowstate wrote is left alone, to the byte."""
    await fill(path, "order-1")
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError, match=rf"version {schema.VERSION + 1}, newer than"):
        await connect(url(path)).open()
    assert path.read_bytes() == before


async def test_mode_rw_does_not_make_a_store(path: Path) -> None:
    """``?mode=rw`` is for looking at a store that must be there."""
    with pytest.raises(StoreOpenError, match=r"does not exist; .*\?mode=rw makes no file"):
        await connect(url(path, "?mode=rw")).open()
    assert not path.exists()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_store_that_is_made_while_it_is_looked_at_is_ours(path: Path, nth: int) -> None:
    """Whichever statement of the look it is made before."""
    file = File(str(path))
    looking, making = file.connect(creates=True), file.connect(creates=True)
    statements: list[str] = []

    def make(statement: str) -> None:
        statements.append(statement)
        if len(statements) == nth:
            schema.migrate(making, str(path))

    looking.set_trace_callback(make)
    assert schema.version(looking, str(path)) in {0, schema.VERSION}
    looking.close()
    making.close()


async def test_two_processes_may_make_a_store_at_once(path: Path) -> None:
    """The schema is made once, whoever is first."""
    program = (
        "import anyio, sys; from flowstate import connect\n"
        "async def main():\n"
        "    async with connect(sys.argv[1]) as driver: await driver.head()\n"
        "anyio.run(main)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, url(path)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert [(child.returncode, error) for child, error in zip(children, errors, strict=True)] == [
        (0, b"")
    ] * 4
    assert await ids(path) == []


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a.db?busy_timeout=soon", "busy_timeout takes milliseconds, not 'soon'"),
        ("sqlite:///a.db?synchronous=off", "synchronous takes full or normal, not 'off'"),
        ("sqlite:///a.db?sync=full", "has no option 'sync'"),
        ("sqlite:///a.db?mode=rw&mode=ro", "gives an option twice"),
        ("nosuch:///a.db", "no driver for nosuch:"),
        ("orders.db", "is no store URL"),
        ("memory:orders", "takes no path"),
    ],
)
async def test_a_bad_url_says_what_is_wrong(bad: str, problem: str) -> None:
    """Nothing is opened under a URL that was misunderstood."""
    with pytest.raises(StoreUrlError) as caught:
        connect(bad)
    assert problem in str(caught.value)


def test_a_password_is_never_shown() -> None:
    """An error about a URL does not print the secret in it."""
    with pytest.raises(StoreUrlError) as caught:
        connect("nosuch://user:secret@host/db")
    assert "secret" not in str(caught.value)
    assert "user:***@host" in str(caught.value)


@pytest.mark.parametrize(
    "given", ["nosuch:///a.db", "nosuch:////srv/a.db?b=1", "nosuch://host/a#b", "nosuch:a"]
)
def test_a_url_is_shown_as_it_was_given(given: str) -> None:
    """With all of its slashes: they tell a relative path from an absolute one."""
    with pytest.raises(StoreUrlError) as caught:
        connect(given)
    assert caught.value.store == given


# ---------------------------------------------------------------- durability


@pytest.mark.parametrize(
    ("options", "level", "pragma"),
    [
        ("", Durability.POWER, 2),
        ("?synchronous=full", Durability.POWER, 2),
        ("?synchronous=normal", Durability.PROCESS, 1),
    ],
)
async def test_durability_is_what_the_connection_does(
    path: Path, options: str, level: Durability, pragma: int
) -> None:
    """What the driver declares is what its writing connection is set to."""
    asked = File.from_url(StoreUrl.parse(url(path, options)))
    file = Watched(asked.path, asked.synchronous, asked.busy_timeout, asked.mode)
    async with SQLiteDriver(file) as driver:
        assert driver.durability == level
        assert file.writing.execute("PRAGMA synchronous").fetchone() == (pragma,)
        assert file.writing.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# ---------------------------------------------------------------- while it is open


async def test_a_full_disk_fails_only_the_plan_that_does_not_fit(path: Path) -> None:
    """StoreFullError, nothing of that plan is there, and what fits is still written."""
    file = Watched(str(path))
    async with SQLiteDriver(file) as driver, Engine(driver) as engine:
        (pages,) = file.writing.execute("PRAGMA page_count").fetchone()
        file.writing.execute(f"PRAGMA max_page_count = {pages + 20}")
        large = State("large").attach("blob", bytes(1 << 20))
        failed: list[str] = []

        async def commit(state: State) -> None:
            try:
                await engine.do(Commit(Pause(state, "work")))
            except StoreFullError as error:
                assert str(path) in str(error)  # noqa: PT017  (one of three may fail, and only one)
                failed.append(state.id)

        async with anyio.create_task_group() as tasks:  # one turn of the loop: one group
            for state in (State("small-1"), large, State("small-2")):
                tasks.start_soon(commit, state)
        assert failed == ["large"]
        written = [state async for state in engine.states()]
        assert {state.id for state in written} == {"small-1", "small-2"}
        assert [state.rev for state in written] == [1, 2]

        file.writing.execute("PRAGMA max_page_count = 100000")
        await engine.do(Commit(Pause(large, "work")))
        assert [state.rev async for state in engine.states()] == [1, 2, 3]


async def test_a_lock_held_past_the_timeout_is_told_and_nothing_is_written(path: Path) -> None:
    """StoreBusyError after ``busy_timeout``; the same commit succeeds once the lock is gone."""
    await fill(path, "order-1")
    holder = sqlite3.connect(path, isolation_level=None)
    async with connect(url(path, "?busy_timeout=20")) as driver, Engine(driver) as engine:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match=r"orders\.db: is locked by another process"):
            await engine.do(Commit(Pause(State("order-2"), "work")))
        holder.execute("ROLLBACK")
        await engine.do(Commit(Pause(State("order-2"), "work")))
    holder.close()
    assert await ids(path) == ["order-1", "order-2"]


@define(eq=False)
class CountingDriver(TimedDriver):
    looks: int = 0
    """How often it was asked what is due."""

    async def due(self, until: int, limit: int) -> DuePage:
        self.looks += 1
        return await super().due(until, limit)


async def test_a_row_that_does_not_decode_is_named_and_hides_no_other(path: Path) -> None:
    """StoreCorruptError says which revision of which file; the other states are still there."""
    await fill(path, "order-1", "order-2")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE versions SET state = '{\"id\": 7}' WHERE rev = 1")
    raw.close()
    async with connect(url(path)) as driver, Engine(driver) as engine:
        with pytest.raises(StoreCorruptError, match=r"orders\.db: the version at revision 1"):
            await engine.get("order-1")
        assert (await engine.get("order-2")).rev == 2
        await engine.do(Commit(End(await engine.get("order-2"))))


async def test_a_row_that_does_not_decode_is_not_spun_on_by_recovery(path: Path) -> None:
    """It is due all the time; what else is due for its flow runs when it is due, and recovery looks
    no more often than without it."""
    flows = Flows()

    @flows.flow
    async def work(state: State, engine: Engine) -> Command:
        return Commit(End(state))

    clock = VirtualClock()
    driver = SQLiteDriver(File(str(path)), clock=clock)
    async with (
        clock.running(),
        CountingDriver(driver, clock) as store,
        Engine(store, flows, clock=clock) as engine,
    ):
        await engine.do(Commit(Delay(State("bad"), "work", after=1)))
        await engine.do(Commit(Delay(State("good"), "work", after=2)))
        await engine.do(Commit(Delay(State("next"), "work", after=30.5)))
        with sqlite3.connect(path) as raw:
            raw.execute("UPDATE versions SET state = '{\"id\": 7}' WHERE rev = 1")
        raw.close()
        async with Recoverer(engine) as recoverer:
            end = clock.now() + 60_000
            while clock.now() < end:
                await clock.wait_until(end)
            stats = recoverer.stats()
            assert (2, 1, 0) == (stats.fired, stats.errors, stats.max_late_ms)
            assert store.looks <= 100


async def test_a_damaged_payload_is_noticed(path: Path) -> None:
    """A payload is checked against the checksum in its reference."""
    async with connect(url(path)) as driver, Engine(driver) as engine:
        (state,) = await engine.do(Commit(Pause(State("order-1").attach("blob", b"gold"), "work")))
        with sqlite3.connect(path) as raw:
            raw.execute("UPDATE payloads SET content = ?", (b"lead",))
        raw.close()
        async with Engine(driver) as other:  # the first has it still at hand
            with pytest.raises(StoreCorruptError, match="does not match its checksum"):
                await other.data(state, "blob")


async def test_a_store_opened_read_only_can_be_read(path: Path) -> None:
    """``?mode=ro`` reads, and refuses to write."""
    await fill(path, "order-1")
    async with connect(url(path, "?mode=ro")) as driver, Engine(driver) as engine:
        assert (await engine.get("order-1")).transition.status is Status.PAUSED
        with pytest.raises(StoreReadOnlyError, match="was opened with \\?mode=ro"):
            await engine.do(Commit(End(await engine.get("order-1"))))


async def test_a_file_without_the_right_to_write_is_told(path: Path, tmp_path: Path) -> None:
    """Another user's store: an error that names the file, and the file as it was."""
    await fill(path, "order-1")
    before = path.read_bytes()
    program = (
        "import anyio, os, sys; from flowstate import *\n"
        "async def main():\n"
        "    driver = connect(sys.argv[1])\n"  # all is imported now, wherever it is
        "    if os.geteuid() == 0: os.setuid(65534)\n"
        "    async with driver, Engine(driver) as engine:\n"
        "        await engine.do(Commit(End(await engine.get('order-1'))))\n"
        "try: anyio.run(main)\n"
        "except StoreError as error: print(type(error).__name__, error)"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == tmp_path.stat().st_uid and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        child = subprocess.run(
            [sys.executable, "-c", program, url(path)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        tmp_path.chmod(0o755)
        path.chmod(0o644)
    assert (0, "") == (child.returncode, child.stderr)
    assert child.stdout.startswith(("StoreReadOnlyError ", "StoreOpenError ")), child.stdout
    assert str(path) in child.stdout
    assert path.read_bytes() == before


async def test_a_closed_driver_says_so(path: Path) -> None:
    """Neither reading nor writing happens outside ``async with``."""
    driver = connect(url(path))
    with pytest.raises(StoreClosedError):
        await driver.get("order-1")
    async with driver:
        pass
    with pytest.raises(StoreClosedError):
        await driver.wait(0)


async def test_names_with_quotes_are_only_names(path: Path) -> None:
    """Ids, labels and prefixes are values to SQLite, never text of a statement."""
    nasty = "x' OR '1'='1"
    async with connect(url(path)) as driver, Engine(driver) as engine:
        state = State(nasty, labels={nasty: nasty})
        await engine.do(Commit(Pause(state, "work"), Pause(State("other"), "work")))
        for query in (
            Query(id=nasty),
            Query(id_prefix="x' OR"),
            Query(labels={nasty: nasty}),
            Query(labels={nasty: nasty}, latest=True),
        ):
            assert [found.id async for found in engine.states(query)] == [nasty]
        assert (await engine.find({nasty: nasty})).id == nasty


async def test_people_can_read_the_tables(path: Path) -> None:
    """The log and the current states are plain rows, for sqlite-utils and Datasette."""
    async with connect(url(path)) as driver, Engine(driver) as engine:
        (state,) = await engine.do(
            Commit(Pause(State("order-1", labels={"queue": "mail"}), "work"))
        )
        await engine.do(Commit(End(state)))
    db = sqlite_utils.Database(path)
    assert [(row["rev"], row["status"]) for row in db["versions"].rows] == [
        (1, "paused"),
        (2, "ended"),
    ]
    (row,) = db.query("SELECT id, rev, status, labels, state ->> '$.id' AS same FROM states")
    db.close()
    assert row == {
        "id": "order-1",
        "rev": 2,
        "status": "ended",
        "labels": '{"queue":"mail"}',
        "same": "order-1",
    }


# ---------------------------------------------------------------- places


async def test_of_what_makes_no_revision_only_releases_wake_others(path: Path) -> None:
    """Who waits in another process would look for nothing after each claim and each renewal."""
    seen = FileSource(File(str(path)))
    async with connect(url(path)) as driver, Engine(driver) as engine:
        (state,) = await engine.do(Commit(Transit(State("a"), "work")))
        before = seen.look()
        assert before is not None
        await driver.claim({"work": 1}, 1, "owner", "claim", 0)
        assert before == seen.look()
        held = [(state.id, state.rev, "claim")]
        await driver.renew(held, "owner", 1)
        assert before == seen.look()
        await driver.release([(state.id, state.rev, "other")], "owner", 2)
        assert seen.look() in {before, None}
        await driver.release(held, "owner", 2)
        after = seen.look()
        assert after is not None
        assert (before.rev, True) == (after.rev, after.mark != before.mark)
    seen.close()


@pytest.mark.parametrize("synchronous", ["full", "normal"])
async def test_claims_do_not_wait_for_the_disk_and_commits_do(path: Path, synchronous: str) -> None:
    """Unless the file was opened so that nothing does."""
    file = Watched(str(path), synchronous)
    now = synchronous
    committed: list[str] = []

    def note(sql: str) -> None:
        nonlocal now
        if sql.startswith("PRAGMA synchronous = "):
            now = sql.removeprefix("PRAGMA synchronous = ")
        elif sql == "COMMIT":
            committed.append(now)

    async with SQLiteDriver(file) as driver, Engine(driver) as engine:
        file.writing.set_trace_callback(note)
        (state,) = await engine.do(Commit(Transit(State("a"), "work")))
        await driver.claim({"work": 1}, 1, "owner", "claim", 0)
        await driver.renew([("a", state.rev, "claim")], "owner", 1)
        await engine.do(Commit(Transit(State("b"), "work")))
        await driver.release([("a", state.rev, "claim")], "owner", 1)
    assert [synchronous, "normal", "normal", synchronous, "normal"] == committed


def _replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


def _delete_all(path: Path) -> None:
    for each in path.parent.glob("store.db*"):
        each.unlink()


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("away.db")),
    "replaced": _replace,
    "its log deleted": lambda path: path.with_name("store.db-wal").unlink(),
    "its shared memory deleted": lambda path: path.with_name("store.db-shm").unlink(),
    "all deleted": _delete_all,
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
async def test_a_file_that_is_lost_while_it_is_open_is_told(
    tmp_path: Path, lose: Callable[[Path], object]
) -> None:
    """By the next commit and by who opens another reader; nothing is acknowledged that goes
    nowhere, and no empty file is made."""
    path = tmp_path / "store.db"
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        await engine.do(Commit(Pause(State("a"))))
        lose(path)
        left = sorted(tmp_path.iterdir())
        for id in ("b", "c"):
            with pytest.raises(StoreOpenError, match="while the store was open"):
                await engine.do(Commit(Pause(State(id))))
        with suppress(StoreError):
            assert (await engine.get("a")).rev == 1
        with suppress(StoreError):
            assert await driver.head() == 1
        assert left == sorted(tmp_path.iterdir())


async def test_what_others_do_to_a_file_is_no_loss(tmp_path: Path) -> None:
    """VACUUM, a backup, another process that opens and closes it: commits go on."""
    path = tmp_path / "store.db"
    async with connect(f"sqlite:///{path}") as driver, Engine(driver) as engine:
        await engine.do(Commit(Pause(State("a"))))
        async with connect(f"sqlite:///{path}") as other, Engine(other) as beside:
            await beside.do(Commit(Pause(State("b"))))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
            with closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
                connection.backup(backup)
        (c,) = await engine.do(Commit(Pause(State("c"))))
        assert c.rev == 3
    for name in ("copy.db", "backup.db"):
        async with connect(f"sqlite:///{tmp_path / name}") as driver:
            assert await driver.head() == 2
