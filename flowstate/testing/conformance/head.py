"""The head: the newest revision, and waking up when there is a newer one."""

from __future__ import annotations

import anyio
import anyio.abc
import anyio.lowlevel

from ...driver import Driver
from ..store import Store
from .base import Laws, committer, create, move


class HeadLaws(Laws):
    async def test_the_head_of_an_empty_store_is_zero(self, driver: Driver) -> None:
        """The head of a store in which nothing was committed is 0."""
        assert await driver.head() == 0

    async def test_the_head_is_the_newest_revision(self, driver: Driver) -> None:
        """The head after a commit is the revision of its last state."""
        states = await create(driver, "a", "b", "c")
        assert await driver.head() == states[-1].rev
        new = await move(driver, states[0])
        assert await driver.head() == new.rev

    async def test_wait_returns_at_once_when_there_is_a_newer_revision(
        self, driver: Driver
    ) -> None:
        """A waiter that is behind the head does not wait."""
        (a,) = await create(driver, "a")
        with anyio.fail_after(self.patience_s):
            await driver.wait(0)
            await driver.wait(a.rev - 1)

    async def test_wait_gives_no_more_than_the_head(self, driver: Driver) -> None:
        """What a waiter is told of is there, and it can wait for what comes after that."""
        (a,) = await create(driver, "a")
        with anyio.fail_after(self.patience_s):
            heard = await driver.wait(0)
            assert heard == a.rev
            await create(driver, "b")
            assert heard <= await driver.wait(heard) <= await driver.head()

    async def test_a_commit_wakes_who_waits(self, driver: Driver) -> None:
        """A waiter returns once there is a newer revision."""
        await create(driver, "a")
        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                await tasks.start(_wait_for_newer, driver)
                await anyio.wait_all_tasks_blocked()
                await create(driver, "b")

    async def test_no_wake_up_is_lost(self, driver: Driver) -> None:
        """However a commit and the beginning of a wait fall together, the waiter returns."""
        (a,) = await create(driver, "a")
        with anyio.fail_after(self.patience_s):
            for turns in range(30):
                rev = a.rev
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_wait, driver, rev)
                    for _ in range(turns % 6):
                        await anyio.lowlevel.checkpoint()
                    a = await move(driver, a)

    async def test_a_commit_wakes_all_who_wait(self, driver: Driver) -> None:
        """A commit wakes every waiter, however many there are."""
        await create(driver, "a")
        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    await tasks.start(_wait_for_newer, driver)
                await create(driver, "b")

    async def test_a_waiter_that_leaves_takes_no_other_along(self, driver: Driver) -> None:
        """When one waiter is cancelled, the others go on waiting, and are woken by a commit."""
        (a,) = await create(driver, "a")
        woken: list[int] = []

        async def wait_and_tell(rev: int) -> None:
            await _wait(driver, rev)
            woken.append(rev)

        with anyio.fail_after(self.patience_s):
            async with anyio.create_task_group() as staying:
                staying.start_soon(wait_and_tell, a.rev)
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(_wait, driver, a.rev)
                    await anyio.wait_all_tasks_blocked()
                    leaving.cancel_scope.cancel()
                assert woken == []
                await create(driver, "b")
        assert woken == [a.rev]

    async def test_a_commit_wakes_who_waits_at_another_driver(
        self, shared_store: Store, driver: Driver
    ) -> None:
        """A waiter hears of commits that another driver makes."""
        await create(driver, "a")
        with anyio.fail_after(self.patience_s):
            async with shared_store.driver() as other, anyio.create_task_group() as tasks:
                await tasks.start(_wait_for_newer, other)
                await create(driver, "b")

    async def test_a_commit_wakes_who_waits_in_another_process(
        self, process_store: Store, driver: Driver
    ) -> None:
        """A waiter hears of every commit that another process makes, however it and a look at the
        store fall together."""
        commits = 200
        command = committer(process_store, "w", commits, 1, in_step=True)
        with anyio.fail_after(self.patience_s):
            async with (
                await anyio.open_process(command, stderr=None) as process,
                anyio.create_task_group() as alive,
            ):
                alive.start_soon(_succeed, process)
                assert process.stdin is not None
                for turn in range(commits):
                    async with anyio.create_task_group() as tasks:
                        await tasks.start(_wait_for_newer, driver)
                        for _ in range(turn):  # each commit a little later after a look
                            await anyio.lowlevel.checkpoint()
                        await process.stdin.send(b"\n")
        assert await driver.head() == commits


async def _wait(driver: Driver, after: int) -> None:
    """Wait until there is a newer revision; ``wait`` is a hint, so look again."""
    while await driver.head() <= after:
        await driver.wait(after)


async def _wait_for_newer(
    driver: Driver, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    head = await driver.head()
    task_status.started(head)
    await _wait(driver, head)


async def _succeed(process: anyio.abc.Process) -> None:
    assert await process.wait() == 0, "the process that commits has failed"
