"""Running a state: the loop that every transition goes through.

It calls the flow that the state is at, does the command that the flow returns, and goes on while
the state is RUNNING. It logs nothing below WARNING, copies nothing and takes no lock. What runs in
the background, and how much of it at a time, is ``background.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define, field

from .claims import Claims, Taking
from .commands import Command, Commit, Execute, Noop
from .committer import COMMIT_BACKOFF_MS, COMMIT_RETRIES, Committer, outcome
from .errors import (
    EngineClosedError,
    FlowReturnError,
    InvalidValueError,
    RevMismatchError,
    StoreBusyError,
    StoreUnreachableError,
)
from .executions import (
    Execution,
    Keeper,
    check_not_held,
    present_execution,
    running_here,
    runs_flow,
)
from .failures import failure_of, is_flows_own, reason
from .flows import Flows
from .leases import Due, Held, Place, policy_of, ready
from .leaving import Leaving
from .plan import CommitKey, Plan
from .query import Unreadable
from .races import Races, is_others_move
from .room import Room
from .state import KERNEL_PREFIX, Cause, State, Status
from .transitions import MOVES, TRANSITIONS, check_legal
from .writes import Writes

logger = logging.getLogger("flowstate")

_RUNNING = Status.RUNNING  # Python 3.11 takes as long to find a member of an enum as to call

_NOTHING_WRITTEN = (StoreBusyError, StoreUnreachableError)

MAX_STEPS_WITHOUT_YIELD = 250
"""Transitions that one execution does before other tasks get a turn."""


@define(eq=False)
class Executor:
    """The executions of one engine.

    ``context`` is what a flow is given beside its state. ``begin`` has a state that is taken, and
    has a place, run in the background; ``line_up`` has this engine take one that is ready, as soon
    as there is a place.
    """

    committer: Committer
    flows: Flows
    room: Room
    context: Any
    begin: Callable[[Execution], None]
    line_up: Callable[[State], None]
    ended: Callable[[], None]
    """Called after each execution."""
    keeper: Keeper = field(init=False)
    writes: Writes = field(init=False)
    claims: Claims = field(init=False)
    leaving: Leaving = field(factory=Leaving, init=False)

    def __attrs_post_init__(self) -> None:
        committer = self.committer
        self.keeper = Keeper(committer.driver, committer.owner, committer.clock, committer.policy)
        self.writes = Writes(committer, self.keeper)
        self.claims = Claims(committer, self.flows, self.room, self.leaving, self.writes)
        committer.listeners.append(self.committed)

    def close(self) -> None:
        """Hear of no more commits: the engine was left."""
        self.committer.listeners.remove(self.committed)

    def check_takes_work(self) -> None:
        """Raise ``EngineClosedError`` if the engine is being left, unless a flow asks."""
        if self.leaving.has_begun and not runs_flow():
            raise EngineClosedError("the engine is closing and takes no new work")

    # ------------------------------------------------------------ what is asked for

    async def execute(self, state: State) -> State:
        """Run a state here and now, or wait while others do, until it rests; gives it then."""
        check_runnable(state)
        self.check_takes_work()
        while state.transition.status is _RUNNING:
            found = await self.claims.acquire(state)
            # what is left RUNNING is for others to go on with: then this waits for them
            state = await self._run_here(found) if isinstance(found, Execution) else found
        return state

    async def _run_here(self, execution: Execution) -> State:
        """Run an execution that has no place: it counts for the limit of its flow alone."""
        try:
            return await self.run(execution)
        finally:
            self.room.leave(execution.flow)

    async def execute_commit(self, commit: Commit, key: CommitKey | None = None) -> State:
        """Commit, run the first state of it here and now, and give that once it rests."""
        self.check_takes_work()
        first, execution = await self.begin_commit(commit, key)
        if execution is not None:
            first = await self._run_here(execution)
        return await self.execute(first) if first.transition.status is _RUNNING else first

    async def go_on(self, committed: tuple[State, ...]) -> State:
        """Run the first state of what was committed before from its newest version on."""
        newest = await self.claims.newest(committed[0])
        return await self.execute(newest) if newest.transition.status is _RUNNING else newest

    async def begin_commit(
        self, commit: Commit, key: CommitKey | None = None, *, takes_first: bool = True
    ) -> tuple[State, Execution | None]:
        """Commit, taking the first state of it if there is a place for it, and begin with the
        others as with those that a flow has committed. Gives the first state, and its execution if
        it was taken."""
        commands: tuple[Any, ...] = commit.commands
        own: str = commands[0].state.id if commands else ""
        check_not_held(own)
        taking = Taking(self.claims, own if takes_first else "")
        try:
            plan = self.committer.plan(commit, taking.place_of, key)
            written = await self.claims.store(plan)
            taking.keep()
        finally:
            taking.give_back()
        first = written[0] if len(written) == len(commands) else outcome(commit, written)[0]
        if len(written) > 1 or not taking.has_taken_own:
            self._begin_others(plan, written, own)
        if not taking.has_taken_own:
            return first, None
        return first, Execution(first, first, "", flow=taking.flow)

    async def commit(self, commit: Commit, key: CommitKey | None = None) -> tuple[State, ...]:
        """Commit for whoever asks. A flow that moves its own state keeps it, and waits for the
        outcome, whatever cancels it: else nobody would know which revision it is at."""
        execution = present_execution()
        if execution is None or not _moves(commit, execution.state.id):
            return await self.committer.commit(commit, key)

        def place_of(state: State, now: int, lease: int) -> Place:
            is_own = state.id == execution.state.id
            return (self.committer.taken if is_own else ready)(state, now, lease)

        plan = self.committer.plan(commit, place_of, key)
        return outcome(commit, await self.claims.store(plan))

    def executing(self) -> list[State]:
        """What runs now, as it was last committed, in the order in which it began."""
        return [execution.state for execution in self.keeper.executions if execution.state.rev]

    # ------------------------------------------------------------ what happens to executions

    def committed(self, plan: Plan, states: tuple[State, ...]) -> None:
        """What was committed: an execution goes on from its own, and is stopped if somebody else
        moved its state."""
        by_id = self.keeper.by_id
        if not by_id:
            return
        for write, state in zip(plan.writes, states):  # noqa: B905  (equal by construction; hot)
            if (execution := by_id.get(state.id)) is None:
                continue
            if execution is running_here.get():
                execution.state = state
                execution.policy = write.policy
                place = write.place
                execution.claim = None if place is None or place.since is not None else ""
                if state.transition.alarm is not None:
                    self.keeper.look_again(execution)
            elif state.rev > execution.state.rev:  # else it was taken before the answer came
                execution.lose()

    def noticed(self, versions: Sequence[State | Unreadable]) -> None:
        """What was read of the log: an execution whose state somebody else has moved is stopped."""
        by_id = self.keeper.by_id
        if not by_id:
            return
        for version in versions:
            execution = by_id.get(version.id)
            if (
                execution is not None
                and execution.claim is not None
                and version.rev > execution.state.rev
                and not self.writes.is_pending(version.id)  # else it may be this engine's own
            ):
                execution.lose()

    def cancel(self) -> None:
        """Cancel every execution; what they have taken is given back when the engine is left."""
        for execution in self.keeper.executions:
            self.abandon(execution)
            execution.scope.cancel()

    # ------------------------------------------------------------ one execution

    async def run(self, execution: Execution) -> State:
        """Run an execution until its state rests, or is left to others, and give that."""
        while True:
            rested = await self._execute(execution)
            if rested is not None:
                return rested
            # it was stopped: time was up, or somebody else has the state
            if self.leaving.has_begun:
                raise EngineClosedError(
                    f"the engine was left before state {execution.state.id!r} came to rest"
                )
            if not execution.is_timed_out:
                return await self.claims.newest(execution.state)
            fired = await self._fire_timeout(execution)
            if fired is not None:
                return fired

    async def _execute(self, execution: Execution) -> State | None:
        """Run the flows of an execution, until its state rests or is left to others; None if it was
        stopped."""
        execution.outer = present_execution()
        outer = running_here.set(execution)
        self.keeper.begin(execution)
        try:
            with execution.scope:
                try:
                    state = await self._steps_and_races(execution)
                except BaseException as error:
                    await self._raised(execution, error)
                    raise
                if execution.claim is None and state.transition.status is not _RUNNING:
                    return state
                return await self._ended(execution, state)
        finally:
            running_here.reset(outer)
            self.keeper.end(execution)
            self.ended()
        return None

    async def _steps_and_races(self, execution: Execution) -> State:
        """Step after step; a flow whose commit was refused because of other states is run again."""
        races: Races | None = None
        while True:
            taking = Taking(self.claims, execution.state.id, execution.flow)
            try:
                return await self._steps(execution, taking)
            except RevMismatchError as error:
                given, held = execution.given, execution.state
                if is_others_move(error, given, held):
                    execution.claim = None
                    return await self.claims.newest(given)
                races = races or Races(given)
                if given.id in error.conflicts or not races.lose(given, error):
                    raise
                if execution.has_moved:
                    if execution.claim is None:
                        raise
                    execution.given = held
            finally:
                taking.give_back()
            logger.debug("state %r: its flow lost a race and is run again", given.id)
            await self.claims.pause(races.wait_ms(self.committer.chance()))

    async def _steps(self, execution: Execution, taking: Taking) -> State:  # noqa: C901  (hot)
        """Step after step; gives the state once it rests, or RUNNING if it is left to others.
        Raises what flows and commits raise."""
        committer, flows, room = self.committer, self.flows.by_name, self.room
        place_of, store = taking.place_of, self.claims.store
        state = execution.given
        steps = 0
        while (flow := flows.get(state.transition.to)) is not None:
            command: Command = await flow.run(state, self.context)
            if type(command) is Commit:
                before = execution.state
                plan = committer.plan(command, place_of)
                try:
                    written = await store(plan)
                except _NOTHING_WRITTEN:
                    written = await self._store_again(plan)
                taking.keep()
                new = execution.state
                if len(written) > 1 or new is before or execution.claim is None:
                    self._begin_others(plan, written, state.id)
                    if new is before or execution.claim is None:
                        return new if new is not before else await self.claims.newest(state)
            elif (move := MOVES.get(type(command))) is not None:
                new = move(command, committer.clock.now(), committer.policy)
                if new.id != state.id:
                    raise _other_state(state, command)
            elif type(command) is Execute and _is_own(execution, command.state):
                new = command.state
            else:
                self._do_other(execution, command)
                return await self.claims.newest(state)
            if new.transition.status is not _RUNNING or (
                (room.limits or room.held) and not self._goes_on(execution, taking, new)
            ):
                return new
            execution.given = state = new
            steps += 1
            if steps == MAX_STEPS_WITHOUT_YIELD:
                steps = 0
                await anyio.lowlevel.checkpoint()
        logger.warning(
            "state %r is at flow %r, which is not registered here; left for an engine that has it",
            state.id,
            state.transition.to,
        )
        return state

    async def _store_again(self, plan: Plan) -> tuple[State, ...]:
        """Store what a flow returned: that the store was busy or gone, and has written nothing, is
        no failure of the flow. Raises it in the end."""
        for attempt in range(COMMIT_RETRIES - 1):
            await self.claims.pause(COMMIT_BACKOFF_MS * 2**attempt)
            with suppress(*_NOTHING_WRITTEN):
                return await self.claims.store(plan)
        await self.claims.pause(COMMIT_BACKOFF_MS * 2 ** (COMMIT_RETRIES - 1))
        return await self.claims.store(plan)

    def _goes_on(self, execution: Execution, taking: Taking, state: State) -> bool:
        """Whether an execution goes on with that state here: not if its flow has no room."""
        flow = state.transition.to
        execution.is_left = flow in self.flows.by_name and not taking.goes_on(flow)
        execution.flow = taking.flow
        return not execution.is_left

    def _do_other(self, execution: Execution, command: Any) -> None:
        """Do a command that moves no state, or say what is wrong with what a flow returned."""
        if type(command) is Execute:
            check_runnable(command.state)
            self.line_up(command.state)
        elif type(command) is not Noop:
            raise FlowReturnError(
                execution.given.transition.to,
                command,
                "a flow returns one command, e.g. Transit(state, 'next'), Commit(End(state)) or "
                "Noop()",
            )

    # ------------------------------------------------------------ writing

    def _begin_others(self, plan: Plan, written: tuple[State, ...], own: str) -> None:
        """Run what a commit has taken besides the execution's own state, and have what it has put
        in line taken later, if its flow is here."""
        for write, state in zip(plan.writes, written, strict=True):
            place = write.place
            if place is None:
                continue
            if place.since is not None:
                if state.transition.to in self.flows.by_name:
                    self.line_up(state)
            elif state.id != own:
                self.begin(Execution(state, state, "", flow=state.transition.to))

    # ------------------------------------------------------------ what ends it

    async def _raised(self, execution: Execution, error: BaseException) -> None:
        """A flow raised, or was cancelled: what is the flow's counts as an attempt."""
        if isinstance(error, EngineClosedError) and self.leaving.has_begun:
            self.abandon(execution)  # nothing went wrong: it is given back
        elif is_flows_own(error):
            await self._failed(execution, error)
        elif not execution.is_timed_out:
            with self.writes.shield():
                await self._release(execution)  # nobody runs it now

    async def _failed(self, execution: Execution, error: BaseException) -> None:
        """A flow raised: commit its retry, if the state was ever committed, and say what becomes of
        it."""
        id, flow = execution.given.id, execution.given.transition.to
        extra = {"flow_of": id}  # by it a program knows what it also gets as an error
        moved: State | None = None
        try:
            moved = execution.failed = await self._commit_failure(execution, error)
        except RevMismatchError:
            return  # someone else moved it: then there is nothing to retry
        except Exception:
            logger.exception("state %r: its retry could not be committed", id)
        if moved is not None and moved.transition.cause is not Cause.GAVE_UP:
            logger.warning("state %r: flow %r raised %s", id, flow, reason(error), extra=extra)
            return
        outcome = "it is not retried" if moved is None else moved.transition.reason
        logger.error("state %r: flow %r: %s", id, flow, outcome, exc_info=error, extra=extra)

    async def _commit_failure(self, execution: Execution, error: BaseException) -> State | None:
        """Commit what becomes of the version that the flow left; None if nothing does."""
        if execution.claim is None:
            return None
        committer = self.committer
        state = execution.state if execution.has_moved else execution.given
        policy = execution.policy or committer.policy
        plan = committer.plan_failure(state, failure_of(error), policy)
        if plan is None:
            return None
        written = await self.claims.store(plan)
        self._begin_others(plan, written, "")
        return written[0]

    async def _fire_timeout(self, execution: Execution) -> State | None:
        """Commit that the timeout of what was stopped has come, and have the execution go on with
        it; gives the state if it is for others."""
        state, timeout = execution.state, execution.timeout
        if execution.claim is None:
            return await self.claims.newest(state)  # what it committed meanwhile is not its own
        if timeout is None or timeout.at > self.committer.clock.now():
            execution.begin_again(state)  # it has moved on meanwhile, or the clock was wrong
            return None
        taking = Taking(self.claims, state.id, execution.flow)
        due = Due(state, timeout.at, execution.policy)
        try:
            plan = self.committer.plan_firing(due, taking.place_of)
            if plan is None:
                return state
            written = await self.claims.store(plan)
            taking.keep()
        except RevMismatchError:
            return await self.claims.newest(state)  # somebody else was first
        except Exception:
            logger.warning("state %r: its timeout could not be fired", state.id, exc_info=True)
            raise
        finally:
            taking.give_back()
        self._begin_others(plan, written, state.id)
        execution.flow, execution.policy = taking.flow, plan.writes[0].policy
        execution.claim = "" if taking.has_taken_own else None
        if execution.claim is None:
            return written[0]
        execution.begin_again(written[0])
        return None

    async def _ended(self, execution: Execution, state: State) -> State:
        """See what becomes of what an execution has taken, now that it ended with that state."""
        transition = state.transition
        is_here = transition.to in self.flows.by_name and not execution.is_left
        is_for_others = transition.status is _RUNNING and not is_here
        if is_for_others and (not state.rev or state is not execution.state):
            state = await self._leave(state)
            if execution.is_left:
                self.line_up(state)
            return state
        if execution.claim is None:
            pass
        elif state.rev != execution.state.rev:
            execution.claim = None  # somebody else moved it
        elif execution.has_moved or is_for_others:
            await self._release(execution)
            if execution.is_left:
                self.line_up(state)
        else:
            self._not_moved(execution)
        return state

    async def _leave(self, state: State) -> State:
        """Leave what came in memory to a flow that is not here to others."""
        try:
            return await self.claims.hand_on(state)
        except RevMismatchError:
            return await self.claims.newest(state)
        except Exception:
            logger.warning("state %r could not be left to others", state.id, exc_info=True)
            return state

    def _not_moved(self, execution: Execution) -> None:
        """A flow ended and left what is stored of its state where it was: nobody is to have it at
        once, or it would be run again and again. Its lease runs out, which is an attempt."""
        held, execution.claim = execution.held, None
        if held is not None:
            self.keeper.pass_by(held)
            logger.warning(
                "state %r: flow %r ended and committed nothing of it; it is retried once its lease "
                "has run out",
                execution.state.id,
                execution.given.transition.to,
            )

    async def _release(self, execution: Execution) -> None:
        """Give back what an execution has taken, now or once the engine is left."""
        if self.leaving.has_begun:
            self.abandon(execution)
        elif (held := self._let_go(execution)) is not None:
            await self.keeper.release([held])

    def abandon(self, execution: Execution) -> None:
        """Have what an execution has taken given back when the engine is left."""
        held = self._let_go(execution)
        if held is not None:
            self.keeper.abandon(held)

    def _let_go(self, execution: Execution) -> Held | None:
        """What an execution holds no longer, and others may have: not what is never retried, for
        its flow has begun."""
        held, execution.claim = execution.held, None
        policy = policy_of(execution.state, execution.policy or self.committer.policy)
        return held if policy.enabled else None


def check_runnable(state: State) -> None:
    """Raise unless the state may be run: ``IllegalTransitionError``, ``InvalidValueError``."""
    status = state.transition.status
    if Execute not in TRANSITIONS[status]:
        check_legal(Execute(state))
    if state.id.startswith(KERNEL_PREFIX):
        raise InvalidValueError(
            f"state {state.id!r}", "is one of the kernel's own: no flow runs it"
        )
    if status is Status.NEW:
        raise InvalidValueError(
            f"state {state.id!r}", "is at no flow yet: do Transit(state, 'first') before running it"
        )


def _moves(commit: Commit, id: str) -> bool:
    """Whether a commit moves that state."""
    commands: tuple[Any, ...] = commit.commands
    return any(type(command) in MOVES and command.state.id == id for command in commands)


def _is_own(execution: Execution, state: State) -> bool:
    """Whether a state is the execution's own, at the revision that it holds."""
    return (state.id, state.rev) == (execution.state.id, execution.state.rev)


def _other_state(state: State, command: Any) -> FlowReturnError:
    return FlowReturnError(
        state.transition.to,
        command,
        f"it moves state {command.state.id!r} in memory only, but the flow was run for "
        f"{state.id!r}; move other states in a Commit",
    )
