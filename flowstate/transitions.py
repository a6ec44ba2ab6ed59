"""What is legal, and what each command, failure and instant makes of a state.

**The theory.** A state is a finite automaton. What it does is its *status*; where it does it is a
flow. Two kinds of things move it:

- *Commands*, which somebody gives: a flow by returning one, or an operator. ``TRANSITIONS`` is the
  whole law of these: status and command give the status that follows, and a command that is missing
  in the row of a status is illegal. ``MOVES`` has the function for each command that moves a state:
  it makes the new transition. The diagram in the docs is drawn from the table.
- *Time*, which nobody gives: a flow raised and is to be tried again (``retry``), an alarm came, or
  a lease ended (``fire``). These are not in the table, for they depend on more than the status.
  They lead to RUNNING (an alarm, a retry), DELAYED (the backoff before a retry) or ENDED (giving
  up).

**What does not fit the table.**

- ``Require`` moves nothing: it is legal where a commit may ask that a state stay as it is.
- ``Execute`` moves nothing either: it has the state run by this engine. Of a state at rest there is
  nothing to run.
- ``Commit`` and ``Noop`` are about no one state, so they have no row and no column.
- A state that is NEW has no flow yet: ``Pause`` may leave it without one, but ``Resume`` and
  ``Delay`` need a flow, named by the command if the state is at none.
- ENDED with cause RETRY was not ended by anybody: the kernel gave up (``retry``, ``fire``).
- A state that is RUNNING may be RUNNING again at the same flow without a command: when its lease
  ran out, or was released.

Everything here is pure: no I/O, no clock (the time is an argument), no chance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from . import clock
from .commands import (
    Command,
    Commit,
    Delay,
    End,
    Execute,
    Pause,
    Require,
    Resume,
    Transit,
)
from .data import Data, DataRef
from .errors import IllegalTransitionError, InvalidValueError
from .frozendict import EMPTY, FrozenDict
from .leases import lease_ms
from .plan import Plan, Write, moved
from .state import Alarm, Cause, RetryPolicy, State, Status, Transition, check_id

_RUNNING = Status.RUNNING  # on the hot path; Python 3.11 takes as long to find a member as to call

_UNLESS_ENDED: dict[type[Command[Any]], Status] = {
    Transit: Status.RUNNING,
    Pause: Status.PAUSED,
    Delay: Status.DELAYED,
    End: Status.ENDED,
}

TRANSITIONS: Mapping[Status, Mapping[type[Command[Any]], Status]] = {
    Status.NEW: _UNLESS_ENDED | {Require: Status.NEW, Execute: Status.NEW},
    Status.RUNNING: _UNLESS_ENDED | {Require: Status.RUNNING, Execute: Status.RUNNING},
    Status.PAUSED: _UNLESS_ENDED
    | {Resume: Status.RUNNING, Require: Status.PAUSED, Execute: Status.PAUSED},
    Status.DELAYED: _UNLESS_ENDED
    | {Resume: Status.RUNNING, Require: Status.DELAYED, Execute: Status.DELAYED},
    Status.ENDED: {},
}
"""status -> command -> the status that follows. A missing key is an illegal command."""


def check_legal(command: Any) -> None:
    """Raise ``IllegalTransitionError`` unless the command is legal for its state."""
    if type(command) not in TRANSITIONS[command.state.transition.status]:
        raise _illegal(command)


# ---------------------------------------------------------------- one state


def transit(command: Transit, now: int) -> State:
    state = command.state
    if Transit not in TRANSITIONS[state.transition.status]:  # check_legal, without the call
        raise _illegal(command)
    if command.timeout is None and command.annotations is EMPTY:
        return moved(state, _running_at(command.to))
    transition = Transition(
        to=command.to,
        status=Status.RUNNING,
        alarm=_timeout(now, command.timeout, command.on_timeout or command.to),
        annotations=command.annotations,
    )
    return moved(state, transition)


def pause(command: Pause, now: int) -> State:
    check_legal(command)
    to = command.state.transition.to if command.to is None else command.to
    transition = Transition(
        to=to,
        status=Status.PAUSED,
        reason=command.reason,
        alarm=_timeout(now, command.timeout, command.on_timeout or _flow_or_error(command, to)),
        annotations=command.annotations,
    )
    return moved(command.state, transition)


def resume(command: Resume, now: int) -> State:
    check_legal(command)
    transition = Transition(
        to=_flow_or_error(command, command.state.transition.to),
        status=Status.RUNNING,
        cause=Cause.RESUME,
        annotations=command.annotations,
    )
    return moved(command.state, transition)


def delay(command: Delay, now: int) -> State:
    check_legal(command)
    to = _flow_or_error(command, command.state.transition.to if command.to is None else command.to)
    transition = Transition(
        to=to,
        status=Status.DELAYED,
        alarm=Alarm(command.instant(now), to),
        annotations=command.annotations,
    )
    return moved(command.state, transition)


def end(command: End, now: int) -> State:
    check_legal(command)
    transition = Transition(
        status=Status.ENDED, reason=command.reason, annotations=command.annotations
    )
    return moved(command.state, transition)


MOVES: Mapping[type[Command[Any]], Callable[[Any, int], State]] = {
    Transit: transit,
    Pause: pause,
    Resume: resume,
    Delay: delay,
    End: end,
}
"""command -> what it makes of its state at time *now* (ms), not yet committed."""


def retry(
    state: State, error: str, now: int, policy: RetryPolicy, jitter: float = 0.0
) -> State | None:
    """What becomes of a state whose flow raised.

    DELAYED at the same flow until its backoff is over, or until its timeout if that is first;
    ENDED once its attempts are used up, with cause RETRY, which tells giving up from an ``End``;
    None (leave it alone) if its policy is switched off. *jitter* (0 to 1) spreads the backoffs of
    states that failed together.
    """
    policy = state.retry or policy
    transition = state.transition
    attempt = transition.attempt + 1
    if not policy.enabled:
        return None
    if policy.max_attempts is not None and attempt >= policy.max_attempts:
        return _given_up(state, attempt, error)
    again = now + policy.wait_ms(attempt, jitter)
    timeout = transition.alarm
    if timeout is None or again < timeout.at:
        cause, alarm = Cause.RETRY, Alarm(again, transition.to, then=timeout)
    else:
        cause, alarm = Cause.ALARM, timeout
    delayed = replace(
        transition,
        status=Status.DELAYED,
        cause=cause,
        attempt=attempt,
        reason=error,
        alarm=alarm,
    )
    return moved(state, delayed)


def fire(state: State, now: int, policy: RetryPolicy, *, is_released: bool = False) -> State | None:
    """What becomes of a state whose due time has come; None if it is to be left alone.

    The first of these that holds decides:

    1. its timeout has come, or its delay is over: RUNNING at the alarm's flow, cause ALARM;
    2. the backoff before a retry is over: RUNNING where it is, and its timeout stands again;
    3. it has no lease, because it rests or its policy is switched off: it is left alone;
    4. its lease was released, so nothing went wrong: as it is, in whoever commits it first;
    5. its lease ran out: RUNNING where it is, cause RETRY; given up once attempts are used up.
    """
    transition = state.transition
    alarm = _alarm_that_came(transition, now)
    if alarm is None:
        return _lease_ended(state, policy, is_released=is_released)
    if alarm is transition.alarm and _waits_for_retry(transition):
        return moved(state, replace(transition, status=Status.RUNNING, alarm=alarm.then))
    return moved(state, Transition(to=alarm.to, status=Status.RUNNING, cause=Cause.ALARM))


def _alarm_that_came(transition: Transition, now: int) -> Alarm | None:
    """The alarm that has come by now; of a backoff and the timeout behind it the timeout, if that
    has come as well: nobody was there to retry the state before it."""
    alarm = transition.alarm
    if alarm is None or alarm.at > now:
        return None
    timeout = alarm.then
    return timeout if timeout is not None and timeout.at <= now else alarm


def _waits_for_retry(transition: Transition) -> bool:
    return transition.status is Status.DELAYED and transition.cause is Cause.RETRY


def _lease_ended(state: State, policy: RetryPolicy, *, is_released: bool) -> State | None:
    policy = state.retry or policy
    transition = state.transition
    if transition.status is not Status.RUNNING or not policy.enabled:
        return None
    if is_released:
        return state
    attempt = transition.attempt + 1
    if policy.max_attempts is not None and attempt >= policy.max_attempts:
        return _given_up(state, attempt, LEASE_RAN_OUT)
    retried = replace(transition, cause=Cause.RETRY, attempt=attempt, reason=LEASE_RAN_OUT)
    return moved(state, retried)


def _given_up(state: State, attempts: int, error: str) -> State:
    times = f"{attempts} attempt{'s' if attempts > 1 else ''}"
    ended = Transition(
        status=Status.ENDED,
        cause=Cause.RETRY,
        attempt=attempts - 1,
        reason=f"gave up after {times}: {error}",
    )
    return moved(state, ended)


LEASE_RAN_OUT = "the lease ran out: its executor died or hung"


# ---------------------------------------------------------------- a commit


def plan(commit: Commit, *, commit_id: str, now: int, policy: RetryPolicy) -> Plan:
    """What a commit writes. *now* is in ms; *policy* is that of states without their own."""
    commands = commit.commands
    if len(commands) == 1 and (move := MOVES.get(type(commands[0]))) is not None:
        state = move(commands[0], now)
        if not state.data and not state.stacked:  # the most frequent commit has a short way
            return Plan(commit_id, (with_due(state, now, policy),))
    if not commands:
        raise InvalidValueError("Commit", "is empty: give it at least one command")
    writes: list[Write] = []
    requires: list[tuple[str, int]] = []
    payloads: dict[str, bytes] = {}
    for command in commands:
        move = MOVES.get(type(command))
        if move is not None:
            state = move(command, now)
            if state.data or state.stacked:
                state = take_payloads(state, payloads)
            writes.append(with_due(state, now, policy))
        elif type(command) is Require:
            check_legal(command)
            requires.append((command.state.id, command.state.rev))
        else:
            raise InvalidValueError(
                "Commit",
                f"cannot hold {type(command).__name__}: it takes Transit, Pause, Resume, Delay, "
                "End and Require",
            )
    if len(commands) > 1:
        _check_once(commands)
    return Plan(commit_id, tuple(writes), tuple(requires), FrozenDict(payloads))


def plan_state(state: State, *, commit_id: str, now: int, policy: RetryPolicy) -> Plan:
    """What is written for a state that the kernel itself moved."""
    payloads: dict[str, bytes] = {}
    state = take_payloads(state, payloads)
    return Plan(commit_id, (with_due(state, now, policy),), (), payloads or EMPTY)


def with_due(state: State, now: int, policy: RetryPolicy) -> Write:
    """The state with its due time: its alarm, or the end of its lease, whichever is first."""
    transition = state.transition
    alarm = transition.alarm
    if transition.status is not _RUNNING:
        return Write(state, None, "") if alarm is None else Write(state, alarm.at, alarm.to)
    length = lease_ms(state.retry or policy)
    if alarm is None or (length and now + length < alarm.at):
        return Write(state, now + length if length else None, transition.to)
    return Write(state, alarm.at, alarm.to)


def take_payloads(state: State, payloads: dict[str, bytes]) -> State:
    """*state* with its pending data, also of stacked states, moved to *payloads* and replaced by
    references to this commit (rev 0)."""
    data: dict[str, Data | DataRef] = {}
    for name, payload in state.data.items():
        if isinstance(payload, Data):
            checksum = payload.checksum
            payloads[checksum] = payload.content
            data[name] = DataRef(0, payload.size, payload.content_type, checksum)
        else:
            data[name] = payload
    stacked = {name: take_payloads(other, payloads) for name, other in state.stacked.items()}
    return replace(state, data=data, stacked=stacked)


# ---------------------------------------------------------------- helpers


def _illegal(command: Any) -> IllegalTransitionError:
    status = command.state.transition.status
    legal = [kind.__name__ for kind in TRANSITIONS[status]]
    return IllegalTransitionError(command.state.id, status.name, type(command).__name__, legal)


@functools.lru_cache(maxsize=4096)
def _running_at(to: str) -> Transition:
    """The plain transition to a flow: a value, so every state there can share it."""
    return Transition(to=to, status=Status.RUNNING)


def _timeout(now: int, timeout: Any, to: str) -> Alarm | None:
    return None if timeout is None else Alarm(now + clock.milliseconds(timeout), to)


def _flow_or_error(command: Pause | Resume | Delay, to: str) -> str:
    """The flow to go on at; an error if none is known, unless the command can do without."""
    needs_flow = not isinstance(command, Pause) or command.timeout is not None
    if needs_flow and not to:
        raise InvalidValueError(
            f"{type(command).__name__}.to",
            f"state {command.state.id!r} is at no flow; say which with to=…",
        )
    return to


def _check_once(commands: tuple[Any, ...]) -> None:
    seen: set[str] = set()
    for command in commands:
        id: str = command.state.id
        check_id(id)
        if id in seen:
            raise InvalidValueError("Commit", f"names state {id!r} twice")
        seen.add(id)
