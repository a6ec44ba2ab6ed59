"""Places: every current version that is RUNNING is ready or taken, which can be seen."""

from __future__ import annotations

import pytest

from ...commands import Delay, End, Fail, Pause, Transit
from ...driver import Driver
from ...errors import RevMismatchError
from ...leases import Holding, Place
from ...state import RetryPolicy, State
from ..store import Store
from .base import (
    LEASE_MS,
    LEASED,
    Laws,
    create,
    due_at,
    given,
    hand_out,
    line_up,
    move,
    plan,
    put,
    standing,
)
from .runs import WITH_ENDED, compact

ROOM = {"work": 100, "mail": 100}


class PlaceLaws(Laws):
    async def test_a_place_is_what_was_committed(self, driver: Driver) -> None:
        """A version stands where its commit puts it: ready since then, or taken by an owner."""
        await line_up(driver, "ready", since=7)
        await hand_out(driver, "taken", owner="worker", claim="1", until=9)
        await hand_out(driver, "kept", owner="worker")
        assert await driver.place("ready") == Place(7)
        assert await driver.place("taken") == Place(None, "worker", "1", 9)
        assert await driver.place("kept") == Place(None, "worker", "", None)
        assert await driver.place("absent") is None

    async def test_states_of_one_commit_may_stand_in_several_places(self, driver: Driver) -> None:
        """Each write of a commit has a place of its own."""
        place = standing(Place(5), Place(None, "worker", "", 50), Place(3))
        moves = (Transit(State(id), "work") for id in "abc")
        await driver.commit(plan(*moves, policy=LEASED, place=place))
        assert await driver.place("b") == Place(None, "worker", "", 50)
        assert given(await driver.claim(ROOM, 9, "worker", "1", 10)) == ["c", "a"]

    async def test_what_rests_has_no_place(self, driver: Driver) -> None:
        """What is paused, delayed, failed or ended stands nowhere, whatever it did before."""
        a, b, c, d = await line_up(driver, "a", "b", "c", "d")
        (e,) = await hand_out(driver, "e", owner="worker")
        await driver.take([("a", a.rev), ("b", b.rev)], "worker", "1", 0)
        await put(driver, Pause(a), Delay(b, at=10), Fail(c), End(d), Pause(e, timeout=1))
        assert [await driver.place(id) for id in "abcde"] == [None] * 5
        assert await driver.holdings() == ()
        assert await driver.line() == {}

    async def test_holdings_are_what_an_owner_has_taken(self, driver: Driver) -> None:
        """Everything that is taken is found by its owner, or whoever that is: claimed, taken, or
        committed so; with its flow and its place. What is ready is not."""
        a, b, _ = await line_up(driver, "a", "b", "c")
        (m,) = await line_up(driver, "m", flow="mail", policy=RetryPolicy(enabled=False))
        (k,) = await hand_out(driver, "k", owner="worker", until=50)
        assert await driver.holdings("another") == ()
        await driver.claim({"work": 1}, 1, "worker", "1", 100)
        await driver.take([("b", b.rev)], "another", "2", 200)
        await driver.claim({"mail": 1}, 1, "another", "3", 300)
        mine = {
            Holding("a", a.rev, "work", Place(None, "worker", "1", 100 + LEASE_MS)),
            Holding("k", k.rev, "work", Place(None, "worker", "", 50)),
        }
        others = {
            Holding("b", b.rev, "work", Place(None, "another", "2", 200 + LEASE_MS)),
            Holding("m", m.rev, "mail", Place(None, "another", "3", None)),
        }
        assert set(await driver.holdings("worker")) == mine
        assert set(await driver.holdings("another")) == others
        assert set(await driver.holdings()) == mine | others
        assert await driver.holdings("nobody") == ()
        await driver.release([("a", a.rev, "1")], "worker", 400)
        await move(driver, b)
        held = await driver.holdings()
        assert sorted(holding.id for holding in held) == ["k", "m"]

    async def test_the_line_names_the_flows_that_something_is_ready_for(
        self, driver: Driver
    ) -> None:
        """Each flow that something is ready for is named, with the instant since which its first is
        ready; flows all of which is taken, or has moved on, are not."""
        assert await driver.line() == {}
        await line_up(driver, "a", since=20)
        await line_up(driver, "b", since=10)
        (m,) = await line_up(driver, "m", since=5, flow="mail")
        await hand_out(driver, "t", owner="worker")
        await put(driver, Pause(State("p"), "paused"), Delay(State("d"), "delayed", at=1))
        assert await driver.line() == {"work": 10, "mail": 5}
        await driver.claim({"work": 1}, 1, "worker", "1", 100)
        assert await driver.line() == {"work": 20, "mail": 5}
        await driver.claim({"work": 1}, 1, "worker", "2", 100)
        await put(driver, End(m))
        assert await driver.line() == {}
        b = await driver.get("b")
        assert b is not None
        await driver.release([("b", b.rev, "1")], "worker", 300)
        assert await driver.line() == {"work": 300}

    async def test_a_newer_version_stands_where_its_own_commit_puts_it(
        self, driver: Driver
    ) -> None:
        """The place of a version goes with it when it is superseded, its alarm and its policy as
        well: nothing of them is left in line, in holdings or due."""
        other = RetryPolicy(lease=2)
        a, b, c = await line_up(driver, "a", "b", "c", timeout_at=900_000)
        await driver.take([("a", a.rev), ("b", b.rev)], "worker", "1", 0)
        kept = Place(None, "another", "", 70)
        moves = plan(Transit(a, "mail"), now=50, policy=other)
        (a,) = await driver.commit(moves)
        await put(driver, Pause(b))
        (c,) = await driver.commit(plan(Transit(c, "mail"), policy=other, place=standing(kept)))
        assert await driver.line() == {"mail": 50}
        assert await driver.holdings() == (Holding("c", c.rev, "mail", kept),)
        assert (await driver.due(10**9, 10)).due == (due_at(c, 70, other),)
        await driver.claim(ROOM, 10, "worker", "2", 60)
        assert (await driver.due(10**9, 10)).due == (due_at(c, 70, other), due_at(a, 2_060, other))

    async def test_what_was_taken_is_held_by_who_commits_it_as_taken(self, driver: Driver) -> None:
        """A version that was claimed, and moves on as taken, is what its commit handed to whoever
        that is: the claim has nothing more, nor has another owner before."""
        a, b = await line_up(driver, "a", "b")
        assert len(await driver.claim(ROOM, 2, "worker", "1", 100)) == 2
        kept, gone = Place(None, "worker", "", 70), Place(None, "another", "", 70)
        (a,) = await driver.commit(plan(Transit(a, "work"), place=standing(kept)))
        (b,) = await driver.commit(plan(Transit(b, "work"), place=standing(gone)))
        assert await driver.claim(ROOM, 2, "worker", "1", 60) == ()
        assert await driver.holdings("worker") == (Holding("a", a.rev, "work", kept),)
        assert await driver.holdings("another") == (Holding("b", b.rev, "work", gone),)
        await put(driver, End(a), End(b))
        assert await driver.claim(ROOM, 2, "worker", "1", 60) == ()
        assert await driver.holdings() == ()

    async def test_what_is_ready_and_has_a_timeout_is_in_line_and_due(self, driver: Driver) -> None:
        """A version that nobody has taken yet still has its alarm."""
        (a,) = await line_up(driver, "a", since=5, timeout_at=1_000)
        assert await driver.line() == {"work": 5}
        assert (await driver.due(1_000, 10)).due == (due_at(a, 1_000, LEASED),)
        assert await driver.place("a") == Place(5)

    async def test_a_refused_commit_leaves_places(self, driver: Driver) -> None:
        """A commit that is refused moves nothing that is taken or ready."""
        a, b, c = await line_up(driver, "a", "b", "c", since=5)
        await driver.take([("a", a.rev)], "worker", "1", 0)
        await move(driver, c)
        places = [await driver.place(id) for id in "abc"]
        with pytest.raises(RevMismatchError):
            await put(driver, Pause(a), Transit(b, "mail"), Transit(c, "mail"))
        assert [await driver.place(id) for id in "abc"] == places
        assert await driver.line() == {"work": 0}

    async def test_a_plan_that_is_committed_again_leaves_places(self, driver: Driver) -> None:
        """A commit whose answer was lost, made again, does not put in line what was taken since."""
        again = plan(Transit(State("a"), "work"), policy=LEASED)
        await driver.commit(again)
        await driver.claim(ROOM, 1, "worker", "1", 100)
        await driver.commit(again)
        assert await driver.place("a") == Place(None, "worker", "1", 100 + LEASE_MS)
        assert await driver.line() == {}

    async def test_compaction_leaves_the_places_of_what_stays(self, driver: Driver) -> None:
        """When superseded versions and ended states go, what is current stays where it stood; an
        id that is used again stands only where its new commit puts it."""
        a, b, c = await line_up(driver, "a", "b", "c", since=5)
        (c, a) = await driver.commit(plan(End(c), Transit(a, "work"), now=9, policy=LEASED))
        await driver.take([("b", b.rev)], "worker", "1", 0)
        await create(driver, "newest")
        await compact(driver, WITH_ENDED)
        assert await driver.get("c") is None
        assert await driver.place("a") == Place(9)
        assert await driver.place("b") == Place(None, "worker", "1", LEASE_MS)
        assert await driver.place("c") is None
        await hand_out(driver, "c", owner="worker")
        assert sorted(holding.id for holding in await driver.holdings()) == ["b", "c"]
        assert given(await driver.claim(ROOM, 10, "worker", "2", 0)) == ["newest", "a"]

    async def test_places_are_there_after_reopening(self, persistent_store: Store) -> None:
        """What was ready is ready, and what was claimed, renewed or released stands where it did,
        in a driver that is opened after another was closed."""
        async with persistent_store.driver() as driver:
            a, b, _ = await line_up(driver, "a", "b", "c", since=5)
            await hand_out(driver, "k", owner="worker", until=50)
            await driver.claim(ROOM, 2, "worker", "1", 100)
            await driver.release([("a", a.rev, "1")], "worker", 200)
            await driver.renew([("b", b.rev, "1")], "worker", 300)
            places = [await driver.place(id) for id in "abck"]
            assert places[:2] == [Place(200), Place(None, "worker", "1", 300 + LEASE_MS)]
        async with persistent_store.driver() as driver:
            assert [await driver.place(id) for id in "abck"] == places
            assert len(await driver.holdings("worker")) == 2
            assert given(await driver.claim(ROOM, 9, "another", "2", 500)) == ["c", "a"]
