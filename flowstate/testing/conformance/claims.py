"""Law 8, exclusive claims: what is ready is given to one claimer at a time, in line order."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define

from ...commands import Delay, End, Pause, Transit
from ...driver import Driver
from ...errors import RevMismatchError
from ...leases import Claimed, Place
from ...query import Query
from ...state import RetryPolicy, State, Status
from ..claimer import FLOWS, LOOK_EVERY_S
from ..store import Store
from .base import (
    LEASE_MS,
    LEASED,
    Laws,
    create,
    given,
    hand_out,
    line_up,
    move,
    plan,
    put,
    read_all,
)

CLAIMERS = 4
MANY = 60
"""How many versions claimers who come at the same time share."""
ROOM = {"work": 100}


class ClaimLaws(Laws):
    async def test_a_claim_gives_what_is_ready(self, driver: Driver) -> None:
        """A claim gives versions that are ready, as they were committed, each with the policy of
        whoever committed it unless the state has its own; they are taken then."""
        own = RetryPolicy(lease=5)
        (a,) = await line_up(driver, "a")
        (b,) = await driver.commit(plan(Transit(State("b", retry=own), "work"), policy=LEASED))
        claimed = await driver.claim(ROOM, 10, "worker", "1", 100)
        assert claimed == (Claimed(a, LEASED), Claimed(b, None))
        assert await driver.place("a") == Place(None, "worker", "1", 100 + LEASE_MS)
        assert await driver.claim(ROOM, 10, "another", "2", 100) == ()

    async def test_each_ready_version_goes_to_one_of_many_claimers(self, driver: Driver) -> None:
        """Of many who claim at the same time, each version goes to one; none is left over."""
        await self._share([driver] * CLAIMERS, driver)

    async def test_two_drivers_never_claim_the_same(self, shared_store: Store) -> None:
        """Those who claim through several drivers of one store share what is ready as well."""
        async with shared_store.driver() as one, shared_store.driver() as other:
            await self._share([one, other] * (CLAIMERS // 2), one)

    async def test_processes_never_claim_the_same(
        self, process_store: Store, driver: Driver
    ) -> None:
        """While several processes claim, renew, release and commit, nobody else has a part in what
        one has claimed, and nothing is lost: what one that was killed had can be released."""
        states = await line_up(driver, *(f"{n}" for n in range(MANY)), flow=FLOWS[0])
        with anyio.fail_after(self.patience_s):
            async with AsyncExitStack() as stack:
                each = [
                    await stack.enter_async_context(_Claiming.process_of(process_store, owner))
                    for owner in ("killed", *(f"worker {n}" for n in range(CLAIMERS - 1)))
                ]
                for claiming in each:
                    await claiming.read_line()
                killed, *others = each
                await killed.begin()
                for _ in range(3):
                    await killed.read_line()
                async with anyio.create_task_group() as tasks:
                    for claiming in others:
                        await claiming.begin()
                        tasks.start_soon(claiming.end)
                    killed.process.kill()
                    while await driver.find(Query(status=Status.RUNNING)) is not None:
                        left = await driver.holdings("killed")
                        await driver.release([one.held for one in left], "killed", 0)
                        await anyio.sleep(LOOK_EVERY_S)
        for state in states:
            versions = await read_all(driver, Query(id=state.id))
            assert [each.transition.to for each in versions[: len(FLOWS)]] == list(FLOWS)
            assert [each.transition.status for each in versions[len(FLOWS) :]] == [Status.ENDED]

    async def _share(self, claimers: Collection[Driver], driver: Driver) -> None:
        flows = ("work", "mail", "ship")
        for flow in flows:
            await line_up(driver, *(f"{flow}/{n}" for n in range(MANY // 3)), flow=flow)
        everything = [state.id for state in await read_all(driver)]
        claimed: list[str] = []

        async def claim(driver: Driver, owner: str) -> None:
            turn = 0
            while len(claimed) < MANY:
                turn += 1
                claim = f"{owner}/{turn}"
                claimed.extend(
                    given(await driver.claim(dict.fromkeys(flows, 3), 4, owner, claim, 5))
                )
                await anyio.lowlevel.checkpoint()

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for n, each in enumerate(claimers):
                    tasks.start_soon(claim, each, f"worker {n}")
        assert sorted(claimed) == sorted(everything)

    async def test_the_first_in_line_comes_first(self, driver: Driver) -> None:
        """What has been ready for longest is given first; of what is ready since the same instant,
        the lower revision. Nothing else counts, not even when it was committed."""
        await line_up(driver, "d", since=30)
        await line_up(driver, "c", "a", since=20)
        await line_up(driver, "b", since=10)
        assert given(await driver.claim(ROOM, 2, "worker", "1", 100)) == ["b", "c"]
        assert given(await driver.claim(ROOM, 2, "worker", "2", 100)) == ["a", "d"]

    async def test_the_first_of_each_flow_comes_before_the_others(self, driver: Driver) -> None:
        """However long the line of one flow is, each flow's first comes before it goes on."""
        await line_up(driver, "a1", "a2", "a3", since=1, flow="a")
        await line_up(driver, "c1", since=20, flow="c")
        await line_up(driver, "b1", "b2", since=10, flow="b")
        room = {"a": 10, "b": 10, "c": 10}
        claimed = await driver.claim(room, 4, "worker", "1", 100)
        assert given(claimed) == ["a1", "b1", "c1", "a2"]
        assert given(await driver.claim(room, 4, "worker", "2", 100)) == ["a3", "b2"]

    async def test_an_earlier_instant_is_a_priority_within_a_flow(self, driver: Driver) -> None:
        """What is put in line as ready since long ago overtakes its own flow, and no other."""
        await line_up(driver, "a", "b", since=1_000)
        await line_up(driver, "other", since=2_000, flow="other")
        await line_up(driver, "urgent", "also", since=5)
        room = ROOM | {"other": 1}
        claimed = await driver.claim(room, 2, "worker", "1", 5_000)
        assert given(claimed) == ["urgent", "other"]
        assert given(await driver.claim(room, 9, "worker", "2", 5_000)) == ["also", "a", "b"]

    async def test_no_more_of_a_flow_than_there_is_room_for(self, driver: Driver) -> None:
        """Of each flow no more than its room, in all no more than the limit, and nothing of flows
        that there is no room for."""
        for flow in ("a", "b", "c", "d"):
            await line_up(driver, *(f"{flow}{n}" for n in range(5)), flow=flow)
        room = {"a": 3, "b": 1, "d": 0, "nobody's": 7}
        assert await driver.claim({}, 10, "worker", "0", 100) == ()
        assert await driver.claim(room, 0, "worker", "0", 100) == ()
        claimed = await driver.claim(room, 10, "worker", "1", 100)
        assert given(claimed) == ["a0", "b0", "a1", "a2"]
        claimed = await driver.claim(room, 2, "worker", "2", 100)
        assert given(claimed) == ["a3", "b1"]

    async def test_each_is_taken_for_the_length_of_its_own_lease(self, driver: Driver) -> None:
        """What is taken at once has one lease each, as long as the policy says that it goes by; it
        never ends if that is switched off."""
        await line_up(driver, "a", policy=RetryPolicy(lease=1))
        await line_up(driver, "b", policy=RetryPolicy(lease=2.5))
        await line_up(driver, "c", policy=RetryPolicy(enabled=False))
        own = State("d", retry=RetryPolicy(lease=4))
        (d,) = await driver.commit(plan(Transit(own, "work"), policy=LEASED))
        assert len(await driver.claim(ROOM, 3, "worker", "1", 100)) == 3
        assert len(await driver.take([("d", d.rev)], "worker", "2", 100)) == 1
        places = [await driver.place(id) for id in "abcd"]
        assert [place and place.until for place in places] == [1_100, 2_600, None, 4_100]

    async def test_a_claim_that_is_made_again_gives_the_same(self, driver: Driver) -> None:
        """Asked again with the same claim, as after a lost answer, the same comes back, whatever
        has become ready meanwhile, and nothing more is taken."""
        await line_up(driver, "a", "b", "c")
        first = await driver.claim(ROOM, 2, "worker", "1", 100)
        place = await driver.place("a")
        await line_up(driver, "urgent", since=0)
        for room, limit in ((ROOM, 2), (ROOM, 10), ({"other": 1}, 1)):
            again = await driver.claim(room, limit, "worker", "1", 200)
            assert sorted(given(again)) == ["a", "b"]
            assert set(again) == set(first)
        assert await driver.place("a") == place
        assert given(await driver.claim(ROOM, 10, "worker", "2", 200)) == ["c", "urgent"]

    async def test_a_claim_that_is_made_again_gives_what_it_still_has(self, driver: Driver) -> None:
        """What has moved on since, or was released and taken by another claim, does not come back;
        nothing comes in its place."""
        a, b, _ = await line_up(driver, "a", "b", "c")
        await driver.claim(ROOM, 3, "worker", "1", 100)
        await line_up(driver, "d")
        await move(driver, a)
        await driver.release([("b", b.rev, "1")], "worker", 150)
        await driver.take([("b", b.rev)], "worker", "2", 200)
        assert given(await driver.claim(ROOM, 10, "worker", "1", 200)) == ["c"]
        assert given(await driver.claim(ROOM, 10, "worker", "3", 200)) == ["d", "a"]

    async def test_take_gives_the_versions_that_it_names(self, driver: Driver) -> None:
        """Taking gives exactly what was asked for, wherever it is in line, and takes it."""
        _, b, c, _ = await line_up(driver, "a", "b", "c", "d")
        taken = await driver.take([("c", c.rev), ("b", b.rev)], "worker", "1", 100)
        assert set(taken) == {Claimed(b, LEASED), Claimed(c, LEASED)}
        assert await driver.place("c") == Place(None, "worker", "1", 100 + LEASE_MS)
        assert await driver.take([], "worker", "2", 100) == ()
        assert given(await driver.claim(ROOM, 10, "worker", "3", 100)) == ["a", "d"]

    async def test_take_gives_only_what_is_ready(self, driver: Driver) -> None:
        """What is taken, has moved on, rests or is not there is left out; the rest is given."""
        fine, moved, _ = await line_up(driver, "fine", "moved", "claimed")
        claimed = await driver.get("claimed")
        assert claimed is not None
        await driver.take([("claimed", claimed.rev)], "worker", "1", 100)
        new = await move(driver, moved)
        (resting,) = await put(driver, Pause(State("resting"), "work"))
        wanted = [
            ("claimed", claimed.rev),
            ("moved", moved.rev),
            ("resting", resting.rev),
            ("absent", 1),
            ("absent", 0),
            ("fine", new.rev),
            ("fine", fine.rev),
        ]
        assert given(await driver.take(wanted, "another", "2", 100)) == ["fine"]
        assert await driver.place("claimed") == Place(None, "worker", "1", 100 + LEASE_MS)
        assert await driver.place("moved") == Place(0)
        assert await driver.place("resting") is None

    async def test_a_take_that_is_made_again_gives_the_same(self, driver: Driver) -> None:
        """Asked again with the same claim, what is still taken by it comes back, and no more."""
        a, b, c = await line_up(driver, "a", "b", "c")
        versions = [("a", a.rev), ("b", b.rev)]
        await driver.take(versions, "worker", "1", 100)
        await move(driver, b)
        again = await driver.take([*versions, ("c", c.rev)], "worker", "1", 200)
        assert given(again) == ["a"]
        assert await driver.place("c") == Place(0)

    async def test_one_of_many_who_take_the_same_has_it(self, driver: Driver) -> None:
        """Of those who take the same version at the same time, one is given it."""
        (a,) = await line_up(driver, "a")
        owners: list[str] = []

        async def take(owner: str) -> None:
            if await driver.take([("a", a.rev)], owner, f"claim of {owner}", 100):
                owners.append(owner)

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for n in range(CLAIMERS):
                    tasks.start_soon(take, f"worker {n}")
        place = await driver.place("a")
        assert place is not None
        assert owners == [place.owner]

    async def test_what_is_due_is_not_given(self, driver: Driver) -> None:
        """What an alarm has come for is its leader's: neither claimed nor taken. Those behind it in
        line are."""
        due, also = await line_up(driver, "due", "also", since=1, timeout_at=1_000)
        (later,) = await line_up(driver, "later", since=2, timeout_at=1_001)
        await line_up(driver, "never", since=3)
        versions = [(state.id, state.rev) for state in (due, also, later)]
        assert given(await driver.claim(ROOM, 2, "worker", "1", 1_000)) == ["later", "never"]
        assert await driver.take(versions, "worker", "2", 1_000) == ()
        assert given(await driver.claim(ROOM, 1, "worker", "3", 999)) == ["due"]
        assert given(await driver.take(versions, "worker", "4", 999)) == ["also"]

    async def test_what_rests_is_not_given(self, driver: Driver) -> None:
        """What is paused, delayed or ended is in no line, also when its time has come."""
        versions = await put(
            driver,
            Pause(State("a"), "work"),
            Pause(State("b"), "work", timeout=1, on_timeout="work"),
            Delay(State("c"), "work", at=10),
            End(State("d")),
        )
        assert await driver.claim(ROOM, 10, "worker", "1", 5_000) == ()
        wanted = [(state.id, state.rev) for state in versions]
        assert await driver.take(wanted, "worker", "1", 5_000) == ()

    async def test_what_is_committed_as_taken_is_not_given(self, driver: Driver) -> None:
        """A commit may hand a version to an owner; nobody else is given it, nor is it given to that
        owner again, also when its lease has ended."""
        (a,) = await hand_out(driver, "a", owner="worker", until=50)
        await hand_out(driver, "b", owner="worker")
        for owner in ("worker", "another"):
            assert await driver.claim(ROOM, 10, owner, f"1/{owner}", 100) == ()
            assert await driver.take([("a", a.rev)], owner, f"2/{owner}", 100) == ()
        assert await driver.place("a") == Place(None, "worker", "", 50)

    async def test_a_claim_of_nothing_waits_for_nobody_who_writes(
        self, store: Store, driver: Driver
    ) -> None:
        """A claim looks before it locks anything: if there is nothing that it may have, it is
        answered while somebody else holds the store against all who write."""
        await line_up(driver, "taken")
        await line_up(driver, "other", flow="mail")
        await driver.claim(ROOM, 1, "another", "1", 0)
        locked = store.locked()
        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                with locked:
                    tasks.start_soon(create, driver, "late")
                    await anyio.wait_all_tasks_blocked()
                    for n, room in enumerate(({}, ROOM, {"nobody's": 7}, ROOM | {"mail": 0})):
                        assert await driver.claim(room, 10, "worker", f"{n}", 0) == ()
                    assert await driver.get("late") is None, "it was not locked"
        assert await driver.get("late")

    async def test_a_claim_makes_no_revision(self, store: Store, driver: Driver) -> None:
        """Claiming, taking, renewing and releasing leave all versions as they were stored, and the
        head where it was."""
        a, b = await line_up(driver, "a", "b")
        await driver.claim(ROOM, 1, "worker", "1", 100)
        await driver.take([("b", b.rev)], "worker", "2", 100)
        await driver.renew([("a", a.rev, "1")], "worker", 200)
        await driver.release([("b", b.rev, "2")], "worker", 300)
        assert await driver.head() == b.rev
        assert await read_all(driver) == [a, b]
        assert await driver.get("a") == a
        assert [version.rev for version in store.raw_versions()] == [a.rev, b.rev]

    async def test_a_claim_is_no_conflict(self, driver: Driver) -> None:
        """What was claimed, renewed and released can be committed on, by anyone and once: a commit
        is fenced by the revision alone."""
        a, b, c = await line_up(driver, "a", "b", "c")
        await driver.claim(ROOM, 3, "worker", "1", 100)
        await driver.renew([("b", b.rev, "1")], "worker", 200)
        await driver.release([("c", c.rev, "1")], "worker", 300)
        for state in (a, b, c):
            await move(driver, state)
            with pytest.raises(RevMismatchError):
                await move(driver, state)

    async def test_a_line_of_one_flow_is_no_others(self, driver: Driver) -> None:
        """A version is in line for the flow that it is at, and leaves it for that of the next."""
        (a,) = await create(driver, "a")
        await put(driver, Transit(a, "mail"))
        assert await driver.claim(ROOM, 10, "worker", "1", 100) == ()
        assert given(await driver.claim({"mail": 1}, 10, "worker", "2", 100)) == ["a"]


@define(eq=False)
class _Claiming:
    """A process that claims."""

    process: anyio.abc.Process
    out: BufferedByteReceiveStream

    @classmethod
    @asynccontextmanager
    async def process_of(cls, store: Store, owner: str) -> AsyncGenerator[_Claiming]:
        command = [sys.executable, "-m", "flowstate.testing.claimer", store.url, owner]
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdout is not None
            try:
                yield cls(process, BufferedByteReceiveStream(process.stdout))
            finally:
                if process.returncode is None:  # it would wait for what another has
                    process.kill()

    async def begin(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(b"\n")

    async def read_line(self) -> None:
        await self.out.receive_until(b"\n", 1_000)

    async def end(self) -> None:
        """Read all that it prints, so that it can go on; it must end well."""
        with suppress(anyio.EndOfStream):
            while True:
                await self.out.receive()
        assert await self.process.wait() == 0, "a process that claims has failed"
