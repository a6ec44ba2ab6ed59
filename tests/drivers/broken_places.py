"""Drivers that each break one law of claims, leases, places or due times; see ``broken.py``."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, TypeAlias

import anyio
import anyio.lowlevel
from attrs import define, field
from msgspec.structs import replace

from flowstate import (
    Compaction,
    Driver,
    DuePage,
    Plan,
    Retention,
    State,
    Status,
)
from flowstate.drivers.memory import MemoryDriver
from flowstate.drivers.sqlite import SQLiteDriver
from flowstate.drivers.sqlite.connection import File
from flowstate.drivers.sqlite.places import Places
from flowstate.drivers.sqlite.writer import Writer
from flowstate.leases import Claimed, Held, Holding, Place, Renewal, session_of
from flowstate.query import Unreadable
from flowstate.testing.model import Model

from .model_driver import ModelDriver, ModelStore
from .test_sqlite import SQLiteStore

States: TypeAlias = tuple[State, ...]
Given: TypeAlias = tuple[Claimed, ...]
Answer: TypeAlias = tuple[Claimed | Unreadable, ...]
Room: TypeAlias = Mapping[str, int]
Revs: TypeAlias = Collection[tuple[str, int]]


# ---------------------------------------------------------------- claims


class LeavesOutPolicies(ModelDriver):
    """Gives what is claimed without the policy beside it."""

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        given = await super().claim(room, limit, owner, claim, now)
        return tuple(Claimed(each.state, None) for each in given)


class ClaimsTooLate(ModelDriver):
    """Lets others get between finding what is ready and taking it."""

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        before = dict(self.model.places)
        given = await super().claim(room, limit, owner, claim, now)
        after, self.model.places = self.model.places, before
        await anyio.lowlevel.checkpoint()
        self.model.places |= {each.state.rev: after[each.state.rev] for each in given}
        return given


class TakesTooLate(ModelDriver):
    """The same, of given versions."""

    async def take(self, versions: Revs, owner: str, claim: str, now: int) -> Given:
        before = dict(self.model.places)
        given = await super().take(versions, owner, claim, now)
        after, self.model.places = self.model.places, before
        await anyio.lowlevel.checkpoint()
        self.model.places |= {each.state.rev: after[each.state.rev] for each in given}
        return given


class ClaimsByRevision(Model):
    """Lets nobody wait for longer than those who were committed later."""

    def ready(self) -> list[tuple[int, State]]:
        return sorted(super().ready(), key=lambda pair: pair[1].rev)


class ServesTheLongestWaiting(Model):
    """Gives what has been ready for longest, whatever its flow."""

    def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        rest = dict(room)
        first: list[tuple[str, int]] = []
        for _, state in self.ready():
            if rest.get(state.transition.to, 0) > 0:
                rest[state.transition.to] -= 1
                first.append((state.id, state.rev))
        return self.take(first[:limit], owner, claim, now)


class LetsNobodyOvertake(Model):
    """Puts everything at the end of its line, whatever instant it comes with."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        newest = max((since for since, _ in self.ready()), default=0)
        versions = super().commit(plan, first_rev, committed_at)
        for state in versions:
            place = self.places[state.rev]
            if place is not None and place.since is not None:
                self.places[state.rev] = Place(max(place.since, newest))
        return versions


class AddsUpRoom(Model):
    """Gives to a flow what another one leaves."""

    def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        limit = min(limit, sum(room.values()))
        return super().claim(dict.fromkeys(room, limit), limit, owner, claim, now)


class KnowsNoLimit(Model):
    """Gives as much as there is room for."""

    def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        return super().claim(room, 1_000, owner, claim, now) if limit else ()


class LeasesAlike(Model):
    """Has one end for the leases of all that is claimed at once."""

    def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        given = super().claim(room, limit, owner, claim, now)
        for each in given:
            self.places[each.state.rev] = self.places[given[0].state.rev]
        return given


class ClaimsMore(ModelDriver):
    """Takes a claim that is made again for a new one."""

    turn: int = 0

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        self.turn += 1
        return await super().claim(room, limit, owner, f"{claim}/{self.turn}", now)


class TakesMore(ModelDriver):
    """The same, of given versions."""

    turn: int = 0

    async def take(self, versions: Revs, owner: str, claim: str, now: int) -> Given:
        self.turn += 1
        return await super().take(versions, owner, f"{claim}/{self.turn}", now)


@define(eq=False)
class RemembersAnswers(ModelDriver):
    """Gives the answer to a claim once more, though some of it is no longer its own."""

    answers: dict[str, Given] = field(factory=dict[str, Given])

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        if claim not in self.answers:
            self.answers[claim] = await super().claim(room, limit, owner, claim, now)
        return self.answers[claim]


class TakesWhatIsFirst(ModelDriver):
    """Gives as many as were asked for, but from the front of the line."""

    async def take(self, versions: Revs, owner: str, claim: str, now: int) -> Given:
        first = [(state.id, state.rev) for _, state in self.model.ready()]
        return await super().take(first[: len(versions)], owner, claim, now)


class TakesFromOthers(Model):
    """Takes what is asked for, also from those who have it."""

    def take(self, versions: Revs, owner: str, claim: str, now: int) -> Given:
        for holding in self.holdings():
            if (holding.id, holding.rev) in versions:
                self.places[holding.rev] = Place(now)
        return super().take(versions, owner, claim, now)


class GivesWhatIsDue(ModelDriver):
    """Looks at no alarm."""

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        return await super().claim(room, limit, owner, claim, min(now, 0))


class LinesUpWhatRests(Model):
    """Has what is paused in line as well."""

    def ready(self) -> list[tuple[int, State]]:
        paused = [s for s in self.current.values() if s.transition.status is Status.PAUSED]
        return [*super().ready(), *((0, state) for state in paused)]


class LinesUpWhatNobodyClaimed(Model):
    """Takes what a commit handed to its owner for ready."""

    def ready(self) -> list[tuple[int, State]]:
        current = {state.rev: state for state in self.current.values()}
        handed = [each.rev for each in self.holdings() if not each.place.claim]
        return [*super().ready(), *((0, current[rev]) for rev in handed)]


@define(eq=False)
class LocksBeforeItLooks(ModelDriver):
    """Waits for whoever writes before it looks whether there is anything to claim."""

    lock: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(1))

    async def commit(self, plan: Plan) -> States:
        async with self.lock:
            return await super().commit(plan)

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        async with self.lock:
            return await super().claim(room, limit, owner, claim, now)


@define
class LockedStore(ModelStore):
    """The model, with that driver."""

    made: LocksBeforeItLooks = field(factory=LocksBeforeItLooks)

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.made.lock.acquire_nowait()
        yield
        self.made.lock.release()


class ClaimsByCommit(Model):
    """Makes a new version of what is claimed."""

    def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        given = super().claim(room, limit, owner, claim, now)
        for each in given:
            rev = self.head + 1
            self.places[rev] = self.places[each.state.rev]
            self.writes[rev] = self.writes[each.state.rev]
            self.log.append(replace(each.state, rev=rev))
        return given


class DefendsWhatIsTaken(Model):
    """Refuses commits on what is claimed."""

    def conflicts(self, plan: Plan) -> dict[str, tuple[int, int]]:
        claimed = {each.id: (each.rev, each.rev) for each in self.holdings() if each.place.claim}
        written = [write.state.id for write in plan.writes]
        taken = {id: revs for id, revs in claimed.items() if id in written}
        return taken | super().conflicts(plan)


class QueuesByTheFirstFlow(Model):
    """Leaves a state in the line where it came in."""

    def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        first = {state.id: state.transition.to for state in reversed(self.log)}
        lined = [state for _, state in self.ready() if first[state.id] in room]
        return self.take([(s.id, s.rev) for s in lined][:limit], owner, claim, now)


# ---------------------------------------------------------------- leases


class KeepsTheFirstEnd(Model):
    """Says that leases were renewed, and leaves them."""

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        before = dict(self.places)
        renewal = super().renew(held, owner, now)
        self.places = before
        return renewal


class KnowsOnlyClaims(Model):
    """Overlooks what a commit handed to its owner."""

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        return super().renew([each for each in held if each[2]], owner, now)


class RefusesWhoIsLate(Model):
    """Takes a lease that ran out for one that is lost."""

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        ended = {
            each.held
            for each in self.holdings(owner)
            if each.place.until is not None and each.place.until < now
        }
        renewal = super().renew([each for each in held if each not in ended], owner, now)
        lost = {each[0] for each in held if each in ended}
        return replace(renewal, lost=renewal.lost | lost)


class RenewsInSilence(ModelDriver):
    """Does not say which versions moved on."""

    async def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        renewal = await super().renew(held, owner, now)
        return replace(renewal, moved=frozenset())


class RenewsWhatOthersHave(Model):
    """Renews whatever is at that revision."""

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        renewal = super().renew(held, owner, now)
        others = {(each.id, each.rev): each for each in self.holdings()}
        for id, rev, _ in held:
            if (id, rev) in others:
                place = others[id, rev].place
                super().renew([(id, rev, place.claim)], place.owner, now)
        return renewal


class ReleasesAllForNone(Model):
    """Takes no lease for every lease."""

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        super().release(held or [each.held for each in self.holdings(owner)], owner, now)


@define
class LeavesOldEnds(Model):
    """Has every end of a lease that there ever was among the due times."""

    first: dict[int, int | None] = field(factory=dict[int, int | None])

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        for holding in self.holdings(owner):
            self.first.setdefault(holding.rev, holding.place.until)
        return super().renew(held, owner, now)

    def due_time(self, state: State) -> int | None:
        return self.first.get(state.rev) or super().due_time(state)


class ReleasesToTheFront(ModelDriver):
    """Puts what is released where it was before it was taken."""

    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        await super().release(held, owner, min(now, 0))


class ReleasesByOwner(Model):
    """Releases what an owner has, whatever it was claimed by."""

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        for id, rev, _ in held:
            mine = [each.held for each in self.holdings(owner) if each.held[:2] == (id, rev)]
            super().release(mine, owner, now)


class ReleasesWhatMovedOn(Model):
    """Releases by id and claim alone."""

    def release(self, held: Collection[Held], owner: str, now: int) -> None:
        wanted = {(id, claim) for id, _, claim in held}
        mine = [each for each in self.holdings(owner) if (each.id, each.place.claim) in wanted]
        super().release([each.held for each in mine], owner, now)


class ForgetsAlarms(Model):
    """Overwrites the alarm of what is taken with the end of its lease."""

    def due_time(self, state: State) -> int | None:
        place = self.places[state.rev]
        if place is not None and place.until is not None:
            return place.until
        return super().due_time(state)


class ReleasesInSilence(ModelDriver):
    """Wakes nobody when something is released."""

    async def release(self, held: Collection[Held], owner: str, now: int) -> None:
        self.model.release(held, owner, now)


class NamesWhoClaimed(ModelDriver):
    """Overlooks as owners those whom a commit has handed something."""

    async def owners(self) -> Mapping[str, bool | None]:
        return dict.fromkeys(each.place.owner for each in self.model.holdings() if each.place.claim)


class EndsAndReleases(Model):
    """Gives what the dead had to whoever claims it, as if no attempt had begun."""

    def end_leases(self, owner: str, now: int) -> None:
        for holding in self.holdings(owner):
            if holding.place.until is not None:
                self.places[holding.rev] = Place(now)


class EndsWhatHasNoEnd(Model):
    """Ends also what nobody is to retry."""

    def end_leases(self, owner: str, now: int) -> None:
        for holding in self.holdings(owner):
            self.places[holding.rev] = replace(holding.place, until=now)


@define
class EndsForGood(Model):
    """Takes what was ended for lost."""

    ended: set[Held] = field(factory=set[Held])

    def end_leases(self, owner: str, now: int) -> None:
        super().end_leases(owner, now)
        self.ended |= {each.held for each in self.holdings(owner)}

    def renew(self, held: Collection[Held], owner: str, now: int) -> Renewal:
        renewal = super().renew([each for each in held if each not in self.ended], owner, now)
        lost = {each[0] for each in held if each in self.ended}
        return replace(renewal, lost=renewal.lost | lost)


class EndsInSilence(ModelDriver):
    """Wakes nobody when leases are ended."""

    async def end_leases(self, owner: str, now: int) -> None:
        self.model.end_leases(owner, now)


# ---------------------------------------------------------------- presence


class OneOfSeveral(ModelDriver):
    """One of several drivers over the same model. What each breaks shows only when there are
    others, or another one later."""


@define(eq=False)
class Present(OneOfSeveral):
    """Has a session while it is open."""

    there: ClassVar[set[str]] = set()
    name: str = ""

    @property
    def session(self) -> str:
        return self.name

    async def open(self) -> None:
        self.name = secrets.token_hex(8)
        self.there.add(self.name)

    async def close(self) -> None:
        self.there.discard(self.name)

    async def owners(self) -> Mapping[str, bool | None]:
        return {owner: self._knows(session_of(owner)) for owner in await super().owners()}

    def _knows(self, session: str) -> bool | None:
        return session in self.there if session else None


class StaysForEver(Present):
    """Is seen after it was closed."""

    async def close(self) -> None:
        """Say nothing."""


class LeavesForAll(Present):
    """Ends the sessions of its whole process."""

    async def close(self) -> None:
        self.there.clear()


class SeesWhoHasNoSession(Present):
    """Takes whom it cannot look for as dead."""

    def _knows(self, session: str) -> bool | None:
        return session in self.there


class SeesTheDead(SQLiteDriver):
    """Takes whoever has a session for alive."""

    async def owners(self) -> Mapping[str, bool | None]:
        return {owner: bool(session_of(owner)) or None for owner in await super().owners()}


# ---------------------------------------------------------------- places


class LinesUpEverything(Model):
    """Commits what is RUNNING as ready, whoever is to have it."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        versions = super().commit(plan, first_rev, committed_at)
        for state in versions:
            place = self.places[state.rev]
            if place is not None and place.since is None:
                self.places[state.rev] = Place(0)
        return versions


class HasOnePlaceForAll(Model):
    """Puts all states of a commit where the first of them stands."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        versions = super().commit(plan, first_rev, committed_at)
        for state in versions:
            self.places[state.rev] = plan.writes[0].place
        return versions


@define
class LeavesPlaces(Model):
    """Leaves what comes to rest where it stood."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        before = self.current
        versions = super().commit(plan, first_rev, committed_at)
        for state in versions:
            if self.places[state.rev] is None and state.id in before:
                self.places[state.rev] = self.places[before[state.id].rev]
        return versions


class LeavesItToWhoClaimed(Model):
    """Leaves what was claimed with its claim when it moves on as taken."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        claimed = {each.id: each.place for each in self.holdings() if each.place.claim}
        versions = super().commit(plan, first_rev, committed_at)
        for state in versions:
            place = self.places[state.rev]
            if place is not None and place.since is None and state.id in claimed:
                self.places[state.rev] = claimed[state.id]
        return versions


class CarriesPlacesOn(Model):
    """Leaves with its owner whatever is made of what is taken."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        taken = {each.id: each.place for each in self.holdings()}
        versions = super().commit(plan, first_rev, committed_at)
        for state in versions:
            if state.transition.status is Status.RUNNING and state.id in taken:
                self.places[state.rev] = taken[state.id]
        return versions


class NamesAllHoldings(ModelDriver):
    """Gives what anybody has for what one has."""

    async def holdings(self, owner: str | None = None) -> tuple[Holding, ...]:
        return await super().holdings(owner and None)


class NamesTheLastInLine(Model):
    """Says since when the last is ready."""

    def line(self) -> dict[str, int]:
        return {state.transition.to: since for since, state in self.ready()}


class HasOneTimeForEach(Model):
    """Has no alarm for what is in line."""

    def due_time(self, state: State) -> int | None:
        place = self.places[state.rev]
        is_ready = place is not None and place.since is not None
        return None if is_ready else super().due_time(state)


class MovesPlacesFirst(Model):
    """Gives back what is taken before it knows whether the commit holds."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        written = {write.state.id for write in plan.writes}
        for holding in self.holdings():
            if holding.id in written:
                self.places[holding.rev] = Place(0)
        return super().commit(plan, first_rev, committed_at)


class LinesUpAgain(Model):
    """Puts in line once more what a plan wrote that is committed again."""

    def commit(self, plan: Plan, first_rev: int, committed_at: int) -> States:
        versions = super().commit(plan, first_rev, committed_at)
        for state, write in zip(versions, plan.writes, strict=True):
            self.places[state.rev] = write.place
        return versions


class ReleasesWhenItCompacts(ModelDriver):
    """Takes who has something for gone when history goes."""

    async def compact(
        self, retention: Retention, after: int, limit: int, *, dry_run: bool = False
    ) -> Compaction:
        for holding in self.model.holdings():
            self.model.places[holding.rev] = Place(0)
        return await super().compact(retention, after, limit, dry_run=dry_run)


# ---------------------------------------------------------------- several drivers of one store


@define(eq=False)
class LocksForItself(OneOfSeveral, ClaimsTooLate):
    """Lets nobody get between finding what is ready and taking it who uses the same driver."""

    lock: anyio.Lock = field(factory=anyio.Lock)

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        async with self.lock:
            return await super().claim(room, limit, owner, claim, now)


class WakesItsOwn(OneOfSeveral):
    """Wakes those who wait at another driver of commits alone."""

    async def wait(self, after: int) -> int:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look, after, tasks.cancel_scope)
            await super().wait(after)
            tasks.cancel_scope.cancel()
        return max(after, self.model.head)

    async def _look(self, after: int, scope: anyio.CancelScope) -> None:
        while self.model.head <= after:  # noqa: ASYNC110  (nobody tells it)
            await anyio.sleep(0.001)
        scope.cancel()


class _TakesWhatWasReady(Writer):
    def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Answer:
        places = Places(self.connection, self._claimed)
        ready = places._first(room, limit, now)  # noqa: SLF001  (half a claim)
        return self._transact(
            lambda: (
                places._held(owner, claim)  # noqa: SLF001
                or places._take(ready, owner, claim, now)  # noqa: SLF001
            )
        )


class ClaimsInTwoSteps(SQLiteDriver):
    """Looks for what is ready before the transaction in which it takes that. It is a store for
    several processes, which find it by its URL."""

    def _open_writer(self) -> Writer:
        writer = super()._open_writer()
        return _TakesWhatWasReady(writer.connection, writer.file, writer.clock, writer.identity)


@define
class SeveralProcesses(SQLiteStore):
    """A file that is opened by that driver, here and in other processes."""

    kind: type[SQLiteDriver]

    @property
    def url(self) -> str:
        scheme = "twosteps" if self.kind is ClaimsInTwoSteps else "sqlite"
        return f"{scheme}:///{self.path}"

    def driver(self) -> Driver:
        return self.kind(File(str(self.path)))


class EndsForItsOwn(WakesItsOwn):
    """The same, of leases that are ended."""


class ForgetsWhoHasIt(OneOfSeveral):
    """Lines up everything when it is closed."""

    async def close(self) -> None:
        for holding in self.model.holdings():
            self.model.places[holding.rev] = Place(0)


@define
class SeveralDrivers(ModelStore):
    """Each driver is another one on the model."""

    shared = True
    persistent = True

    def driver(self) -> ModelDriver:
        return type(self.made)(self.made.model)


# ---------------------------------------------------------------- due times


class DueInAnyOrder(ModelDriver):
    """Gives what is due, the latest first."""

    async def due(self, until: int, limit: int) -> DuePage:
        page = await super().due(until, limit)
        return DuePage(page.due[::-1], page.next)


class DueOneLater(ModelDriver):
    """Gives what is due a millisecond late."""

    async def due(self, until: int, limit: int) -> DuePage:
        return await super().due(until - 1, limit)


class DueWithoutLimit(ModelDriver):
    """Gives all that is due."""

    async def due(self, until: int, limit: int) -> DuePage:
        return await super().due(until, 1_000 + limit)


class DueForOneFlow(ModelDriver):
    """Gives what is due for the flow of the first."""

    async def due(self, until: int, limit: int) -> DuePage:
        page = await super().due(until, limit)
        mine = [d for d in page.due if d.state.transition.to == page.due[0].state.transition.to]
        return DuePage(tuple(mine), page.next)


class OverlooksLeases(Model):
    """Knows alarms only."""

    def due_time(self, state: State) -> int | None:
        alarm = state.transition.alarm
        return None if alarm is None else alarm.at


class DueAtTheAlarm(Model):
    """Has the alarm, if there is one, and no end of a lease."""

    def due_time(self, state: State) -> int | None:
        alarm = state.transition.alarm
        return super().due_time(state) if alarm is None else alarm.at


class DueWithoutPolicies(ModelDriver):
    """Gives what is due without the policy beside it."""

    async def due(self, until: int, limit: int) -> DuePage:
        page = await super().due(until, limit)
        return DuePage(tuple(replace(due, policy=None) for due in page.due), page.next)


class NeverLooksAgain(ModelDriver):
    """Knows of no next due time once nothing is due now."""

    async def due(self, until: int, limit: int) -> DuePage:
        page = await super().due(until, limit)
        return page if page.due else DuePage((), None)


class LooksAgainForWhatIsToCome(ModelDriver):
    """Says when to look again as if the page held all that is due: what the limit left out waits
    until then."""

    async def due(self, until: int, limit: int) -> DuePage:
        page = await super().due(until, limit)
        everything = await super().due(until, 1_000)
        return DuePage(page.due, everything.next)


class DueInThePast(Model):
    """Has due times of versions that were superseded."""

    def due(self, until: int, limit: int) -> DuePage:
        page = super().due(until, limit)
        alarms = [(s.transition.alarm, s) for s in self.log if s not in self.current.values()]
        old = [alarm.at for alarm, _ in alarms if alarm is not None]
        return DuePage(page.due, min([*old, page.next or 2**62])) if old else page


class GivesWhatIsDueOnce(ModelDriver):
    """Hands out what is due, and forgets it."""

    async def due(self, until: int, limit: int) -> DuePage:
        page = await super().due(until, limit)
        for due in page.due:
            current = self.model.current[due.state.id]
            silent = replace(current.transition, alarm=None)
            place = self.model.log.index(current)
            self.model.log[place] = replace(current, transition=silent)
        return page


# ---------------------------------------------------------------- odd values, and cost


class TrimsFlows(ModelDriver):
    """Takes spaces around the name of a flow for nothing."""

    async def line(self) -> Mapping[str, int]:
        return {flow.strip(): since for flow, since in (await super().line()).items()}


class KeepsShortNames(ModelDriver):
    """Keeps the first 500 characters of where a policy goes on."""

    async def due(self, until: int, limit: int) -> DuePage:
        page = await super().due(until, limit)
        due = [
            replace(d, policy=d.policy and replace(d.policy, on_give_up=d.policy.on_give_up[:500]))
            for d in page.due
        ]
        return DuePage(tuple(due), page.next)


class LooksAtAllThatIsTaken(MemoryDriver):
    """Looks for an earlier answer to a claim in all that anybody has. A fast driver but for that:
    the one over the model would take longer for everything."""

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        await self.holdings()
        return await super().claim(room, limit, owner, claim, now)


class AsksForEachFlow(MemoryDriver):
    """Looks for something of each flow that there is room for. Else fast, too."""

    async def claim(self, room: Room, limit: int, owner: str, claim: str, now: int) -> Given:
        for flow in room:
            await super().claim({flow: 1}, 0, owner, f"nothing of {flow}", now)
        return await super().claim(room, limit, owner, claim, now)


CAUGHT_BY: dict[type[ModelDriver | Model | MemoryDriver | SQLiteDriver], str] = {
    LeavesOutPolicies: "test_a_claim_gives_what_is_ready",
    ClaimsTooLate: "test_each_ready_version_goes_to_one_of_many_claimers",
    ClaimsByRevision: "test_the_first_in_line_comes_first",
    ServesTheLongestWaiting: "test_the_first_of_each_flow_comes_before_the_others",
    LetsNobodyOvertake: "test_an_earlier_instant_is_a_priority_within_a_flow",
    AddsUpRoom: "test_no_more_of_a_flow_than_there_is_room_for",
    KnowsNoLimit: "test_no_more_of_a_flow_than_there_is_room_for",
    LeasesAlike: "test_each_is_taken_for_the_length_of_its_own_lease",
    ClaimsMore: "test_a_claim_that_is_made_again_gives_the_same",
    RemembersAnswers: "test_a_claim_that_is_made_again_gives_what_it_still_has",
    TakesWhatIsFirst: "test_take_gives_the_versions_that_it_names",
    TakesFromOthers: "test_take_gives_only_what_is_ready",
    TakesMore: "test_a_take_that_is_made_again_gives_the_same",
    TakesTooLate: "test_one_of_many_who_take_the_same_has_it",
    GivesWhatIsDue: "test_what_is_due_is_not_given",
    LinesUpWhatRests: "test_what_rests_is_not_given",
    LinesUpWhatNobodyClaimed: "test_what_is_committed_as_taken_is_not_given",
    LocksBeforeItLooks: "test_a_claim_of_nothing_waits_for_nobody_who_writes",
    ClaimsByCommit: "test_a_claim_makes_no_revision",
    DefendsWhatIsTaken: "test_a_claim_is_no_conflict",
    QueuesByTheFirstFlow: "test_a_line_of_one_flow_is_no_others",
    KeepsTheFirstEnd: "test_renewing_moves_the_end_of_each_lease",
    KnowsOnlyClaims: "test_what_was_committed_as_taken_is_renewed_and_released",
    RefusesWhoIsLate: "test_a_lease_that_ran_out_can_be_renewed_while_nobody_took_over",
    RenewsInSilence: "test_renewing_tells_what_moved_on_and_what_was_lost",
    RenewsWhatOthersHave: "test_renewing_tells_what_moved_on_and_what_was_lost",
    ReleasesAllForNone: "test_renewing_nothing_is_no_error",
    LeavesOldEnds: "test_a_renewed_lease_is_due_at_its_new_end",
    ReleasesToTheFront: "test_what_is_released_is_ready_again",
    ReleasesByOwner: "test_releasing_leaves_what_is_held_otherwise",
    ReleasesWhatMovedOn: "test_a_late_release_does_not_touch_a_newer_version",
    ForgetsAlarms: "test_an_alarm_outlasts_claims",
    ReleasesInSilence: "test_what_is_released_or_ended_wakes_who_waits",
    NamesWhoClaimed: "test_owners_are_those_who_have_taken_something",
    EndsAndReleases: "test_leases_that_are_ended_are_due_then",
    EndsWhatHasNoEnd: "test_ending_leases_leaves_all_else",
    EndsForGood: "test_a_lease_that_was_ended_can_be_renewed",
    EndsInSilence: "test_what_is_released_or_ended_wakes_who_waits",
    EndsForItsOwn: "test_what_was_ended_wakes_who_waits_at_another_driver",
    StaysForEver: "test_a_session_is_seen_until_its_driver_is_closed",
    LeavesForAll: "test_drivers_of_one_process_are_there_for_themselves",
    SeesWhoHasNoSession: "test_nobody_knows_of_whom_has_no_session_here",
    SeesTheDead: "test_the_session_of_a_process_that_was_killed_is_over",
    LinesUpEverything: "test_a_place_is_what_was_committed",
    HasOnePlaceForAll: "test_states_of_one_commit_may_stand_in_several_places",
    LeavesPlaces: "test_what_rests_has_no_place",
    NamesAllHoldings: "test_holdings_are_what_an_owner_has_taken",
    NamesTheLastInLine: "test_the_line_names_the_flows_that_something_is_ready_for",
    LeavesItToWhoClaimed: "test_what_was_taken_is_held_by_who_commits_it_as_taken",
    CarriesPlacesOn: "test_a_newer_version_stands_where_its_own_commit_puts_it",
    HasOneTimeForEach: "test_what_is_ready_and_has_a_timeout_is_in_line_and_due",
    MovesPlacesFirst: "test_a_refused_commit_leaves_places",
    LinesUpAgain: "test_a_plan_that_is_committed_again_leaves_places",
    ReleasesWhenItCompacts: "test_compaction_leaves_the_places_of_what_stays",
    LocksForItself: "test_two_drivers_never_claim_the_same",
    ClaimsInTwoSteps: "test_processes_never_claim_the_same",
    WakesItsOwn: "test_what_is_released_wakes_who_waits_at_another_driver",
    ForgetsWhoHasIt: "test_places_are_there_after_reopening",
    DueInAnyOrder: "test_soonest_first",
    DueOneLater: "test_at_or_before",
    DueWithoutLimit: "test_no_more_than_the_limit",
    DueForOneFlow: "test_whatever_flow_it_is_for",
    OverlooksLeases: "test_the_end_of_a_lease_is_a_due_time",
    DueAtTheAlarm: "test_the_sooner_of_alarm_and_lease_counts",
    DueWithoutPolicies: "test_the_policy_beside_it_comes_back",
    NeverLooksAgain: "test_the_next_due_time_is_the_soonest_of_all",
    LooksAgainForWhatIsToCome: "test_a_page_says_when_to_look_again",
    DueInThePast: "test_the_next_due_time_moves_with_the_states",
    GivesWhatIsDueOnce: "test_asking_twice_gives_the_same",
    TrimsFlows: "test_whatever_flow_it_is_at_it_is_in_line_for_that",
    KeepsShortNames: "test_whatever_policy_it_goes_by_comes_back",
    LooksAtAllThatIsTaken: "test_cost_does_not_grow_with_what_is_ready_and_taken",
    AsksForEachFlow: "test_cost_of_a_claim_does_not_grow_with_flows_that_nothing_is_ready_for",
}
