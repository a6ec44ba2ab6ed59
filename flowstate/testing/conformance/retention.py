"""Retention: which versions and payloads compaction removes, and which it retains."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ...clock import MAX_INSTANT_MS
from ...codec import encode_state
from ...commands import Delay, End, Fail, Pause, Require, Transit
from ...driver import Driver
from ...errors import DataNotFoundError, RevMismatchError
from ...query import Query
from ...retention import Compaction, Retention
from ...state import State, Status
from ..store import Store
from .base import Laws, create, due_at, move, plan, put, read_all
from .read import QUERIES, write_varied
from .runs import EVERYTHING, WITH_ENDED, compact, ref, rev_of, stored
from .watch import states_over_time, time_between


class RetentionLaws(Laws):
    async def test_superseded_versions_go_and_current_ones_stay(
        self, store: Store, driver: Driver
    ) -> None:
        """Compaction leaves the current version of each state as it was; getting a removed version
        gives None."""
        a, b = await create(driver, "a", "b")
        new_a = await move(driver, await move(driver, a))
        total = await compact(driver, EVERYTHING)
        assert stored(store) == [(b.rev, "b"), (new_a.rev, "a")]
        assert await read_all(driver) == [b, new_a]
        assert (await driver.get("a"), await driver.get("b")) == (new_a, b)
        assert await driver.get("a", new_a.rev) == new_a
        assert await driver.get("a", a.rev) is None
        assert (total.versions, total.states) == (2, 0)

    async def test_what_was_committed_at_that_time_or_later_stays(
        self, store: Store, driver: Driver
    ) -> None:
        """Of superseded versions exactly those are removed that are older than ``before``, to the
        millisecond."""
        states = await states_over_time(driver, ticks=4)
        current = {"a": states[0].rev, "b": states[-1].rev}
        before = time_between(states)
        young = [state.rev for state in states if state.committed_at >= before]
        assert 0 < len(young) < len(states) - 2
        await compact(driver, Retention(before))
        expected = sorted({*young, *current.values()})
        assert [rev for rev, _ in stored(store)] == expected

    @pytest.mark.parametrize("keep", [1, 2, 3, 5, 100])
    async def test_the_newest_versions_of_each_state_stay(
        self, store: Store, driver: Driver, keep: int
    ) -> None:
        """Of each state as many of its newest versions are retained as ``keep`` says, the current
        one among them."""
        log = [*(await create(driver, "a", "b", "c"))]
        for n in range(8):
            log.append(await move(driver, log[0 if n % 4 else 1]))
            log[0 if n % 4 else 1] = log[-1]
        history = stored(store)
        await compact(driver, Retention(MAX_INSTANT_MS, keep))
        retained = {
            version
            for id in "abc"
            for version in [version for version in history if version[1] == id][-keep:]
        }
        assert stored(store) == [version for version in history if version in retained]

    async def test_the_current_version_of_a_live_state_never_goes(self, driver: Driver) -> None:
        """The current version of a state that has not ended is never removed, however old it is and
        whatever its status."""
        live = await put(
            driver,
            Transit(State("running"), "x"),
            Pause(State("paused")),
            Delay(State("delayed"), to="x", at=1),
            Pause(State("timed"), "x", timeout=1),
        )
        await create(driver, "newest")
        total = await compact(driver, WITH_ENDED)
        assert (total.versions, total.states) == (0, 0)
        assert [await driver.get(state.id) for state in live] == list(live)

    async def test_ended_states_stay_unless_asked_for(self, store: Store, driver: Driver) -> None:
        """Without ``ended``, the newest versions of an ended state are retained like those of any
        other state."""
        (a,) = await create(driver, "a")
        (ended,) = await put(driver, End(a))
        (b,) = await create(driver, "b")
        await compact(driver, EVERYTHING)
        assert stored(store) == [(ended.rev, "a"), (b.rev, "b")]

    async def test_ended_states_go_whole(self, store: Store, driver: Driver) -> None:
        """With ``ended``, states that have ended are removed with all their versions, whatever
        ``keep`` says, and are found no more."""
        a, b = await put(
            driver,
            Transit(State("a", labels={"queue": "mail"}), "x"),
            Transit(State("b", labels={"queue": "mail"}), "x"),
        )
        new_b = await move(driver, b)
        (ended,) = await put(driver, End(await move(driver, a)))
        (c,) = await create(driver, "c")
        total = await compact(driver, Retention(MAX_INSTANT_MS, keep=2, ended=True))
        assert stored(store) == [(b.rev, "b"), (new_b.rev, "b"), (c.rev, "c")]
        assert (total.versions, total.states) == (3, 1)
        assert await driver.get("a") is None
        assert await driver.get("a", ended.rev) is None
        assert await driver.find(Query(id="a")) is None
        assert await driver.find(Query(labels={"queue": "mail"})) == new_b
        for query in (Query(id="a"), Query(status=Status.ENDED), Query(id="a", latest=True)):
            assert await read_all(driver, query) == []
        assert await read_all(driver, Query(labels={"queue": "mail"})) == [b, new_b]

    async def test_what_ended_at_that_time_or_later_stays(self, driver: Driver) -> None:
        """With ``ended``, a state is removed whole only if its end is older than ``before``, to the
        millisecond; until then ``keep`` counts for all of its versions, however old."""
        (old,) = await create(driver, "ended")
        await states_over_time(driver, ticks=1)
        (ended,) = await put(driver, End(old))
        (other,) = await create(driver, "other")
        while other.committed_at == ended.committed_at:
            other = await move(driver, other)
        await compact(driver, Retention(ended.committed_at, keep=2, ended=True))
        assert await read_all(driver, Query(id="ended")) == [old, ended]
        await compact(driver, Retention(ended.committed_at + 1, keep=2, ended=True))
        assert await driver.get("ended") is None

    async def test_an_id_that_went_whole_is_free_again(self, driver: Driver) -> None:
        """A state that was removed whole can be created again, above all other revisions, and a
        commit that expects one of its old revisions is refused, with 0 as what was found."""
        (ended,) = await put(driver, End(State("a")))
        (b,) = await create(driver, "b")
        await compact(driver, WITH_ENDED)
        with pytest.raises(RevMismatchError) as refused:
            await put(driver, Require(State("a", rev=ended.rev)), Transit(b, "x"))
        assert refused.value.conflicts == {"a": (ended.rev, 0)}
        (again,) = await create(driver, "a")
        assert again.rev > b.rev
        assert await read_all(driver, Query(id="a")) == [again]
        assert await driver.find(Query(id="a")) == again

    async def test_the_newest_version_of_the_store_stays(
        self, store: Store, driver: Driver
    ) -> None:
        """The newest version of the store is retained, even of an ended state, since revisions and
        time go on from it. It is removed once there is a newer one."""
        (a,) = await create(driver, "a")
        (ended,) = await put(driver, End(a))
        await compact(driver, WITH_ENDED)
        assert stored(store) == [(ended.rev, "a")]
        assert await driver.head() == ended.rev
        (b,) = await create(driver, "b")
        assert b.rev > ended.rev
        assert b.committed_at >= ended.committed_at
        total = await compact(driver, WITH_ENDED)
        assert stored(store) == [(b.rev, "b")]
        assert (total.versions, total.states) == (1, 1)
        assert await driver.head() == b.rev

    async def test_what_is_current_goes_last(self, store: Store, driver: Driver) -> None:
        """A run that begins above some versions of an ended state retains its end, so that no older
        version becomes current."""
        (a,) = await create(driver, "a")
        moved = await move(driver, a)
        (ended,) = await put(driver, End(moved))
        (b,) = await create(driver, "b")
        await compact(driver, WITH_ENDED, after=a.rev)
        assert stored(store) == [(a.rev, "a"), (ended.rev, "a"), (b.rev, "b")]
        assert await driver.get("a") == ended
        await compact(driver, WITH_ENDED)
        assert stored(store) == [(b.rev, "b")]

    async def test_nothing_to_remove(self, store: Store, driver: Driver) -> None:
        """Compacting an empty store, one without old versions, or one a second time changes
        nothing."""
        assert await driver.compact(WITH_ENDED, 0, 10) == Compaction(0, done=True)
        (a,) = await create(driver, "a")
        assert (await compact(driver, WITH_ENDED)).versions == 0
        await move(driver, a)
        await compact(driver, WITH_ENDED)
        before = stored(store)
        again = await compact(driver, WITH_ENDED)
        assert (again.versions, again.size) == (0, 0)
        assert stored(store) == before

    @pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
    async def test_reading_is_a_filter_of_what_is_left(self, driver: Driver, query: Query) -> None:
        """After a compaction, every kind of query gives what matches of the versions that are left,
        with pages of any size, from any revision."""
        log = await write_varied(driver)
        await compact(driver, Retention(MAX_INSTANT_MS, keep=100, ended=True))
        await compact(driver, Retention(MAX_INSTANT_MS, keep=2), until=log[len(log) // 2].rev)
        left = await read_all(driver)
        assert 0 < len(left) < len(log)
        latest = {state.id: state for state in left}
        matching = [state for state in left if query.matches(state)]
        if query.latest:
            matching = [state for state in matching if latest[state.id] is state]
        for limit in (1, 3, 1_000):
            for after in (0, log[len(log) // 3].rev):
                expected = [state for state in matching if state.rev > after]
                assert await read_all(driver, query, after, limit) == expected
        current = [state for state in latest.values() if query.matches(state)]
        assert await driver.find(query) == max(current, key=rev_of, default=None)

    async def test_reading_since_a_time_gives_what_is_left(self, driver: Driver) -> None:
        """After a compaction, a query with ``since`` gives the versions since that time that are
        left."""
        states = await states_over_time(driver, ticks=4)
        await compact(driver, EVERYTHING, until=states[len(states) // 2].rev)
        left = await read_all(driver)
        for since in sorted({state.committed_at for state in states}):
            expected = [state for state in left if state.committed_at >= since]
            assert await read_all(driver, Query(since=since)) == expected

    async def test_failed_states_go_only_if_that_is_asked(self, driver: Driver) -> None:
        """A failed state stays, like one that waits, until failed states are to go; then it goes
        whole, and those that have ended stay."""
        (failed,) = await put(driver, Fail(await move(driver, (await create(driver, "a"))[0])))
        await put(driver, End(State("e")))
        (newest,) = await create(driver, "newest")
        await compact(driver, WITH_ENDED)
        assert await read_all(driver) == [failed, newest]
        (ended,) = await put(driver, End(State("e")))
        await move(driver, newest)
        total = await compact(driver, Retention(MAX_INSTANT_MS, failed=True))
        assert total.states == 1
        assert await driver.get("a") is None
        assert await driver.get("e") == ended

    async def test_due_times_stay(self, driver: Driver) -> None:
        """Compaction changes no due time: what was due still is."""
        (a,) = await put(driver, Delay(State("a"), to="wake", at=10))
        (a,) = await put(driver, Delay(a, to="wake", at=20))
        b, c = await put(
            driver, Delay(State("b"), to="wake", at=30), Delay(State("c"), to="other", at=5)
        )
        await put(driver, End(c))
        await create(driver, "newest")
        await compact(driver, WITH_ENDED)
        assert (await driver.due(100, 10)).due == (due_at(a, 20), due_at(b, 30))
        assert (await driver.due(0, 0)).next == 20


class PayloadRetentionLaws(Laws):
    async def test_a_payload_goes_with_the_last_version_that_refers_to_it(
        self, store: Store, driver: Driver
    ) -> None:
        """A payload is removed with the last version that refers to it, which need not be the one
        that it was stored with."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        pears = ref(a, "order")
        carrying = await move(driver, a)
        total = await compact(driver, EVERYTHING)
        assert (total.versions, total.payloads) == (1, 0)
        assert await driver.load(pears) == b"pears"
        await put(driver, Transit(carrying.attach("order", b"plums"), "x"))
        total = await compact(driver, EVERYTHING)
        assert (total.versions, total.payloads) == (1, 1)
        with pytest.raises(DataNotFoundError):
            await driver.load(pears)
        assert len(store.raw_payloads()) == 1

    async def test_a_kept_version_keeps_its_payload(self, store: Store, driver: Driver) -> None:
        """A retained version keeps its payload, current or not."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        await put(driver, Transit(State("a", rev=a.rev), "x"))
        await compact(driver, Retention(MAX_INSTANT_MS, keep=2))
        assert await driver.load(ref(a, "order")) == b"pears"
        await compact(driver, EVERYTHING)
        assert store.raw_payloads() == []

    async def test_a_copied_reference_keeps_the_payload(self, store: Store, driver: Driver) -> None:
        """A reference that was copied to another state keeps the payload, though the first state
        was removed whole."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        pears = ref(a, "order")
        (b,) = await put(driver, Transit(State("b").attach("taken", pears), "x"))
        await put(driver, End(a))
        await create(driver, "newest")
        total = await compact(driver, WITH_ENDED)
        assert (total.states, total.payloads) == (1, 0)
        assert await driver.load(pears) == b"pears"
        await put(driver, Transit(State("b", rev=b.rev), "x"))
        assert (await compact(driver, WITH_ENDED)).payloads == 1
        assert store.raw_payloads() == []

    async def test_a_stacked_state_keeps_its_payloads(self, store: Store, driver: Driver) -> None:
        """A reference in a stacked state, at any depth, keeps the payload."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        pears = ref(a, "order")
        (outer,) = await put(
            driver, Transit(State("c").stack("callee", State("b").stack("caller", a)), "x")
        )
        await put(driver, End(a))
        await create(driver, "newest")
        await compact(driver, WITH_ENDED)
        assert await driver.load(pears) == b"pears"
        await put(driver, Transit(outer.unstack("callee"), "x"))
        assert (await compact(driver, WITH_ENDED)).payloads == 1
        assert store.raw_payloads() == []

    async def test_payloads_of_one_commit_go_one_by_one(self, store: Store, driver: Driver) -> None:
        """Of the payloads of one commit each is removed with its own last reference."""
        a, b, c = await put(
            driver,
            Transit(State("a").attach("one", b"pears").attach("two", b"plums"), "x"),
            Transit(State("b").attach("one", b"pears"), "x"),
            Transit(State("c").attach("three", b"figs").attach("again", b"figs"), "x"),
        )
        await put(driver, Transit(State("a", rev=a.rev), "x"))
        assert (await compact(driver, EVERYTHING)).payloads == 1
        assert set(store.raw_payloads()) == {
            (a.rev, ref(b, "one").checksum),
            (a.rev, ref(c, "three").checksum),
        }
        await put(driver, Transit(State("c", rev=c.rev), "x"))
        assert (await compact(driver, EVERYTHING)).payloads == 1
        assert store.raw_payloads() == [(a.rev, ref(b, "one").checksum)]

    async def test_equal_payloads_of_two_commits_are_two(
        self, store: Store, driver: Driver
    ) -> None:
        """The same bytes stored by two commits are two payloads, each removed with its own last
        reference."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        (b,) = await put(driver, Transit(State("b").attach("order", b"pears"), "x"))
        await put(driver, Transit(State("a", rev=a.rev), "x"))
        await compact(driver, EVERYTHING)
        assert store.raw_payloads() == [(b.rev, ref(b, "order").checksum)]
        assert await driver.load(ref(b, "order")) == b"pears"

    async def test_what_is_attached_again_is_stored_once(
        self, store: Store, driver: Driver
    ) -> None:
        """A state that attaches what it carries already keeps the reference while that payload is
        stored, also from inside ``stacked``."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        pears = ref(a, "order")
        again = a.attach("order", b"pears")
        a, b = await put(
            driver,
            Transit(again.attach("new", b"plums"), "x"),
            Transit(State("b").stack("caller", again), "x"),
        )
        assert [a.data["order"], b.stacked["caller"].data["order"]] == [pears, pears]
        assert len(store.raw_payloads()) == 2
        assert await driver.load(pears) == b"pears"

    async def test_what_is_attached_again_is_stored_if_it_is_gone(
        self, store: Store, driver: Driver
    ) -> None:
        """The commit decides: what a state attaches again is stored with it if that payload is
        gone by then, for all who refer to it there; so is it if the commit is repeated."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        carrying = State("b", data=a.data).attach("order", b"pears")
        await put(driver, Transit(State("a", rev=a.rev), "x"))
        await compact(driver, EVERYTHING)
        assert store.raw_payloads() == []
        again = plan(
            Transit(State("c", data=a.data), "x"),
            Transit(carrying.attach("new", b"plums"), "x"),
            Transit(State("d").stack("caller", carrying), "x"),
        )
        c, b, d = written = await driver.commit(again)
        pears = replace(ref(a, "order"), rev=c.rev)
        assert [each.data["order"] for each in (c, b, d.stacked["caller"])] == [pears] * 3
        assert await driver.load(pears) == b"pears"
        stored = [(c.rev, pears.checksum), (c.rev, ref(b, "new").checksum)]
        assert sorted(store.raw_payloads()) == sorted(stored)
        assert await driver.commit(again) == written
        assert [await driver.get(each.id) for each in written] == list(written)

    async def test_a_refused_commit_refers_to_nothing(self, store: Store, driver: Driver) -> None:
        """A reference in a commit that was refused keeps no payload."""
        (a,) = await put(driver, Transit(State("a").attach("order", b"pears"), "x"))
        (b,) = await create(driver, "b")
        await move(driver, b)
        with pytest.raises(RevMismatchError):
            await put(driver, Transit(b.attach("order", a.data["order"]), "x"))
        await put(driver, Transit(State("a", rev=a.rev), "x"))
        await compact(driver, EVERYTHING)
        assert store.raw_payloads() == []

    async def test_what_is_removed_is_counted_in_bytes(self, driver: Driver) -> None:
        """The ``size`` of a batch is the bytes that it removed: versions as JSON, and payloads."""
        (a,) = await put(driver, Transit(State("ä").attach("order", b"pears" * 100), "x"))
        carrying = await move(driver, a)
        await put(driver, Transit(State("ä", rev=carrying.rev), "x"))
        total = await compact(driver, EVERYTHING, limit=1)
        expected = len(encode_state(a)) + len(encode_state(carrying)) + 500
        assert total == Compaction(total.upto, 2, 0, 1, expected, done=True)
