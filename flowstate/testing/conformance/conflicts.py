"""Conflicts: a commit holds only if every state is still where its plan expects it."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from ...commands import Command, Require, Transit
from ...driver import Driver
from ...errors import RevMismatchError
from ...state import State
from ..store import Store
from .base import Laws, create, move, plan, put, revs


class ConflictLaws(Laws):
    async def test_a_stale_revision_conflicts(self, driver: Driver) -> None:
        """A commit that expects a superseded revision is refused, and says which was found."""
        (old,) = await create(driver, "a")
        new = await move(driver, old)
        assert await conflicts(driver, Transit(old, "x")) == {"a": (old.rev, new.rev)}

    async def test_creating_what_exists_conflicts(self, driver: Driver) -> None:
        """A commit that expects revision 0 of a state that exists is refused."""
        (a,) = await create(driver, "a")
        assert await conflicts(driver, Transit(State("a"), "x")) == {"a": (0, a.rev)}

    async def test_updating_what_never_existed_conflicts(self, driver: Driver) -> None:
        """A commit that expects a revision of a state that never existed is refused, with 0."""
        await create(driver, "a")
        assert await conflicts(driver, Transit(State("b", rev=1), "x")) == {"b": (1, 0)}

    async def test_a_revision_from_the_future_conflicts(self, driver: Driver) -> None:
        """A commit that expects a revision above the latest is refused."""
        (a,) = await create(driver, "a")
        found = await conflicts(driver, Transit(State("a", rev=a.rev + 7), "x"))
        assert found == {"a": (a.rev + 7, a.rev)}

    async def test_a_stale_requirement_conflicts(self, driver: Driver) -> None:
        """A required state must be at the revision that was seen."""
        a, b = await create(driver, "a", "b")
        new = await move(driver, b)
        assert await conflicts(driver, Transit(a, "x"), Require(b)) == {"b": (b.rev, new.rev)}

    async def test_requiring_that_nothing_is_there_conflicts_with_what_is(
        self, driver: Driver
    ) -> None:
        """To require a state at revision 0 is to require that it does not exist."""
        a, b = await create(driver, "a", "b")
        assert await conflicts(driver, Transit(a, "x"), Require(State("b"))) == {"b": (0, b.rev)}

    async def test_all_conflicts_are_reported(self, driver: Driver) -> None:
        """Every id that is not as expected is named, and no other: writes and requirements, stale,
        missing and already there."""
        stale, exists, required, fine = await create(driver, "stale", "exists", "required", "fine")
        new = await move(driver, stale)
        newly_required = await move(driver, required)
        found = await conflicts(
            driver,
            Transit(fine, "x"),
            Transit(stale, "x"),
            Transit(State("exists"), "x"),
            Transit(State("missing", rev=stale.rev), "x"),
            Require(required),
            Require(State("missing too", rev=fine.rev)),
            Require(State("nobody")),
        )
        assert found == {
            "stale": (stale.rev, new.rev),
            "exists": (0, exists.rev),
            "missing": (stale.rev, 0),
            "required": (required.rev, newly_required.rev),
            "missing too": (fine.rev, 0),
        }

    async def test_a_requirement_that_holds_is_not_written(
        self, store: Store, driver: Driver
    ) -> None:
        """Requiring a state makes no version of it."""
        a, b = await create(driver, "a", "b")
        written = await put(driver, Require(b), Transit(a, "x"), Require(State("nobody")))
        assert [state.id for state in written] == ["a"]
        assert [version.id for version in store.raw_versions()] == ["a", "b", "a"]
        assert await driver.get("b") == b

    async def test_requirements_alone_write_nothing(self, store: Store, driver: Driver) -> None:
        """A commit of requirements only is a check: it gives nothing, or their conflicts."""
        a, b = await create(driver, "a", "b")
        before = store.raw_versions()
        assert await put(driver, Require(a), Require(b)) == ()
        new = await move(driver, b)
        assert await conflicts(driver, Require(a), Require(b)) == {"b": (b.rev, new.rev)}
        assert store.raw_versions()[:-1] == before

    async def test_one_of_many_racing_commits_wins(self, driver: Driver) -> None:
        """Of any number of commits that expect the same revision, exactly one happens; the others
        are refused with its revision."""
        (state,) = await create(driver, "a")
        won: list[State] = []
        lost: list[dict[str, tuple[int, int]]] = []

        async def race(to: str) -> None:
            try:
                won.extend(await put(driver, Transit(state, to)))
            except RevMismatchError as error:
                lost.append(error.conflicts)

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for n in range(50):
                    tasks.start_soon(race, f"to-{n}")
        assert [await driver.get("a")] == won
        assert lost == [{"a": (state.rev, won[0].rev)}] * 49

    async def test_a_refused_commit_fails_alone(self, driver: Driver) -> None:
        """A commit that is refused does not affect those that are made at the same time."""
        (stale,) = await create(driver, "stale")
        await move(driver, stale)
        written: list[State] = []
        refused: list[str] = []

        async def commit(n: int) -> None:
            fresh = Transit(State(f"fresh-{n}"), "x")
            try:
                written.extend(await put(driver, fresh, *([Transit(stale, "x")] * (n % 2))))
            except RevMismatchError as error:
                refused.extend(error.conflicts)

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for n in range(60):
                    tasks.start_soon(commit, n)
        assert sorted(state.id for state in written) == sorted(
            f"fresh-{n}" for n in range(0, 60, 2)
        )
        assert refused == ["stale"] * 30
        assert len(set(revs(written))) == 30

    async def test_no_update_is_lost(self, driver: Driver) -> None:
        """Tasks that read, change and commit, again after each conflict, lose no update."""
        await self._count(driver, [driver] * 4)

    async def test_no_update_is_lost_between_drivers(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """Drivers that share a store lose no update of each other."""
        async with shared_store.driver() as second, shared_store.driver() as third:
            await self._count(driver, [driver, second, third])

    async def _count(self, driver: Driver, drivers: list[Driver]) -> None:
        await create(driver, "counter")

        async def count(driver: Driver) -> None:
            for _ in range(20):
                while not await _increment(driver):
                    await anyio.lowlevel.checkpoint()

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for each in drivers:
                    tasks.start_soon(count, each)
        counter = await driver.get("counter")
        assert counter is not None
        assert counter.annotations["count"] == str(20 * len(drivers))


async def _increment(driver: Driver) -> bool:
    counter = await driver.get("counter")
    assert counter is not None
    await anyio.lowlevel.checkpoint()  # here others get between
    count = int(counter.annotations.get("count", "0")) + 1
    try:
        await put(driver, Transit(counter.with_annotations(count=str(count)), "work"))
    except RevMismatchError:
        return False
    return True


async def conflicts(driver: Driver, *commands: Command[State]) -> dict[str, tuple[int, int]]:
    """The conflicts of a commit of these commands, which must be refused."""
    with pytest.raises(RevMismatchError) as refused:
        await driver.commit(plan(*commands))
    return refused.value.conflicts
