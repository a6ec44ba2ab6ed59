"""Reading: pages of the log, the newest match, one version, and payloads."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from ...commands import Command, Delay, End, Pause, Require, Transit
from ...data import DataRef
from ...driver import Driver
from ...errors import DataNotFoundError
from ...query import Query
from ...state import RetryPolicy, State, Status
from ..store import Store
from .base import Laws, create, move, put, read_all, revs

QUERIES = {
    "everything": Query(),
    "label": Query(labels={"queue": "mail"}),
    "missing-label": Query(labels={"queue": "nothing"}),
    "all-of": Query(labels={"queue": "mail", "size": "1"}),
    "any-of": Query(labels=[{"queue": "mail"}, {"size": "2"}]),
    "any-of-all-of": Query(labels=[{"queue": "mail", "size": "0"}, {"size": "2", "odd": "yes"}]),
    "one-of-any-missing": Query(labels=[{"queue": "nothing"}, {"size": "1"}]),
    "empty-label-value": Query(labels={"empty": ""}),
    "id": Query(id="order/3"),
    "missing-id": Query(id="order/99"),
    "id-and-label": Query(id="order/3", labels={"queue": "mail"}),
    "id-prefix": Query(id_prefix="order/"),
    "id-prefix-like-a-pattern": Query(id_prefix="100%_"),
    "id-prefix-case": Query(id_prefix="ORDER/"),
    "id-prefix-and-label": Query(id_prefix="order/", labels={"size": "1"}),
    "status": Query(status=Status.PAUSED),
    "statuses": Query(status={Status.ENDED, Status.DELAYED}),
    "status-and-label": Query(status=Status.RUNNING, labels=[{"size": "1"}, {"odd": "yes"}]),
    "flow": Query(flow="next"),
    "flows-and-label": Query(flow=["next", "later"], labels={"size": "1"}),
    "missing-flow": Query(flow="nothing"),
    "quotes": Query(labels={"it's": 'a "label"'}),
    "unicode": Query(labels={"größe": "☃"}),
}


class ReadLaws(Laws):
    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    async def test_read_is_a_filter_of_the_log(self, driver: Driver, query: Query) -> None:
        """For every kind of query, page by page: exactly the versions of the whole log that match,
        in revision order; every page within its limit and further than the one before."""
        log = await write_varied(driver)
        expected = [state for state in log if query.matches(state)]
        assert await _paged(driver, query, 7) == expected

    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    async def test_latest_is_a_filter_of_the_current_versions(
        self, driver: Driver, query: Query
    ) -> None:
        """With ``latest``, for every kind of query: exactly the current versions that match, in
        revision order."""
        current = _current(await write_varied(driver))
        latest = replace(query, latest=True)
        expected = list(filter(query.matches, current))
        assert await _paged(driver, latest, 3) == expected
        assert await _paged_down(driver, latest, 3) == expected[::-1]

    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    async def test_the_newest_first_is_the_same_the_other_way(
        self, driver: Driver, query: Query
    ) -> None:
        """For every kind of query, page by page from the head down: exactly the versions of the
        whole log that match, in falling order; every page within its limit and further than the one
        before, the last one down to revision 1."""
        log = await write_varied(driver)
        expected = [state for state in log if query.matches(state)][::-1]
        assert await _paged_down(driver, query, 7) == expected

    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    async def test_count_is_of_the_current_versions(self, driver: Driver, query: Query) -> None:
        """For every kind of query, by status and by flow: as many as there are current versions
        that match, and nothing that there are none of."""
        current = _current(await write_varied(driver))
        matching = [state.transition for state in current if query.matches(state)]
        by_status = await driver.count(query, "status")
        assert dict(by_status) == Counter(each.status.value for each in matching)
        assert dict(await driver.count(query, "flow")) == Counter(each.to for each in matching)

    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    async def test_find_gives_the_newest_current_match(self, driver: Driver, query: Query) -> None:
        """Find gives the match with the highest revision among current versions, or None."""
        current = _current(await write_varied(driver))
        matching = [state for state in current if query.matches(state)]
        assert await driver.find(query) == (matching[-1] if matching else None)

    async def test_find_overlooks_what_a_state_was(self, driver: Driver) -> None:
        """A state that no longer matches is not found by what it was."""
        (a,) = await put(driver, Transit(State("a", labels={"queue": "mail"}), "x"))
        await put(driver, Transit(a.with_labels(queue="done"), "x"))
        assert await driver.find(Query(labels={"queue": "mail"})) is None

    async def test_read_since_gives_the_versions_of_that_time_and_later(
        self, driver: Driver
    ) -> None:
        """With ``since``, whatever the time: exactly the versions that were committed at it or
        later."""
        log = list(await create(driver, "a", "b"))
        while len({state.committed_at for state in log}) < 4:
            log.append(await move(driver, log[-1]))
        times = {state.committed_at for state in log}
        for since in [min(times) - 1, *times, max(times) + 1]:
            expected = [state for state in log if state.committed_at >= since]
            assert await read_all(driver, Query(since=since)) == expected
            assert await _paged_down(driver, Query(since=since), 2) == expected[::-1]

    async def test_a_page_without_matches_still_gets_on(self, driver: Driver) -> None:
        """A page in which nothing matches says how far it looked: further than where it began, and
        in the end up to the head."""
        await write_varied(driver)
        head = await driver.head()
        after = 0
        while after < head:
            page = await driver.read(Query(labels={"queue": "nothing"}), after, 5)
            assert page.versions == ()
            assert after < page.upto <= head
            after = page.upto
        while after > 1:
            page = await driver.read(
                Query(labels={"queue": "nothing"}), after, 5, newest_first=True
            )
            assert page.versions == ()
            assert 1 <= page.upto < after
            after = page.upto

    async def test_reading_at_the_head_gives_nothing(self, driver: Driver) -> None:
        """A page after the newest revision is empty and looks no further."""
        await create(driver, "a", "b")
        head = await driver.head()
        page = await driver.read(Query(), head, 10)
        assert (page.versions, page.upto) == ((), head)
        page = await driver.read(Query(), 1, 10, newest_first=True)
        assert (page.versions, page.upto) == ((), 1)

    async def test_an_empty_store_has_nothing(self, driver: Driver) -> None:
        """A store that was never written has nothing to read or to find, and its head is 0."""
        page = await driver.read(Query(), 0, 10)
        assert (page.versions, page.upto, await driver.head()) == ((), 0, 0)
        assert await driver.find(Query()) is None
        page = await driver.read(Query(), 1, 10, newest_first=True)
        assert (page.versions, page.upto) == ((), 1)
        assert dict(await driver.count(Query(), "status")) == {}

    async def test_get_gives_the_latest(self, driver: Driver) -> None:
        """Get without a revision gives the current version, or None if there is no such state."""
        (a,) = await create(driver, "a")
        new = await move(driver, a)
        assert await driver.get("a") == new
        assert await driver.get("b") is None

    async def test_get_gives_exactly_that_version(self, driver: Driver) -> None:
        """Get with a revision gives that version of that state, superseded or not, and None if it
        is a revision of another state or of none."""
        a, b = await create(driver, "a", "b")
        new = await move(driver, a)
        assert await driver.get("a", a.rev) == a
        assert await driver.get("a", new.rev) == new
        assert await driver.get("a", b.rev) is None
        assert await driver.get("a", new.rev + 1) is None
        assert await driver.get("c", a.rev) is None

    async def test_a_state_comes_back_as_it_was_committed(self, driver: Driver) -> None:
        """Every field of a state survives, by get and by read."""
        inner = State("inner ☃", labels={"a": "b"}).attach("x", b"\0\xff").with_annotations(n="1")
        state = State(
            'it\'s "100%" größe\n\\',
            labels={"größe": "☃", "empty": "", "it's": 'a "label"'},
            annotations={"note": "line\nline"},
            stacked={"caller": inner.stack("deeper", State("deepest"))},
            retry=RetryPolicy(lease=1.5, max_attempts=7, backoff=0, max_backoff=2, enabled=False),
        ).attach("order", {"items": [1, 2.5, None, "☃"]})
        (written,) = await put(
            driver,
            Delay(state, to="später", at=253_402_300_799_999, annotations={"by": "Ω"}),
        )
        assert await driver.get(state.id) == written
        assert await read_all(driver) == [written]
        assert written.labels == state.labels
        assert written.stacked["caller"].stacked["deeper"] == State("deepest")
        assert written.retry == state.retry

    async def test_labels_of_a_stacked_state_are_not_its_own(self, driver: Driver) -> None:
        """A query looks at a state, not into what it carries."""
        inner = State("inner", labels={"queue": "mail"})
        await put(driver, Transit(State("outer").stack("caller", inner), "x"))
        assert await driver.find(Query(labels={"queue": "mail"})) is None
        assert await driver.get("inner") is None


class DataLaws(Laws):
    async def test_a_payload_comes_back_as_it_was(self, driver: Driver) -> None:
        """A payload of any bytes, of none or of a megabyte loads as it was; its reference names the
        first revision of its commit."""
        contents = {"empty": b"", "binary": bytes(range(256)), "large": b"x" * (1 << 20)}
        state = State("b")
        for name, content in contents.items():
            state = state.attach(name, content)
        a, b = await put(driver, Transit(State("a"), "x"), Transit(state, "x"))
        for name, content in contents.items():
            ref = _ref(b, name)
            assert (ref.rev, ref.size) == (a.rev, len(content))
            assert await driver.load(ref) == content

    async def test_a_missing_payload_is_an_error(self, driver: Driver) -> None:
        """A reference to nothing raises ``DataNotFoundError``, also if only the revision or only
        the checksum is another."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        ref = _ref(a, "order")
        for missing in (
            DataRef(ref.rev + 1, ref.size, ref.content_type, ref.checksum),
            DataRef(ref.rev, ref.size, ref.content_type, "0" * 64),
        ):
            with pytest.raises(DataNotFoundError):
                await driver.load(missing)

    async def test_a_payload_shared_in_a_commit_is_stored_once(
        self, store: Store, driver: Driver
    ) -> None:
        """Two states that attach the same bytes in one commit share one stored payload."""
        a, b = await put(
            driver,
            Transit(State("a").attach("order", b"pears"), "x"),
            Transit(State("b").attach("copy", b"pears"), "x"),
        )
        assert _ref(a, "order") == _ref(b, "copy")
        assert store.raw_payloads() == [(a.rev, _ref(a, "order").checksum)]

    async def test_a_copied_reference_still_loads(self, store: Store, driver: Driver) -> None:
        """A reference that is copied to another state loads there, and stores nothing again."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        (b,) = await put(driver, Transit(State("b").attach("taken", a.data["order"]), "x"))
        await put(driver, End(a))
        assert await driver.load(_ref(b, "taken")) == b"pears"
        assert len(store.raw_payloads()) == 1

    async def test_the_payload_of_a_stacked_state_loads(self, driver: Driver) -> None:
        """Pending data inside a stacked state is stored by the commit that carries it."""
        inner = State("inner").attach("order", b"pears")
        (outer,) = await put(driver, Transit(State("outer").stack("caller", inner), "x"))
        assert await driver.load(_ref(outer.stacked["caller"], "order")) == b"pears"

    async def test_a_version_that_moves_on_keeps_its_payload(
        self, store: Store, driver: Driver
    ) -> None:
        """Moving a state does not store its payload again."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        new = await move(driver, await move(driver, a))
        assert new.data == a.data
        assert len(store.raw_payloads()) == 1


async def write_varied(driver: Driver) -> list[State]:
    """Commit some thirty versions in all statuses, and give the log."""
    states: list[State] = []
    log: list[State] = []
    for n in range(6):
        labels = {"queue": ("mail", "web")[n % 2], "size": str(n % 3)}
        labels |= {"odd": "yes"} if n % 2 else {}
        states.append(State(f"order/{n}", labels=labels))
    special = {"it's": 'a "label"', "größe": "☃", "empty": ""}
    states.append(State("100%_x", labels=special))
    states.append(State("100 yx", labels={"queue": "mail"}))
    for turn in range(4):
        for n, state in enumerate(states):
            moved = state.with_labels(size=str((turn + n) % 3)) if turn else state
            kind = (turn * 3 + n) % 5
            command: Command[State]
            if kind == 0:
                command = Pause(moved, to="later" if n % 2 else "next")
            elif kind == 1:
                command = Delay(moved, to="next", at=9_000)
            elif kind == 2 and turn == 3:
                command = End(moved)
            else:
                command = Transit(moved, "next")
            if kind == 4 and turn:
                (written,) = await put(driver, command, Require(log[-1]))
            else:
                (written,) = await put(driver, command)
            states[n] = written
            log.append(written)
    return log


def _current(log: list[State]) -> list[State]:
    current = {state.id: state for state in log}
    return sorted(current.values(), key=lambda state: state.rev)


async def _paged(driver: Driver, query: Query, limit: int) -> list[State]:
    """All versions that match, with a check of each page."""
    head = await driver.head()
    found: list[State] = []
    after = 0
    while after < head:
        page = await driver.read(query, after, limit)
        assert len(page.versions) <= limit
        assert after < page.upto <= head
        assert all(after < rev <= page.upto for rev in revs(page.versions))
        found.extend(page.versions)
        after = page.upto
    return found


async def _paged_down(driver: Driver, query: Query, limit: int) -> list[State]:
    """The same, the newest first."""
    before = await driver.head() + 1
    found: list[State] = []
    while before > 1:
        page = await driver.read(query, before, limit, newest_first=True)
        assert page.newest_first
        assert len(page.versions) <= limit
        assert 1 <= page.upto < before
        assert all(page.upto <= rev < before for rev in revs(page.versions))
        found.extend(page.versions)
        before = page.upto
    return found


def _ref(state: State, name: str) -> DataRef:
    ref = state.data[name]
    assert isinstance(ref, DataRef)
    return ref
