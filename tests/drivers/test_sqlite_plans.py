"""SQLite: which indexes serve which query, and how much each looks at, in a store of any size.

Nothing here asks for statistics: no store has any.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from flowstate import DataRef, Query, RetryPolicy, State, Status
from flowstate.clock import SystemClock
from flowstate.commands import Command, Commit, Fail, Pause, Transit
from flowstate.drivers.group_commit import Take
from flowstate.drivers.sqlite import schema
from flowstate.drivers.sqlite.connection import File, Identity
from flowstate.drivers.sqlite.reader import Reader
from flowstate.drivers.sqlite.writer import Writer
from flowstate.leases import ready
from flowstate.transitions import plan

FEW, MANY = 200, 20_000
"""Current versions. Three are FAILED, three have a rare label, three a rare beginning of their ids,
three have lost a rare label, three are ready; nearly all are PAUSED at one flow, with one label."""


@define(eq=False)
class Counted:
    """A connection that explains each statement before it does it, and counts what SQLite does."""

    inside: sqlite3.Connection
    plans: dict[str, list[str]] = field(factory=dict[str, list[str]])
    """statement -> its plan"""
    steps: int = 0
    """Instructions of SQLite's machine, in tens."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        if re.match(r"\s*(SELECT|WITH|UPDATE|DELETE|INSERT)", sql) and sql not in self.plans:
            self.inside.set_progress_handler(None, 0)
            rows = self.inside.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
            self.plans[sql] = [row[3] for row in rows]
        self.inside.set_progress_handler(self._count, 10)
        return self.inside.execute(sql, parameters)

    def _count(self) -> None:
        self.steps += 1


@define(eq=False)
class Filled:
    """A store, with that many current versions."""

    file: File
    size: int
    reading: Counted
    writing: Counted

    @property
    def reader(self) -> Reader:
        connection: Any = self.reading
        return Reader(connection, self.file.path)

    @property
    def writer(self) -> Writer:
        connection: Any = self.writing
        return Writer(connection, self.file, SystemClock(), Identity(self.file))


def commit(writer: Writer, *commands: Command) -> list[State]:
    made = plan(
        Commit(*commands), commit_id=f"{id(commands)}", now=0, policy=RetryPolicy(), place_of=ready
    )
    (outcome,) = writer.write([made])
    assert not isinstance(outcome, Exception), outcome
    return list(outcome)


def fill(writer: Writer, size: int) -> None:
    """What is rare comes first: no scan from the newest finds it soon."""
    begun = (Transit(State(f"failed/{n}", labels=OFTEN), "work") for n in range(3))
    commit(writer, *(Fail(state, "no") for state in commit(writer, *begun)))
    rare = (Pause(State(f"seldom/{n}", labels=SELDOM), "rest") for n in range(3))
    lost = (state.without_labels("seldom") for state in commit(writer, *rare))
    commit(writer, *(Pause(state, "rest") for state in lost))
    commit(writer, *(Pause(State(f"has/{n}", labels=SELDOM), "rest") for n in range(3)))
    commit(writer, *(Transit(State(f"ready/{n}", labels=OFTEN), "work") for n in range(3)))
    commit(writer, Pause(State("a").attach("order", b"pears"), "rest"))
    for start in range(0, size, 500):
        numbers = range(start, min(start + 500, size))
        commit(writer, *(Pause(State(f"state/{n}", labels=OFTEN), "rest") for n in numbers))


OFTEN = {"often": "yes"}
SELDOM = {"often": "yes", "seldom": "yes"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Filled, Filled]]:
    """A small and a large store."""
    folder: Path = tmp_path_factory.mktemp("plans")
    made: list[Filled] = []
    for size in (FEW, MANY):
        file = File(str(folder / f"{size}.db"), "normal")
        with closing(file.connect(creates=True)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            schema.migrate(connection, file.path)
            fill(Writer(connection, file, SystemClock(), Identity(file)), size)
        made.append(Filled(file, size, Counted(file.connect()), Counted(file.connect())))
    yield made[0], made[1]
    for each in made:
        each.reading.inside.close()
        each.writing.inside.close()


def page(query: Query, *, newest_first: bool = False) -> Callable[[Filled], object]:
    """All that there is: it has to be in one page."""

    def read(store: Filled) -> object:
        head = store.reader.head()
        found = store.reader.read(query, head + 1 if newest_first else 0, 10, newest_first)
        assert found.upto == (1 if newest_first else head), "there are more pages"
        return found.versions

    return read


def full_page(query: Query, *, newest_first: bool = False) -> Callable[[Filled], object]:
    """A page of ten."""

    def read(store: Filled) -> object:
        start = store.reader.head() + 1 if newest_first else 0
        found = store.reader.read(query, start, 10, newest_first).versions
        return found if len(found) == 10 else ()

    return read


READS: dict[str, Callable[[Filled], object]] = {
    "a version": lambda s: s.reader.get("has/1", None),
    "a page": full_page(Query()),
    "the newest": full_page(Query(), newest_first=True),
    "a label": full_page(Query(labels=OFTEN)),
    "a label, newest": full_page(Query(labels=OFTEN), newest_first=True),
    "a label, current": full_page(Query(labels=OFTEN, latest=True)),
    "current": full_page(Query(latest=True)),
    "current, newest": full_page(Query(latest=True), newest_first=True),
    "at rest": full_page(Query(latest=True, status=[Status.PAUSED, Status.FAILED])),
    "a rare label": page(Query(labels=SELDOM)),
    "a rare label, newest": page(Query(labels=SELDOM), newest_first=True),
    "a label that was left": page(Query(labels=SELDOM, leaving=True)),
    "a label that was left, newest": page(Query(labels=SELDOM, leaving=True), newest_first=True),
    "of a state": page(Query(id="seldom/1", leaving=True)),
    "of a state, current": page(Query(id="seldom/1", latest=True)),
    "rare labels": page(Query(labels=[SELDOM, {"none": "such"}], latest=True)),
    "a rare status": page(Query(status=Status.FAILED, latest=True)),
    "a rare status and a label": page(Query(status=Status.FAILED, labels=OFTEN, latest=True)),
    "a rare prefix": page(Query(id_prefix="has/", latest=True)),
    "a rare prefix and a label": page(Query(id_prefix="has/", labels=OFTEN, latest=True)),
    "a rare prefix, newest": page(Query(id_prefix="has/", latest=True), newest_first=True),
    "find": lambda s: s.reader.find(Query()),
    "find by a label": lambda s: s.reader.find(Query(labels=SELDOM)),
    "find by a status": lambda s: s.reader.find(Query(status=[Status.FAILED, Status.ENDED])),
    "find by a status and a label": lambda s: s.reader.find(
        Query(status=Status.FAILED, labels=OFTEN)
    ),
    "find by a prefix": lambda s: s.reader.find(Query(id_prefix="has/")),
    "find by a prefix of many": lambda s: s.reader.find(Query(id_prefix="state/")),
    "find by no prefix": lambda s: s.reader.find(Query(id_prefix="none/")) is None,
    "find no status": lambda s: s.reader.find(Query(status=Status.ENDED)) is None,
    "count a label": lambda s: s.reader.count(Query(labels=SELDOM), "status"),
    "count a status": lambda s: s.reader.count(Query(status=Status.FAILED), "flow"),
    "count a prefix": lambda s: s.reader.count(Query(id_prefix="has/"), "flow"),
    "count a state": lambda s: s.reader.count(Query(id="a"), "flow"),
    "where it stands": lambda s: s.reader.place("ready/1"),
    "the line": lambda s: s.reader.line(),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_read_costs_the_same_in_a_large_store(
    stores: tuple[Filled, Filled], name: str
) -> None:
    """SQLite does as much for it, by an index each time."""
    steps: list[int] = []
    for store in stores:
        store.reading.plans.clear()
        store.reading.steps = 0
        assert READS[name](store)
        steps.append(store.reading.steps)
        check(store.reading)
    small, large = steps
    assert large <= 1.2 * small + 20


def payload(store: Filled) -> DataRef:
    state = store.reader.get("a", None)
    assert state is not None
    (ref,) = state.data.values()
    assert isinstance(ref, DataRef)
    return ref


def forget(store: Filled) -> bool:
    ref = payload(store)
    return store.writer.forget("b", [(ref.rev, ref.checksum)]) == 1


def take(store: Filled) -> object:
    taken = store.writer.claim({"work": 1}, 1, "owner", "claim", 0)
    held = [(each.state.id, each.state.rev, "claim") for each in taken]  # type: ignore[union-attr]
    store.writer.release(held, "owner", 0)
    store.writer.take([Take([("ready/2", 0)], "owner", "other", 0)])
    return held


def move(store: Filled) -> object:
    before = store.reader.get("state/77", None)
    assert before is not None
    return commit(store.writer, Pause(before.with_labels({"now": "this"}), "work"))


WRITES: dict[str, Callable[[Filled], object]] = {"move": move, "forget": forget, "take": take}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_costs_the_same_in_a_large_store(
    stores: tuple[Filled, Filled], name: str
) -> None:
    steps: list[int] = []
    for store in stores:
        store.writing.plans.clear()
        store.writing.steps = 0
        assert WRITES[name](store)
        steps.append(store.writing.steps)
        check(store.writing)
    small, large = steps
    assert large <= 1.2 * small + 20


BOUNDED = {
    "USE TEMP B-TREE FOR GROUP BY",
    "USE TEMP B-TREE FOR count(DISTINCT)",
    "USE TEMP B-TREE FOR ORDER BY",
}
"""Sorting, where it is of what was found by an index: the revisions of few states, say."""
SHORT = {"compacted", "released", "ids", "flows", "line", "ready"}
"""Tables of one row, and what statements make of what they found by an index."""


def check(connection: Counted) -> None:
    """No statement looks at a whole table, or sorts what it has from one."""
    assert connection.plans
    for sql, lines in connection.plans.items():
        for line in lines:
            table = re.match(r"SCAN (\w+)", line)
            if table and "VIRTUAL TABLE" not in line and "CONSTANT ROW" not in line:
                assert table[1] in SHORT or "LIMIT 1" in sql, (sql, lines)
            if "TEMP B-TREE" in line:
                assert line in BOUNDED, (sql, lines)
                assert any("VIRTUAL TABLE" in each for each in lines), (sql, lines)
