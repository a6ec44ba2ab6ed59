"""SQLite: content that is forgotten is on the disk no longer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attrs import frozen

from flowstate import (
    Commit,
    DataForgottenError,
    DataRef,
    End,
    Engine,
    Pause,
    Retention,
    SchemaVersionError,
    State,
)
from flowstate.clock import MAX_INSTANT_MS
from flowstate.drivers.sqlite import SQLiteDriver, schema
from flowstate.drivers.sqlite.connection import File

ENDED = Retention(MAX_INSTANT_MS, ended=True)

pytestmark = pytest.mark.anyio


@frozen
class Careless(File):
    """A file whose connections leave what is deleted where it was, which is for SQLite's builders
    to choose."""

    def connect(self, *, creates: bool = False) -> sqlite3.Connection:
        connection = super().connect(creates=creates)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.db"


@pytest.fixture
def driver(path: Path) -> SQLiteDriver:
    return SQLiteDriver(Careless(str(path), busy_timeout=50))


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def is_in(content: bytes, file: Path) -> bool:
    """Whether any part of it is: each begins as the first does."""
    return content[:7] in file.read_bytes()


async def store(engine: Engine, id: str, content: bytes) -> DataRef:
    (state,) = await engine.do(Commit(Pause(State(id).attach("order", content))))
    ref = state.data["order"]
    assert isinstance(ref, DataRef)
    return ref


def secret(size: int, name: str = "secret") -> bytes:
    """Each part of 16 bytes has that name in it."""
    return b"".join(b"%s %08d/" % (name.encode(), n) for n in range(size // 16 + 1))[:size]


@pytest.mark.parametrize("size", [64, 4_000, 100_000])
@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["in the WAL", "in the file"])
async def test_it_is_overwritten(
    path: Path, driver: SQLiteDriver, size: int, *, is_checkpointed: bool
) -> None:
    """Of what is long every part, whatever page it is on; what was stored beside it stays."""
    content = secret(size)
    async with driver, Engine(driver) as engine:
        beside = [await store(engine, f"{n}", secret(64, f"{n:06}")) for n in range(3)]
        ref = await store(engine, "a", content)
        beside += [await store(engine, f"{n}", secret(64, f"{n:06}")) for n in range(3, 6)]
        if is_checkpointed:
            with closing(sqlite3.connect(path)) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert is_in(content, path) is is_checkpointed
        assert is_in(content, wal(path)) is not is_checkpointed
        assert await driver.forget("a", [(ref.rev, ref.checksum)]) == 0
        assert not is_in(content, path)
        assert not is_in(content, wal(path))
        with pytest.raises(DataForgottenError):
            await driver.load(ref)
        for n, each in enumerate(beside):
            assert await driver.load(each) == secret(64, f"{n:06}")


@pytest.mark.parametrize("size", [96, 4_000, 20_000])
async def test_no_copy_is_left_where_it_was_moved_from(
    path: Path, driver: SQLiteDriver, size: int
) -> None:
    """Compaction moves about what it does not remove."""
    async with driver, Engine(driver) as engine:
        contents = [secret(size, f"{n:06}") for n in range(100)]
        refs = [await store(engine, f"{n}", content) for n, content in enumerate(contents)]
        for n in range(100):
            if n % 7:
                await engine.do(Commit(End(await engine.get(f"{n}"))))
        after = 0
        while not (batch := await driver.compact(ENDED, after, 20)).done:
            after = batch.upto
        for n in range(0, 100, 7):
            await driver.forget(f"{n}", [(refs[n].rev, refs[n].checksum)])
        found = [n for n in range(0, 100, 7) if is_in(contents[n], path)]
        assert not found


async def test_who_reads_what_is_older_is_not_in_its_way(path: Path, driver: SQLiteDriver) -> None:
    """It goes on reading that. The content goes from the WAL the next time that anything is
    committed."""
    content = secret(1_000)
    async with driver, Engine(driver) as engine:
        ref = await store(engine, "a", content)
        with closing(sqlite3.connect(path, isolation_level=None)) as reading:
            reading.execute("BEGIN")
            read = "SELECT content FROM payloads WHERE rev = ?"
            assert reading.execute(read, (ref.rev,)).fetchall() == [(content,)]
            await driver.forget("a", [(ref.rev, ref.checksum)])
            with pytest.raises(DataForgottenError):
                await driver.load(ref)
            await store(engine, "b", b"pears")
            assert reading.execute(read, (ref.rev,)).fetchall() == [(content,)]
        assert is_in(content, wal(path))
        await store(engine, "c", b"apples")
        assert not is_in(content, wal(path))
        assert not is_in(content, path)


async def test_content_that_cannot_be_forgotten_is_left(path: Path, driver: SQLiteDriver) -> None:
    """All or nothing, and the connection is as it was."""
    async with driver, Engine(driver) as engine:
        ref = await store(engine, "a", b"pears")
        for version, expected in ((schema.VERSION + 1, SchemaVersionError), (schema.VERSION, None)):
            with closing(sqlite3.connect(path)) as other:
                other.execute(f"PRAGMA user_version = {version}")
            if expected:
                with pytest.raises(expected):
                    await driver.forget("a", [(ref.rev, ref.checksum)])
                assert await driver.load(ref) == b"pears"
        await driver.forget("a", [(ref.rev, ref.checksum)])
        with pytest.raises(DataForgottenError):
            await driver.load(ref)
