"""Election: one leads, terms only grow, and whoever cannot be sure that it leads does not act."""

from __future__ import annotations

import random

import pytest

from flowstate import Commit, Delay, End, Engine, Plan, State, Status
from flowstate.recovery import ELECTION, LEADER_ID, Event, Role
from flowstate.recovery.elector import MARGIN, Elector
from flowstate.recovery.pace import MAX_BACKOFF_MS
from flowstate.testing.cluster import TERM_S
from flowstate.testing.wrapper import WrapperDriver

from .conftest import Cluster

NEXT = {
    (Role.STANDBY, Event.WON): Role.LEADER,
    (Role.STANDBY, Event.LOST): Role.STANDBY,
    (Role.STANDBY, Event.RESIGNED): Role.STOPPED,
    (Role.LEADER, Event.RENEWED): Role.LEADER,
    (Role.LEADER, Event.DEPOSED): Role.STANDBY,
    (Role.LEADER, Event.TRUST_ENDED): Role.STANDBY,
    (Role.LEADER, Event.RESIGNED): Role.STOPPED,
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("event", Event)
def test_the_table_of_election(role: Role, event: Event) -> None:
    """Every role and every event: what follows, or that it cannot happen."""
    assert NEXT.get((role, event)) is ELECTION[role].get(event)


@pytest.mark.anyio
class TestElection:
    """On virtual time, with the cluster's processes."""

    async def test_one_of_many_leads(self, cluster: Cluster) -> None:
        """However many stand at the same moment, one commit wins."""
        processes = [cluster.begin(name) for name in "abcdefgh"]
        await cluster.sleep(3 * TERM_S)
        roles = [process.recoverer.stats().role for process in processes]
        assert (1, 7) == (roles.count(Role.LEADER), roles.count(Role.STANDBY))
        assert 1 == sum("won" in line for line in cluster.world.transcript.lines)

    async def test_a_term_lasts_as_long_as_its_leader(self, cluster: Cluster) -> None:
        """A leader that lives is never replaced, and its renewals make no revisions."""
        process = cluster.begin("a")
        await cluster.heard("a: won")
        cluster.begin("b")
        head = await cluster.engine.timers.head()
        await cluster.sleep(1000 * TERM_S)
        assert head == await cluster.engine.timers.head()
        assert (Role.LEADER, head) == (
            process.recoverer.stats().role,
            process.recoverer.stats().term,
        )

    async def test_terms_only_grow(self, cluster: Cluster) -> None:
        """Leaders that die, leave, freeze and come back: each term is a later revision."""
        chance = random.Random(5)
        for n in range(12):
            process = cluster.begin(f"p{n}")
            await cluster.heard("won", n + 1)
            match chance.choice(["kill", "leave"]):
                case "kill":
                    process.kill()
                case _:
                    process.told_to_leave.set()
        won = [line for line in cluster.world.transcript.lines if "won" in line]
        terms = [int(line.rsplit(" ", 1)[1].rstrip(")")) for line in won]
        assert 12 == len(terms)
        assert sorted(set(terms)) == terms

    async def test_who_cannot_renew_stops_before_its_lease_ends(self, cluster: Cluster) -> None:
        """It trusts itself for the lease less a margin, from the start of its last renewal."""
        process = cluster.begin("a")
        await cluster.heard("a: renewed")
        renewed = cluster.now
        process.cut_until = cluster.now + 60_000
        await cluster.heard("a: trust ended")
        assert cluster.now == renewed + int(TERM_S * 1000 * (1 - MARGIN))
        assert Role.STANDBY is process.recoverer.stats().role

    async def test_nobody_acts_while_two_might(self, cluster: Cluster) -> None:
        """What one that was cut off would have fired, its successor fires, once."""
        cut = cluster.begin("a")
        await cluster.heard("a: won")
        cluster.begin("b")
        await cluster.sleep(1)
        cut.cut_until = cluster.now + 60_000
        await cluster.engine.do(Commit(Delay(State("s"), "work", after=4.5)))
        await cluster.heard("runs s at work")
        lines = cluster.world.transcript.lines
        ended = next(n for n, line in enumerate(lines) if "a: trust ended" in line)
        won = next(n for n, line in enumerate(lines) if "b: won" in line)
        ran = [n for n, line in enumerate(lines) if "runs s" in line]
        assert ended < won < ran[0]
        assert "b: runs" in lines[ran[0]]
        assert 1 == len(ran)

    async def test_a_dead_leader_is_replaced_when_its_lease_runs_out(
        self, cluster: Cluster
    ) -> None:
        """Not before, and at once then."""
        leader = cluster.begin("a")
        await cluster.heard("a: renewed")
        ends = cluster.now + round(TERM_S * 1000)
        cluster.begin("b")
        await cluster.sleep(0.1)
        leader.kill()
        await cluster.heard("b: won")
        assert ends == cluster.now

    async def test_a_leader_that_leaves_is_replaced_at_once(self, cluster: Cluster) -> None:
        """No lease is waited for."""
        leader = cluster.begin("a")
        await cluster.heard("a: renewed")
        cluster.begin("b")
        await cluster.sleep(0.1)
        left = cluster.now
        leader.told_to_leave.set()
        await cluster.heard("b: won")
        assert left == cluster.now

    async def test_the_last_to_leave_leaves_the_term_vacant(self, cluster: Cluster) -> None:
        """A PAUSED state is due for nobody; the next to come leads at once."""
        leader = cluster.begin("a")
        await cluster.heard("a: won")
        leader.told_to_leave.set()
        await cluster.heard("a: resigned")
        election = await cluster.engine.get(LEADER_ID)
        assert (Status.PAUSED, "a has left") == (
            election.transition.status,
            election.transition.reason,
        )
        assert "leader" not in election.labels
        came = cluster.now
        cluster.begin("b")
        await cluster.heard("b: won")
        assert came == cluster.now

    async def test_a_frozen_leader_does_no_harm(self, cluster: Cluster) -> None:
        """It wakes past its term, believes nothing, and what it was about to commit loses."""
        frozen = cluster.begin("a")
        await cluster.heard("a: won")
        cluster.begin("b")
        await cluster.engine.do(Commit(Delay(State("s"), "work", after=2)))
        await cluster.sleep(1)
        frozen.frozen_until = cluster.now + 20_000
        await cluster.heard("b: runs s")
        await cluster.heard("a: trust ended")
        await cluster.sleep(1)
        versions = [v async for v in cluster.engine.states() if v.id == "s"]
        expected = [Status.DELAYED, Status.RUNNING, Status.ENDED]
        assert expected == [v.transition.status for v in versions]

    async def test_trust_counts_from_before_the_commit(self, cluster: Cluster) -> None:
        """A term whose winner hears of it too late is over: it does not act on it."""

        class Slow(WrapperDriver):
            async def commit(self, plan: Plan) -> tuple[State, ...]:
                won = await self.driver.commit(plan)
                await cluster.sleep(TERM_S)
                return won

        driver, clock = Slow(cluster.world.store), cluster.world.clock
        async with Engine(driver, clock=clock) as engine:
            elector = Elector(engine, "a", round(TERM_S * 1000))
            await elector.win()
            assert (Role.LEADER, False) == (elector.role, elector.leads)
            await elector.keep()  # returns at once
            assert Role.STANDBY is elector.role

    async def test_everyone_knows_who_leads(self, cluster: Cluster) -> None:
        """Also who stands by, and after a change."""
        first = cluster.begin("a")
        await cluster.heard("won")
        second = cluster.begin("b")
        await cluster.sleep(1)
        assert ["a", "a"] == [one.recoverer.stats().leader for one in (first, second)]
        first.told_to_leave.set()
        await cluster.heard("b: won")
        assert ["", "b"] == [one.recoverer.stats().leader for one in (first, second)]

    async def test_an_election_that_was_ended_is_off_for_good(self, cluster: Cluster) -> None:
        """Version 0.1 let anybody end it. Nobody leads it again; that is told now and then, and
        not spun on."""
        process = cluster.begin("a")
        await cluster.heard("won")
        election = await cluster.engine.get(LEADER_ID)
        await cluster.engine.timers.commit(Commit(End(election)))
        await cluster.sleep(600)
        stats = process.recoverer.stats()
        assert (Role.STANDBY, 0) == (stats.role, stats.term)
        assert 60 <= stats.errors <= 70

    async def test_an_outage_is_waited_out_and_never_spun_through(self, cluster: Cluster) -> None:
        """Its calls back off, up to a bound, and it leads again when the store is back."""
        process = cluster.begin("a")
        await cluster.heard("a: renewed")
        outage_s = 3600
        cluster.world.outage_until = cluster.now + outage_s * 1000
        calls = cluster.world.calls
        before = calls.total()
        await cluster.sleep(outage_s)
        tried = calls.total() - before
        assert 0 < tried < 2 * outage_s * 1000 / MAX_BACKOFF_MS + 60
        await cluster.heard("a: won", 2)
        assert cluster.now - cluster.world.outage_until <= 2 * MAX_BACKOFF_MS, Elector
        assert process.recoverer.stats().errors
