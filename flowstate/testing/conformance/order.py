"""Law 1, order: one log, and what was read of it never changes."""

from __future__ import annotations

from itertools import pairwise

import anyio
import anyio.lowlevel

from ...driver import Driver
from ...query import Query
from ...state import State
from ..store import Store
from .base import Crowd, CrowdLaws, create, move, read_all, revs


class OrderLaws(CrowdLaws):
    async def test_revisions_rise_from_commit_to_commit(self, driver: Driver) -> None:
        """Each commit's revisions are above those of every earlier commit."""
        (state,) = await create(driver, "a")
        written = [state.rev]
        for n in range(5):
            (other,) = await create(driver, f"b{n}")
            state = await move(driver, state)
            written += [other.rev, state.rev]
        assert written == sorted(set(written))
        assert written[0] > 0

    async def test_states_of_one_commit_have_consecutive_revisions(self, driver: Driver) -> None:
        """The states of a commit get consecutive revisions, in the order of its commands."""
        await create(driver, "before")
        states = await create(driver, "c", "a", "b")
        first = states[0].rev
        assert [(state.id, state.rev) for state in states] == [
            ("c", first),
            ("a", first + 1),
            ("b", first + 2),
        ]

    async def test_states_of_one_commit_have_one_time(self, driver: Driver) -> None:
        """A commit happens at one instant."""
        states = await create(driver, "a", "b", "c")
        assert {state.committed_at for state in states} == {states[0].committed_at}
        assert states[0].committed_at > 0

    async def test_concurrent_commits_never_share_a_revision(
        self, store: Store, crowd: Crowd
    ) -> None:
        """Whoever writes at the same time, no two versions have the same revision, and each
        commit keeps consecutive ones: as acknowledged, and as stored."""
        with anyio.fail_after(self.patience_s):
            await crowd.work()
        acknowledged = {
            ack.first_rev + n: ack.commit_id for ack in crowd.acks for n in range(crowd.size)
        }
        stored = [(version.rev, version.commit_id) for version in store.raw_versions()]
        assert len(acknowledged) == crowd.writers * crowd.commits * crowd.size
        assert stored == sorted(acknowledged.items())

    async def test_time_never_runs_back_along_the_log(self, driver: Driver, crowd: Crowd) -> None:
        """A higher revision was never committed at an earlier time."""
        with anyio.fail_after(self.patience_s):
            await crowd.work()
        log = await read_all(driver)
        times = [state.committed_at for state in log]
        assert len(times) == crowd.writers * crowd.commits * crowd.size
        assert times == sorted(times)

    async def test_nothing_appears_below_what_was_read(self, driver: Driver, crowd: Crowd) -> None:
        """Once a revision can be read, no lower one appears later: what a reader gathered while
        others wrote is what the log holds in the end."""
        gathered: list[State] = []
        after = 0
        with anyio.fail_after(self.patience_s):
            async with crowd.working():
                while not crowd.is_done or after < await driver.head():
                    page = await driver.read(Query(), after, 100)
                    gathered.extend(page.versions)
                    after = page.upto
                    await anyio.lowlevel.checkpoint()
        assert all(earlier < later for earlier, later in pairwise(revs(gathered)))
        assert revs(gathered) == revs(await read_all(driver))
        assert len(gathered) == crowd.writers * crowd.commits * crowd.size

    async def test_the_head_never_falls_and_is_readable(self, driver: Driver, crowd: Crowd) -> None:
        """The head only rises, and whatever it names can be read, whichever way it is asked for:
        what one look has shown, every later one shows."""
        read = shown = 0
        with anyio.fail_after(self.patience_s):
            async with crowd.working():
                while not crowd.is_done:
                    head = await driver.head()
                    assert head >= shown
                    if head > read:
                        read, shown = head, await _look_at(driver, head)
                    await anyio.lowlevel.checkpoint()
        assert await driver.head() == max(revs(await read_all(driver)))


async def _look_at(driver: Driver, head: int) -> int:
    """Ask for what a head names in every way, each time for no less than was shown before; gives
    the newest revision that was shown."""
    page = await driver.read(Query(), head - 1, 1)
    assert revs(page.versions) == [head]
    (state,) = page.versions
    assert await driver.get(state.id, head) == state
    current = await driver.get(state.id)
    assert current is not None
    assert current.rev >= head
    found = await driver.find(Query(id=state.id))
    assert found is not None
    assert found.rev >= current.rev
    rest = await driver.read(Query(), found.rev - 1, 100)
    assert revs(rest.versions)[:1] == [found.rev]
    assert rest.upto >= found.rev
    return rest.upto
