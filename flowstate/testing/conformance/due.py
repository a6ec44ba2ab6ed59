"""Due times: one index of what is to happen when."""

from __future__ import annotations

from ...commands import Delay, End, Pause, Transit
from ...driver import Driver
from ...leases import Due, DuePage
from ...state import RetryPolicy, State
from .base import LEASED, Laws, due_at, hand_out, line_up, plan, put


class DueLaws(Laws):
    async def test_soonest_first(self, driver: Driver) -> None:
        """What is due comes in the order of due times, not of commits or ids."""
        states = await put(driver, *(_delay(id, at) for id, at in [("a", 30), ("b", 10)]))
        states += await put(driver, _delay("c", 20))
        times = zip((states[1], states[2], states[0]), (10, 20, 30), strict=True)
        found = await driver.due(100, 10)
        assert found == DuePage(tuple(due_at(state, at) for state, at in times), None)

    async def test_at_or_before(self, driver: Driver) -> None:
        """A state is due from its very millisecond on."""
        await put(driver, _delay("a", 10), _delay("b", 11))
        assert await _due(driver, 9) == []
        assert await _due(driver, 10) == ["a"]
        assert await _due(driver, 11) == ["a", "b"]

    async def test_no_more_than_the_limit(self, driver: Driver) -> None:
        """The limit leaves out what is due last."""
        await put(driver, *(_delay(f"{n}", 10 + n) for n in range(6)))
        assert await _due(driver, 100, limit=3) == ["0", "1", "2"]
        assert await _due(driver, 100, limit=0) == []

    async def test_whatever_flow_it_is_for(self, driver: Driver) -> None:
        """All that is due is given, whatever flow it is at or goes to, in one order."""
        flows = ("wake", "other", "third")
        await put(driver, *(_delay(f"{n}", 10 + n, flows[n % 3]) for n in range(6)))
        await put(driver, Pause(State("p"), "wake", timeout=0.012, on_timeout="late"))
        assert await _due(driver, 100) == ["0", "1", "2", "p", "3", "4", "5"]

    async def test_the_end_of_a_lease_is_a_due_time(self, driver: Driver) -> None:
        """What is taken is due when its lease ends, among the alarms; a lease without end is never
        due, and neither is what is ready."""
        (a,) = await hand_out(driver, "a", owner="worker", until=20)
        (b,) = await put(driver, _delay("b", 10))
        await hand_out(driver, "never", owner="worker")
        await line_up(driver, "ready")
        assert (await driver.due(10**9, 10)).due == (due_at(b, 10), due_at(a, 20, LEASED))

    async def test_the_sooner_of_alarm_and_lease_counts(self, driver: Driver) -> None:
        """A version with an alarm and a lease is due once, at the sooner of the two."""
        (a,) = await line_up(driver, "a", timeout_at=10_000)
        (b,) = await line_up(driver, "b", timeout_at=50_000)
        await driver.claim({"work": 2}, 2, "worker", "1", 0)
        assert (await driver.due(10**9, 10)).due == (
            due_at(a, 10_000, LEASED),
            due_at(b, 30_000, LEASED),
        )

    async def test_the_policy_beside_it_comes_back(self, driver: Driver) -> None:
        """What is due comes with the policy of the engine that committed it, or with none if the
        state has its own; each version with that of its own commit."""
        first = RetryPolicy(lease=7, max_attempts=None, backoff=0.25, on_give_up="sorry")
        second = RetryPolicy(max_attempts=1, enabled=False)
        (a,) = await driver.commit(plan(_delay("a", 10), policy=first))
        own = State("b", retry=second)
        (b,) = await driver.commit(plan(_moved(own, 20), policy=first))
        assert (await driver.due(100, 10)).due == (Due(a, 10, first), Due(b, 20, None))
        (a,) = await driver.commit(plan(_moved(a, 30), policy=second))
        assert (await driver.due(100, 10)).due == (Due(b, 20, None), Due(a, 30, second))

    async def test_the_next_due_time_is_the_soonest_of_all(self, driver: Driver) -> None:
        """The next due time is the soonest, however far ahead; None if nothing will ever be due."""
        assert await _next(driver) is None
        await put(driver, Pause(State("c"), "wake"), End(State("e")))
        await line_up(driver, "r")
        assert await _next(driver) is None
        await put(driver, _delay("a", FAR))
        assert await _next(driver) == FAR
        await hand_out(driver, "b", owner="worker", until=30)
        assert await _next(driver) == 30

    async def test_the_next_due_time_moves_with_the_states(self, driver: Driver) -> None:
        """The next due time is that of current versions only."""
        a, b = await put(driver, _delay("a", 10), _delay("b", 20))
        assert await _next(driver) == 10
        (a,) = await put(driver, _moved(a, 40))
        assert await _next(driver) == 20
        (b,) = await put(driver, _moved(b, 50))
        assert await _next(driver) == 40
        (b,) = await put(driver, _moved(b, 15))
        assert await _next(driver) == 15
        await put(driver, End(b))
        assert await _next(driver) == 40
        await put(driver, Transit(a, "work"))
        assert await _next(driver) is None

    async def test_what_is_due_is_due_at_the_next_due_time(self, driver: Driver) -> None:
        """At the next due time something is due, and nothing is sooner."""
        await put(driver, *(_delay(f"{n}", 30 - n % 7) for n in range(20)))
        at = await _next(driver)
        assert at is not None
        assert await _due(driver, at - 1) == []
        assert await _due(driver, at) != []

    async def test_a_page_says_when_to_look_again(self, driver: Driver) -> None:
        """The soonest time that is not in the page: of what the limit left out, though it is due,
        or else of what is still to come."""
        await put(driver, *(_delay(f"{n}", 10 * n) for n in range(1, 6)))
        for limit, following in [(0, 10), (1, 20), (2, 30), (3, 40), (4, 40)]:
            page = await driver.due(35, limit)
            assert [due.at for due in page.due] == [10, 20, 30][:limit]
            assert page.next == following
        assert (await driver.due(50, 10)).next is None
        assert (await driver.due(50, 4)).next == 50
        assert await driver.due(9, 10) == DuePage((), 10)

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


FAR = 10 * 365 * 24 * 3_600_000
"""Ten years, in ms."""


def _delay(id: str, at: int, to: str = "wake") -> Delay:
    return _moved(State(id), at, to)


def _moved(state: State, at: int, to: str = "wake") -> Delay:
    return Delay(state, to=to, at=at)


async def _due(driver: Driver, until: int, limit: int = 10) -> list[str]:
    return [due.state.id for due in (await driver.due(until, limit)).due]


async def _next(driver: Driver) -> int | None:
    """The soonest due time of all."""
    return (await driver.due(0, 0)).next
