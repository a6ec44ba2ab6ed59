"""Due times: one index of what is to happen when."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from ...commands import Delay, End, Pause, Transit
from ...driver import Driver
from ...errors import RevMismatchError
from ...leases import RELEASED, Due, DuePage
from ...plan import Plan, Write
from ...state import RetryPolicy, State
from ..store import Store
from .base import Laws, due, move, plan, put


class DueLaws(Laws):
    async def test_soonest_first(self, driver: Driver) -> None:
        """What is due comes in the order of due times, not of commits or ids."""
        states = await put(driver, *(_delay(id, at) for id, at in [("a", 30), ("b", 10)]))
        states += await put(driver, _delay("c", 20))
        assert await _due(driver, 100) == ["b", "c", "a"]
        times = zip((states[1], states[2], states[0]), (10, 20, 30), strict=True)
        found = await driver.due(100, ["wake"], 10)
        assert found == DuePage(tuple(due(state, at) for state, at in times), None)

    async def test_at_or_before(self, driver: Driver) -> None:
        """A state is due from its very millisecond on."""
        await put(driver, _delay("a", 10), _delay("b", 11))
        assert await _due(driver, 9) == []
        assert await _due(driver, 10) == ["a"]
        assert await _due(driver, 11) == ["a", "b"]

    async def test_no_more_than_the_limit(self, driver: Driver) -> None:
        """The limit leaves out what is due last, over all flows."""
        await put(driver, *(_delay(f"{n}", 10 + n, ("wake", "other")[n % 2]) for n in range(6)))
        assert await _due(driver, 100, "wake", "other", limit=3) == ["0", "1", "2"]
        assert await _due(driver, 100, "other", limit=2) == ["1", "3"]

    async def test_only_the_flows_that_were_asked_for(self, driver: Driver) -> None:
        """Only states that are due for the flows that were asked for are given."""
        await put(driver, _delay("a", 10, "wake"), _delay("b", 20, "other"))
        assert await _due(driver, 100, "wake") == ["a"]
        assert await _due(driver, 100, "other", "wake") == ["a", "b"]
        assert await _due(driver, 100, "third") == []
        assert (await driver.due(100, [], 10)).due == ()

    async def test_the_next_due_time_is_the_soonest_over_the_flows(self, driver: Driver) -> None:
        """The next due time is the soonest of any of the flows that were asked for, however far
        ahead; None if nothing will ever be due for them."""
        assert await _next(driver, ["wake", "other"]) is None
        await put(driver, _delay("a", FAR), _delay("b", 30, "other"), Pause(State("c"), "wake"))
        assert await _next(driver, ["wake"]) == FAR
        assert await _next(driver, ["wake", "other"]) == 30
        assert await _next(driver, ["other", "wake"]) == 30
        assert await _next(driver, ["third"]) is None
        assert await _next(driver, []) is None

    async def test_the_next_due_time_moves_with_the_states(self, driver: Driver) -> None:
        """The next due time is that of current versions only, each at the last time that it was
        given."""
        a, b = await put(driver, _delay("a", 10), _delay("b", 20))
        assert await _next(driver, ["wake"]) == 10
        await driver.renew([("a", a.rev)], 40)
        assert await _next(driver, ["wake"]) == 20
        (b,) = await put(driver, _moved(b, 50))
        assert await _next(driver, ["wake"]) == 40
        (b,) = await put(driver, _moved(b, 15))
        assert await _next(driver, ["wake"]) == 15
        await put(driver, End(b))
        assert await _next(driver, ["wake"]) == 40
        (a,) = await put(driver, _moved(a, 40, "other"))
        assert await _next(driver, ["wake"]) is None

    async def test_the_flows_that_something_is_due_for(self, driver: Driver) -> None:
        """Every flow that a current version is due for is named once, however far ahead that is;
        those of superseded versions are not."""
        assert await driver.due_flows() == ()
        a, *_ = await put(
            driver,
            _delay("a", 10, "old"),
            _delay("b", 10),
            _delay("c", 20),
            _delay("d", FAR, "far"),
        )
        await put(driver, Pause(State("p"), "never"), End(State("e")))
        await put(driver, Pause(State("t"), "never", timeout=5, on_timeout="late"))
        await driver.commit(plan(Transit(State("r"), "run"), policy=RetryPolicy()))
        for flows in (driver.due_flows, partial(Driver.due_flows, driver)):
            assert await flows() == ("far", "late", "old", "run", "wake")
        await put(driver, _moved(a, 30))
        for flows in (driver.due_flows, partial(Driver.due_flows, driver)):
            assert await flows() == ("far", "late", "run", "wake")

    async def test_what_is_due_is_due_at_the_next_due_time(self, driver: Driver) -> None:
        """At the next due time something is due, and nothing is sooner."""
        await put(driver, *(_delay(f"{n}", 30 - n % 7) for n in range(20)))
        at = await _next(driver, ["wake"])
        assert at is not None
        assert await _due(driver, at - 1) == []
        assert await _due(driver, at) != []

    async def test_a_page_says_when_to_look_again(self, driver: Driver) -> None:
        """The soonest time that is not in the page: of what the limit left out, though it is due,
        or else of what is still to come, over all the flows."""
        await put(driver, *(_delay(f"{n}", 10 * n, ("wake", "other")[n % 2]) for n in range(1, 6)))
        flows = ["wake", "other"]
        for limit, following in [(0, 10), (1, 20), (2, 30), (3, 40), (4, 40)]:
            page = await driver.due(35, flows, limit)
            assert [due.time for due in page.due] == [10, 20, 30][:limit]
            assert page.next == following
        assert (await driver.due(50, flows, 10)).next is None
        assert (await driver.due(50, ["other"], 2)).next == 50
        assert (await driver.due(9, ["wake"], 10)) == DuePage((), 20)

    async def test_asking_twice_gives_the_same(self, driver: Driver) -> None:
        """Asking what is due changes nothing."""
        await put(driver, _delay("a", 10), _delay("b", 5))
        assert await _due(driver, 100, limit=1) == ["b"]
        assert await _due(driver, 100) == await _due(driver, 100) == ["b", "a"]

    async def test_a_state_that_moved_on_is_not_due(self, driver: Driver) -> None:
        """Only current versions are due: a due time goes with the version that it was set for."""
        a, b, c = await put(driver, _delay("a", 10), _delay("b", 10), _delay("c", 10))
        await put(driver, End(a), Pause(b), _moved(c, 30))
        assert await _due(driver, 20) == []
        assert await _due(driver, 30) == ["c"]

    async def test_a_due_time_may_come_nearer(self, driver: Driver) -> None:
        """A newer version may be due sooner than the one that it replaces."""
        a, _ = await put(driver, _delay("a", 50), _delay("b", 20))
        await put(driver, _moved(a, 10))
        assert await _due(driver, 100) == ["a", "b"]

    async def test_the_flow_to_run_is_the_plans(self, driver: Driver) -> None:
        """The flow that a due time is for is what the plan says, not where the state is."""
        (lease, timeout) = (
            plan(Transit(State("a"), "work")).writes[0].state,
            plan(Transit(State("b"), "work")).writes[0].state,
        )
        writes = (Write(lease, 10, "work"), Write(timeout, 20, "too late"))
        await driver.commit(Plan("both", writes))
        assert await _due(driver, 100, "work") == ["a"]
        assert await _due(driver, 100, "too late") == ["b"]

    async def test_the_policy_stays_beside_the_due_time(self, driver: Driver) -> None:
        """What is due is given with the policy that it was committed with, or with none, also after
        its due time was renewed."""
        policies = [None, RetryPolicy(), RetryPolicy(max_attempts=1, on_give_up="sorry")]
        writes = [Write(State(f"{n}"), n, "wake", policy) for n, policy in enumerate(policies)]
        versions = await driver.commit(Plan("policies", tuple(writes)))
        assert policies == [due.policy for due in (await driver.due(9, ["wake"], 9)).due]
        await driver.renew([(state.id, state.rev) for state in versions], 20)
        assert policies == [due.policy for due in (await driver.due(20, ["wake"], 9)).due]

    async def test_the_policy_goes_with_its_version(self, driver: Driver) -> None:
        """A newer version has the policy that it was committed with, or none."""
        first = RetryPolicy(max_attempts=1)
        for number, policy in enumerate([RetryPolicy(max_attempts=2), None]):
            id = f"state-{number}"
            (a,) = await driver.commit(Plan(f"{id}-1", (Write(State(id), 10, "wake", first),)))
            (a,) = await driver.commit(Plan(f"{id}-2", (Write(a, 10, id, policy),)))
            assert (await driver.due(10, [id], 9)).due == (Due(a, 10, policy),)

    async def test_renew_moves_due_times(self, store: Store, driver: Driver) -> None:
        """Renewed states are due at the new time and not before; there is no new revision, and
        they are stored as they were."""
        a, b = await put(driver, _delay("a", 10), _delay("b", 20))
        before = store.raw_versions()
        assert await driver.renew([("a", a.rev)], 30) == frozenset()
        assert await _due(driver, 29) == ["b"]
        assert (await driver.due(30, ["wake"], 10)).due == (due(b, 20), due(a, 30))
        assert store.raw_versions() == before
        assert await driver.get("a") == a

    async def test_renew_may_move_due_times_nearer(self, driver: Driver) -> None:
        """Renewing may move a due time nearer, as when a lease is given up."""
        a, _ = await put(driver, _delay("a", 1_000), _delay("b", 2_000))
        await driver.renew([("a", a.rev)], 5)
        assert await _due(driver, 5) == ["a"]

    async def test_a_released_lease_is_due_before_all(self, driver: Driver) -> None:
        """The due time of a lease that is given up is below every instant, and is given as it was
        set, which tells it from one that ran out."""
        a, b = await put(driver, _delay("a", 0), _delay("b", FAR))
        released = 1_700_000_000_000 - RELEASED
        assert await driver.renew([("b", b.rev)], released) == frozenset()
        assert await _next(driver, ["wake"]) == released
        assert (await driver.due(0, ["wake"], 10)).due == (due(b, released), due(a, 0))

    async def test_a_released_lease_wakes_who_waits(self, driver: Driver) -> None:
        """A due time that comes nearer is no commit, and still wakes all that wait for one."""
        (a,) = await put(driver, _delay("a", 1_000))
        head = await driver.head()
        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(driver.wait, head)
                await anyio.wait_all_tasks_blocked()
                await driver.renew([("a", a.rev)], 5)
        assert await driver.head() == head

    async def test_renew_gives_back_what_moved_on(self, driver: Driver) -> None:
        """States that are not at that revision any more, or never were there, are named and left
        alone; the others are renewed."""
        a, b, c = await put(driver, _delay("a", 10), _delay("b", 10), _delay("c", 10))
        (new,) = await put(driver, _moved(b, 15))
        leases = [("a", a.rev), ("b", b.rev), ("c", c.rev), ("nobody", 1), ("a2", a.rev)]
        assert await driver.renew(leases, 50) == {"b", "nobody", "a2"}
        assert (await driver.due(49, ["wake"], 10)).due == (due(new, 15),)
        assert await _due(driver, 50) == ["b", "a", "c"]

    async def test_renew_of_nothing(self, driver: Driver) -> None:
        """Renewing no leases is no error and gives no ids."""
        assert await driver.renew([], 50) == frozenset()

    async def test_renew_sets_no_due_time(self, driver: Driver) -> None:
        """A version without a due time has nothing to move: it gets none."""
        (a,) = await put(driver, Transit(State("a"), "wake"))
        assert await driver.renew([("a", a.rev)], 50) == frozenset()
        assert await _due(driver, 100) == []

    async def test_a_renewed_state_that_moves_on_is_not_due(self, driver: Driver) -> None:
        """A due time that was renewed goes with its version when that is superseded."""
        (a,) = await put(driver, _delay("a", 10))
        await driver.renew([("a", a.rev)], 30)
        await move(driver, a)
        assert await _due(driver, 100) == []

    async def test_many_renewals_leave_one_due_time(self, driver: Driver) -> None:
        """However often states are renewed, each is due once, at the last time it was given."""
        states = await put(driver, *(_delay(f"{n:02}", 10) for n in range(50)))
        leases = [(state.id, state.rev) for state in states]
        for until in range(100, 160):
            assert await driver.renew(leases, until) == frozenset()
        assert await _due(driver, 158, limit=1_000) == []
        assert sorted(await _due(driver, 159, limit=1_000)) == [state.id for state in states]

    async def test_renewing_is_no_conflict(self, driver: Driver) -> None:
        """After a version was renewed, the next version can be committed on top of it, once."""
        (a,) = await put(driver, _delay("a", 10))
        await driver.renew([("a", a.rev)], 30)
        new = await move(driver, a)
        with pytest.raises(RevMismatchError):
            await move(driver, a)
        assert await driver.renew([("a", new.rev)], 30) == frozenset()


FAR = 10 * 365 * 24 * 3_600_000
"""Ten years, in ms."""


def _delay(id: str, at: int, to: str = "wake") -> Delay:
    return _moved(State(id), at, to)


def _moved(state: State, at: int, to: str = "wake") -> Delay:
    return Delay(state, to=to, at=at)


async def _due(driver: Driver, until: int, *flows: str, limit: int = 10) -> list[str]:
    page = await driver.due(until, flows or ("wake",), limit)
    return [due.state.id for due in page.due]


async def _next(driver: Driver, flows: list[str]) -> int | None:
    """The soonest due time of all."""
    return (await driver.due(0, flows, 0)).next
