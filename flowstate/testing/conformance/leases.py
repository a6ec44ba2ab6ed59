"""Leases: whoever runs a version renews its lease, or releases it; all else is left alone."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import TaskStatus

from ...commands import Pause
from ...driver import Driver
from ...leases import Due, Place, Renewal
from ...state import RetryPolicy, State
from ..store import Store
from .base import LEASE_MS, LEASED, Laws, due_at, given, hand_out, line_up, move, put

ROOM = {"work": 100}
NOTHING = Renewal(frozenset(), frozenset())
"""What is told if everything could be renewed."""


class LeaseLaws(Laws):
    async def test_renewing_moves_the_end_of_each_lease(self, driver: Driver) -> None:
        """What is renewed is taken from now for the length of its own lease; one without end has no
        end afterwards."""
        (a,) = await line_up(driver, "a", policy=RetryPolicy(lease=1))
        (b,) = await line_up(driver, "b", policy=RetryPolicy(lease=2))
        (c,) = await line_up(driver, "c", policy=RetryPolicy(enabled=False))
        await driver.claim(ROOM, 10, "worker", "1", 100)
        held = [("a", a.rev, "1"), ("b", b.rev, "1"), ("c", c.rev, "1")]
        assert await driver.renew(held, "worker", 500) == NOTHING
        places = [await driver.place(id) for id in "abc"]
        assert places == [Place(None, "worker", "1", end) for end in (1_500, 2_500, None)]

    async def test_what_was_committed_as_taken_is_renewed_and_released(
        self, driver: Driver
    ) -> None:
        """A version that a commit handed to its owner is held by it without the id of a claim."""
        a, b = await hand_out(driver, "a", "b", owner="worker", until=50)
        assert await driver.renew([("a", a.rev, "")], "worker", 40) == NOTHING
        await driver.release([("b", b.rev, "")], "worker", 40)
        assert await driver.place("a") == Place(None, "worker", "", 40 + LEASE_MS)
        assert await driver.place("b") == Place(40)

    async def test_a_lease_that_ran_out_can_be_renewed_while_nobody_took_over(
        self, driver: Driver
    ) -> None:
        """An owner that comes back late goes on if nothing has happened meanwhile."""
        (a,) = await hand_out(driver, "a", owner="worker", until=50)
        assert await driver.renew([("a", a.rev, "")], "worker", 90_000) == NOTHING
        assert await driver.place("a") == Place(None, "worker", "", 90_000 + LEASE_MS)

    async def test_renewing_tells_what_moved_on_and_what_was_lost(self, driver: Driver) -> None:
        """Those that are not at that revision have moved, also if they were never there; those that
        are, and are not taken by that claim of that owner, are lost. What is neither is renewed."""
        fine, moved, released, others, again, _ = await line_up(
            driver, "fine", "moved", "released", "others", "again", "ready"
        )
        ready = await driver.get("ready")
        assert ready is not None
        mine = [("fine", fine.rev), ("moved", moved.rev), ("released", released.rev)]
        await driver.take([*mine, ("again", again.rev)], "worker", "1", 100)
        await driver.take([("others", others.rev)], "another", "2", 100)
        new = await move(driver, moved)
        held = [("released", released.rev, "1"), ("again", again.rev, "1")]
        await driver.release(held, "worker", 150)
        await driver.take([("again", again.rev)], "worker", "3", 200)
        asked = [
            ("fine", fine.rev, "1"),
            ("moved", moved.rev, "1"),
            ("released", released.rev, "1"),
            ("others", others.rev, "2"),
            ("again", again.rev, "1"),
            ("ready", ready.rev, ""),
            ("absent", 1, "1"),
            ("nobody", 0, ""),
        ]
        places = {id: await driver.place(id) for id, *_ in asked}
        assert await driver.renew(asked, "worker", 1_000) == Renewal(
            frozenset({"moved", "absent", "nobody"}),
            frozenset({"released", "others", "again", "ready"}),
        )
        places["fine"] = Place(None, "worker", "1", 1_000 + LEASE_MS)
        assert {id: await driver.place(id) for id, *_ in asked} == places
        assert await driver.get("moved") == new

    async def test_owners_are_those_who_have_taken_something(self, driver: Driver) -> None:
        """Whoever has something is named once, by claim, by take, or because a commit says so; and
        nobody else: not who has given all back, or has moved all on."""
        assert await driver.owners() == {}
        a, b, _, d, _ = await line_up(driver, "a", "b", "c", "d", "ready")
        (e,) = await hand_out(driver, "e", owner="committer", until=50)
        await hand_out(driver, "f", owner="committer")
        await driver.claim(ROOM, 1, "claimer", "1", 0)
        await driver.take([("b", b.rev), ("c", b.rev + 1)], "taker", "2", 0)
        await driver.take([("d", d.rev)], "other", "3", 0)
        assert set(await driver.owners()) == {"committer", "claimer", "taker", "other"}
        await driver.release([("a", a.rev, "1")], "claimer", 5)
        await put(driver, Pause(d), Pause(e))
        assert set(await driver.owners()) == {"committer", "taker"}

    async def test_leases_that_are_ended_are_due_then(self, driver: Driver) -> None:
        """All that somebody has taken is due at that instant, whether its alarm comes later or was
        sooner, in which case it is due at that, as it is if its lease has ended before; with the
        policy that it was committed with, and still taken."""
        late, soon = LEASE_MS + 5_000, 40
        a, b = await line_up(driver, "a", "b")
        (c,) = await line_up(driver, "c", timeout_at=late)
        (d,) = await line_up(driver, "d", timeout_at=soon)
        (e,) = await hand_out(driver, "e", owner="worker", until=900)
        (f,) = await hand_out(driver, "f", owner="worker", until=60)
        await driver.claim(ROOM, 10, "worker", "1", 0)
        await driver.end_leases("worker", 100)
        page = await driver.due(100, 10)
        assert page.due == (
            due_at(d, soon, LEASED),
            due_at(f, 60, LEASED),
            *(due_at(each, 100, LEASED) for each in (a, b, c, e)),
        )
        assert (await driver.due(99, 10)).next == 100
        places = [await driver.place(id) for id in "abcde"]
        assert places == [Place(None, "worker", claim, 100) for claim in ("1", "1", "1", "1", "")]

    async def test_ending_leases_leaves_all_else(self, driver: Driver) -> None:
        """What is taken without end stays so, what others have keeps its lease, and what is ready
        its place in line; to end those of somebody who has nothing changes nothing."""
        (a,) = await line_up(driver, "a")
        await line_up(driver, "b", since=5)
        await line_up(driver, "c", policy=RetryPolicy(enabled=False), flow="kept")
        await hand_out(driver, "d", owner="worker")
        await driver.take([("a", a.rev)], "another", "1", 0)
        await driver.claim({"kept": 1}, 1, "worker", "2", 0)
        places = {id: await driver.place(id) for id in "abcd"}
        for owner in ("worker", "nobody", "", "work", "worker#"):
            await driver.end_leases(owner, 100)
        assert {id: await driver.place(id) for id in "abcd"} == places
        assert (await driver.due(LEASE_MS, 10)).due == (due_at(a, LEASE_MS, LEASED),)

    async def test_a_lease_that_was_ended_can_be_renewed(self, driver: Driver) -> None:
        """An owner that was taken for dead goes on if nobody has acted on it."""
        (a,) = await line_up(driver, "a")
        await driver.claim(ROOM, 1, "worker", "1", 0)
        await driver.end_leases("worker", 100)
        assert await driver.renew([("a", a.rev, "1")], "worker", 150) == NOTHING
        assert await driver.place("a") == Place(None, "worker", "1", 150 + LEASE_MS)
        assert (await driver.due(150, 10)).due == ()

    async def test_renewing_nothing_is_no_error(self, driver: Driver) -> None:
        """Renewing no leases tells of none, and releasing none does nothing to those that there
        are."""
        await hand_out(driver, "a", owner="worker", until=50)
        assert await driver.renew([], "worker", 100) == NOTHING
        await driver.release([], "worker", 100)
        assert await driver.place("a") == Place(None, "worker", "", 50)

    async def test_a_renewed_lease_is_due_at_its_new_end(self, driver: Driver) -> None:
        """What runs is due when its lease ends and not before, however often that was moved."""
        a, b = await line_up(driver, "a", "b")
        await driver.claim(ROOM, 2, "worker", "1", 0)
        for now in range(50):
            await driver.renew([("a", a.rev, "1")], "worker", now)
        page = await driver.due(LEASE_MS + 48, 10)
        assert page.due == (due_at(b, LEASE_MS, LEASED),)
        assert page.next == LEASE_MS + 49
        assert (await driver.due(LEASE_MS + 49, 10)).due[1:] == (due_at(a, LEASE_MS + 49, LEASED),)

    async def test_what_is_released_is_ready_again(self, driver: Driver) -> None:
        """It is in line from now on, behind what has been ready for longer, for whoever claims it;
        the end of its lease is due no more."""
        a, _ = await line_up(driver, "a", "b")
        await driver.claim(ROOM, 1, "worker", "1", 0)
        await driver.release([("a", a.rev, "1")], "worker", 500)
        assert await driver.place("a") == Place(500)
        assert (await driver.due(10**9, 10)).due == ()
        await line_up(driver, "c", since=400)
        await line_up(driver, "d", since=600)
        claimed = await driver.claim(ROOM, 10, "another", "2", 700)
        assert given(claimed) == ["b", "c", "a", "d"]
        assert await driver.place("a") == Place(None, "another", "2", 700 + LEASE_MS)

    async def test_releasing_leaves_what_is_held_otherwise(self, driver: Driver) -> None:
        """What another owner has, or another claim, or another revision, is left alone; so is what
        is ready, which keeps its place in line."""
        a, b, c, d = await line_up(driver, "a", "b", "c", "d", since=5)
        await driver.take([("a", a.rev), ("b", b.rev)], "worker", "1", 100)
        await driver.take([("c", c.rev)], "another", "2", 100)
        places = {id: await driver.place(id) for id in "abcd"}
        held = [
            ("a", a.rev, "2"),
            ("a", a.rev, ""),
            ("b", a.rev, "1"),
            ("c", c.rev, "2"),
            ("d", d.rev, ""),
            ("d", d.rev, "1"),
            ("absent", 1, "1"),
        ]
        await driver.release(held, "worker", 500)
        assert {id: await driver.place(id) for id in "abcd"} == places

    async def test_a_late_release_does_not_touch_a_newer_version(self, driver: Driver) -> None:
        """A release that a commit has overtaken leaves the newer version with whoever has it."""
        (a,) = await line_up(driver, "a")
        await driver.claim(ROOM, 1, "worker", "1", 0)
        new = await move(driver, a)
        await driver.take([("a", new.rev)], "worker", "1", 100)
        await driver.release([("a", a.rev, "1")], "worker", 500)
        place = await driver.place("a")
        assert place is not None
        assert place.is_held("worker", "1")

    async def test_an_alarm_outlasts_claims(self, driver: Driver) -> None:
        """Whether it is ready, taken or released, a version is due at its alarm, or at the end of
        its lease if that is sooner; with the policy that it was committed with."""
        timeout = LEASE_MS + 500
        (a,) = await line_up(driver, "a", timeout_at=timeout)
        at_alarm, at_end = due_at(a, timeout, LEASED), due_at(a, LEASE_MS, LEASED)
        assert (await driver.due(10**9, 10)).due == (at_alarm,)
        await driver.claim(ROOM, 1, "worker", "1", 0)
        assert (await driver.due(10**9, 10)).due == (at_end,)
        await driver.renew([("a", a.rev, "1")], "worker", 1_000)
        assert (await driver.due(10**9, 10)).due == (at_alarm,)
        await driver.release([("a", a.rev, "1")], "worker", 2_000)
        assert (await driver.due(10**9, 10)).due == (at_alarm,)
        assert await driver.place("a") == Place(2_000)

    @pytest.mark.parametrize("change", ["release", "end"])
    async def test_what_is_released_or_ended_wakes_who_waits(
        self, driver: Driver, change: str
    ) -> None:
        """Neither is a commit, and both wake all that wait for one: there is something to claim, or
        due."""
        (a,) = await line_up(driver, "a")
        await driver.claim(ROOM, 1, "worker", "1", 0)
        head = await driver.head()
        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(driver.wait, head)
                await anyio.wait_all_tasks_blocked()
                if change == "release":
                    await driver.release([("a", a.rev, "1")], "worker", 5)
                else:
                    await driver.end_leases("worker", 5)
        assert await driver.head() == head

    async def test_what_is_released_wakes_who_waits_at_another_driver(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """Those who wait for something to claim hear of what another driver releases, and are given
        it."""
        (a,) = await line_up(driver, "a")
        await driver.claim(ROOM, 1, "worker", "1", 0)
        claimed: list[str] = []

        async def claim(other: Driver, *, task_status: TaskStatus[None]) -> None:
            while await other.head() == a.rev:  # from this commit on it looks at the store
                await other.wait(a.rev)
            head = await other.head()
            task_status.started()
            while not claimed:
                await other.wait(head)
                claimed.extend(given(await other.claim(ROOM, 1, "another", "2", 10)))

        with anyio.fail_after(self.patience_s):
            async with shared_store.driver() as other, anyio.create_task_group() as tasks:
                tasks.start_soon(_commit_once_all_wait, driver)
                await tasks.start(claim, other)
                await anyio.wait_all_tasks_blocked()
                await driver.release([("a", a.rev, "1")], "worker", 5)
        assert claimed == ["a"]

    async def test_what_was_ended_wakes_who_waits_at_another_driver(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """Those who wait for something to be due hear of leases that another driver ends."""
        (a,) = await line_up(driver, "a")
        await driver.claim(ROOM, 1, "worker", "1", 0)
        found: list[Due] = []

        async def look(other: Driver, *, task_status: TaskStatus[None]) -> None:
            while await other.head() == a.rev:  # from this commit on it looks at the store
                await other.wait(a.rev)
            head = await other.head()
            task_status.started()
            while not found:
                await other.wait(head)
                found.extend((await other.due(5, 1)).due)

        with anyio.fail_after(self.patience_s):
            async with shared_store.driver() as other, anyio.create_task_group() as tasks:
                tasks.start_soon(_commit_once_all_wait, driver)
                await tasks.start(look, other)
                await anyio.wait_all_tasks_blocked()
                await driver.end_leases("worker", 5)
        assert found == [due_at(a, 5, LEASED)]


async def _commit_once_all_wait(driver: Driver) -> None:
    """Commit something that rests, once all others wait."""
    await anyio.wait_all_tasks_blocked()
    await put(driver, Pause(State("awaited")))
