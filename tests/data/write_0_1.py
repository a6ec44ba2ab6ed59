"""Writes a store of flowstate 0.1 as SQL scripts beside this file: ``0.1-sqlite.sql``, and
``0.1-postgresql.sql`` where {s} stands for the schema; and in ``0.1.json`` what flowstate 0.1
itself read from it.

It was run with the code of that version, revision 5f2136e, and a new schema of a database::

    PYTHONPATH=flowstate-0.1 python tests/data/write_0_1.py 'postgresql://…?schema=store'

All is committed at 1_700_000_000_000 ms.
"""

# ruff: noqa: INP001, S608

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import anyio
import msgspec
import psycopg
from psycopg.sql import Literal

from flowstate import (
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    Pause,
    Query,
    RetryPolicy,
    State,
    Transit,
    connect,
)
from flowstate.drivers.postgres import schema
from flowstate.recovery import Recoverer
from flowstate.testing.virtual import TimedDriver, VirtualClock

HERE = Path(__file__).parent
FOREVER = 2**62

flows = Flows()


@flows.flow
async def boom(state: State, engine: Engine) -> Command:
    raise ValueError("boom")


@flows.flow
async def hang(state: State, engine: Engine) -> Command:
    await anyio.sleep_forever()
    raise AssertionError


@flows.flow
async def work(state: State, engine: Engine) -> Command:
    return Commit(End(state, reason="worked"))


async def write(driver: Driver, clock: VirtualClock) -> None:
    """All kinds of states."""
    async with engine_of(driver, clock) as engine:
        paused = State("paused", labels={"queue": "mail", "town": "Zürich"})
        paused = paused.attach("order", {"item": "pears"}).attach("raw", b"\x00\xff")
        (paused,) = await engine.do(Commit(Pause(paused, to="work", reason="wait")))
        (paused,) = await engine.do(
            Commit(Pause(paused, to="work", timeout=60, on_timeout="late", annotations={"n": "1"}))
        )
        shared = State("shared", data={"order": paused.data["order"]}, annotations={"why": "copy"})
        stacked = State("stacked").stack("paused", paused).attach("own", [1, 2, 3])
        (shared, stacked) = await engine.do(Commit(Pause(shared), Transit(stacked, "lost")))
        await engine.do(Commit(Delay(State("delayed", labels={"queue": "mail"}), "work", after=30)))
        await engine.do(Commit(Transit(State("timed"), "work", timeout=5, on_timeout="late")))
        await engine.do(Commit(Transit(State("leased", labels={"queue": "print"}), "work")))
        own = RetryPolicy(lease=90, max_attempts=7, backoff=2)
        await engine.do(Commit(Transit(State("own policy", retry=own), "work")))
        await engine.do(Commit(Transit(State("unretried", retry=OFF), "work")))
        (failing,) = await engine.do(Commit(Transit(State("failing"), "boom")))
        (given_up,) = await engine.do(Commit(Transit(State("given up", retry=ONCE), "boom")))
        for state in (failing, given_up):
            with suppress(ValueError):
                await engine.execute(state)
        (ended,) = await engine.do(Commit(Transit(State("ended").attach("x", "y"), "work")))
        await engine.execute(ended)
    async with engine_of(driver, clock) as engine:  # when it is left, it releases what runs
        (released,) = await engine.do(Commit(Transit(State("released"), "hang")))
        await engine.start(released)
        await anyio.wait_all_tasks_blocked()
    leads = anyio.Event()

    def told(event: Any, term: int) -> None:
        if event.name == "WON":
            leads.set()

    async with (
        engine_of(driver, clock) as engine,
        Recoverer(engine, "default", name="a/1", tell=told),  # type: ignore[arg-type, call-arg]  # as 0.1 has it
    ):
        await leads.wait()
        id = "flowstate.recovery/night"  # its leader died: this is what it had committed
        leader = State(id, labels={"leader": "b/1"}, retry=RetryPolicy(lease=10))
        await engine.do(Commit(Transit(leader, id)))


OFF = RetryPolicy(enabled=False)
ONCE = RetryPolicy(max_attempts=1)


def engine_of(driver: Driver, clock: VirtualClock) -> Engine:
    return Engine(driver, flows, clock=clock, grace=0, chance=lambda: 0.0)


async def read(driver: Any) -> dict[str, Any]:
    """What this code reads of a store."""
    page = await driver.read(Query(), 0, 1_000)
    payloads = {
        (ref.rev, ref.checksum): ref
        for state in page.versions
        for each in (state, *state.stacked.values())
        for ref in each.data.values()
    }
    return {
        "versions": json.loads(msgspec.json.encode(page.versions)),
        "payloads": [
            [*key, (await driver.load(ref)).hex()] for key, ref in sorted(payloads.items())
        ],
        "due": [
            [due.state.id, due.state.rev, due.time]
            for due in await driver.due(FOREVER, await driver.due_flows(), 1_000)
        ],
    }


async def main(url: str) -> None:
    path = HERE / "0.1.db"
    path.unlink(missing_ok=True)
    found: list[dict[str, Any]] = []
    for store in (f"sqlite:///{path}", url):
        clock = VirtualClock()
        driver: Any = connect(store)
        driver.clock = clock
        async with TimedDriver(driver, clock) as driver:
            await write(driver, clock)
            found.append(await read(driver))
    assert found[0] == found[1]
    (HERE / "0.1.json").write_text(json.dumps(found[0], ensure_ascii=False) + "\n")
    (HERE / "0.1-postgresql.sql").write_text("".join(f"{line};\n" for line in dumped(url)))
    with closing(sqlite3.connect(path)) as connection:
        lines = [*pragmas(connection), *connection.iterdump()]
    (HERE / "0.1-sqlite.sql").write_text("".join(f"{line}\n" for line in lines))
    path.unlink()


def pragmas(connection: sqlite3.Connection) -> list[str]:
    """What is in the header of a file."""
    names = ("application_id", "user_version")
    values = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    return [f"PRAGMA {name} = {value};" for name, value in zip(names, values, strict=True)]


def dumped(url: str) -> list[str]:
    """The statements that make the store again."""
    plain, _, query = url.partition("?")
    options: Any = dict(parse_qsl(query))
    name = options.pop("schema")
    lines = ["CREATE SCHEMA {s}", *(text for part in schema.MIGRATIONS for text in part)]
    with psycopg.connect(plain, **options) as connection:
        lines += [f"DELETE FROM {{s}}.{table}" for table in ("head", "meta")]
        for table in schema.TABLES:
            rows = connection.execute(f"SELECT * FROM {name}.{table}")
            columns = [column.name for column in rows.description or ()]
            listed = ", ".join(f"{c}::text" if c == "state" else c for c in columns)
            for row in connection.execute(f"SELECT {listed} FROM {name}.{table} ORDER BY 1"):
                values = ", ".join(Literal(value).as_string(connection) for value in row)
                lines.append(f"INSERT INTO {{s}}.{table} ({', '.join(columns)}) VALUES ({values})")
    return lines


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
