"""What is legal, and what each command, failure and instant makes of a state.

**The theory.** A state is a finite automaton. What it does is its *status*; where it does it is a
flow. Two kinds of things move it:

- *Commands*, which somebody gives: a flow by returning one, or an operator. ``TRANSITIONS`` is the
  whole law of these: status and command give the status that follows, and a command that is missing
  in the row of a status is illegal. ``MOVES`` has the function for each command that moves a state:
  it makes the new transition. The diagram in the docs is drawn from the table.
- *Time*, which nobody gives: a flow raised and is to be tried again (``after_error``), an alarm
  came, or a lease ended (``fire``). These are not in the table, for they depend on more than the
  status. They lead to RUNNING (an alarm, a retry), DELAYED (the backoff before a retry), or, once
  attempts are used up, to the flow ``on_give_up`` or to FAILED. ``Retry`` and ``Fail`` are the
  commands for the same.

**What does not fit the table.**

- ``Retry`` and ``Fail`` may lead elsewhere than their column says: a retry past the last attempt
  gives up, and giving up leads to RUNNING where the policy names a flow for it.
- ``Require`` and ``Save`` move nothing. ``Require`` asks that a state stay as it is; ``Save``
  stores a state that rests with other labels, annotations or data.
- ``Execute`` moves nothing either: it has the state run by this engine. Of a state at rest there is
  nothing to run.
- ``Commit`` and ``Noop`` are about no one state, so they have no row and no column.
- A state that is NEW has no flow yet: ``Pause`` may leave it without one, but ``Resume`` and
  ``Delay`` need a flow, named by the command if the state is at none.
- A state that is RUNNING may be RUNNING again at the same flow without a command: when its lease
  ran out.

Everything here is pure: no I/O, no clock (the time is an argument), no chance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from .checks import MAX_WHOLE
from .commands import (
    Command,
    Commit,
    Delay,
    End,
    Execute,
    Fail,
    Pause,
    Require,
    Resume,
    Retry,
    Save,
    Transit,
    timeout_at,
)
from .data import Data, DataRef
from .errors import IllegalTransitionError, InvalidValueError
from .frozendict import EMPTY, FrozenDict
from .leases import Place, lease_ms, policy_of, ready
from .plan import Plan, Write, moved
from .state import Alarm, Cause, RetryPolicy, State, Status, Transition, check_id

_RUNNING = Status.RUNNING  # on the hot path; Python 3.11 takes as long to find a member as to call

_UNLESS_ENDED: dict[type[Command[Any]], Status] = {
    Transit: Status.RUNNING,
    Pause: Status.PAUSED,
    Delay: Status.DELAYED,
    End: Status.ENDED,
}

_RESTING: dict[type[Command[Any]], Status] = _UNLESS_ENDED | {Resume: Status.RUNNING}

TRANSITIONS: Mapping[Status, Mapping[type[Command[Any]], Status]] = {
    Status.NEW: _UNLESS_ENDED | {Require: Status.NEW, Execute: Status.NEW},
    Status.RUNNING: _UNLESS_ENDED
    | {Retry: Status.DELAYED, Fail: Status.FAILED}
    | {Require: Status.RUNNING, Execute: Status.RUNNING},
    Status.PAUSED: _RESTING
    | {Fail: Status.FAILED}
    | {Save: Status.PAUSED, Require: Status.PAUSED, Execute: Status.PAUSED},
    Status.DELAYED: _RESTING
    | {Fail: Status.FAILED}
    | {Save: Status.DELAYED, Require: Status.DELAYED, Execute: Status.DELAYED},
    Status.FAILED: _RESTING | {Save: Status.FAILED, Require: Status.FAILED, Execute: Status.FAILED},
    Status.ENDED: {Require: Status.ENDED},
}
"""status -> command -> the status that follows. A missing key is an illegal command."""


def check_legal(command: Any) -> None:
    """Raise ``IllegalTransitionError`` unless the command is legal for its state."""
    if type(command) not in TRANSITIONS[command.state.transition.status]:
        raise _illegal(command)


_END = Transition(status=Status.ENDED)
"""A value, so every state that ends without a word can share it."""


# ---------------------------------------------------------------- one state


def transit(command: Transit, now: int, policy: RetryPolicy) -> State:
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


def pause(command: Pause, now: int, policy: RetryPolicy) -> State:
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


def resume(command: Resume, now: int, policy: RetryPolicy) -> State:
    check_legal(command)
    transition = Transition(
        to=_flow_or_error(command, command.state.transition.to),
        status=Status.RUNNING,
        cause=Cause.RESUME,
        annotations=command.annotations,
    )
    return moved(command.state, transition)


def delay(command: Delay, now: int, policy: RetryPolicy) -> State:
    check_legal(command)
    to = _flow_or_error(command, command.state.transition.to if command.to is None else command.to)
    transition = Transition(
        to=to,
        status=Status.DELAYED,
        alarm=Alarm(command.instant(now), to),
        annotations=command.annotations,
    )
    return moved(command.state, transition)


def end(command: End, now: int, policy: RetryPolicy) -> State:
    check_legal(command)
    if not command.reason and command.annotations is EMPTY:
        return moved(command.state, _END)
    transition = Transition(
        status=Status.ENDED, reason=command.reason, annotations=command.annotations
    )
    return moved(command.state, transition)


def retry(command: Retry, now: int, policy: RetryPolicy) -> State:
    check_legal(command)
    state = command.state
    at = now + command.after_ms
    failure = Failure(command.reason)
    return _tried_again(state, policy_of(state, policy), at, Cause.RETRY, failure)


def fail(command: Fail, now: int, policy: RetryPolicy) -> State:
    check_legal(command)
    state = command.state
    failure = Failure(command.reason)
    return _given_up(state, policy_of(state, policy), state.transition.attempt, failure)


def save(command: Save, now: int, policy: RetryPolicy) -> State:
    check_legal(command)
    return command.state


MOVES: Mapping[type[Command[Any]], Callable[[Any, int, RetryPolicy], State]] = {
    Transit: transit,
    Pause: pause,
    Resume: resume,
    Delay: delay,
    Retry: retry,
    Fail: fail,
    End: end,
    Save: save,
}
"""command that writes its state -> what it makes of that at time *now* (ms), not yet committed; all
but ``Save`` move it. The policy is that of states without their own."""


# ---------------------------------------------------------------- failure and time


class Failure(NamedTuple):
    """What went wrong: for people."""

    reason: str
    traceback: str = ""
    """Where, if a flow raised; the end of it."""


def after_error(
    state: State, failure: Failure, now: int, policy: RetryPolicy, jitter: float = 0.0
) -> State | None:
    """What becomes of a state whose flow raised.

    DELAYED at the same flow until its backoff is over, or until its timeout if that is first; given
    up once its attempts are used up; None (leave it alone) if its policy is switched off. *jitter*
    (0 to 1) spreads the backoffs of states that failed together.
    """
    policy = policy_of(state, policy)
    if not policy.enabled:
        return None
    at = now + policy.wait_ms(state.transition.attempt + 1, jitter)
    return _tried_again(state, policy, at, Cause.RETRY, failure)


def fire(state: State, now: int, policy: RetryPolicy, jitter: float = 0.0) -> State | None:
    """What becomes of a state whose due time has come; None if it is to be left alone.

    The first of these that holds decides:

    1. its timeout has come, or its delay is over: RUNNING at the alarm's flow, cause ALARM, with
       the annotations of the transition whose alarm it was;
    2. the backoff before a retry is over: RUNNING where it is, and its timeout stands again;
    3. it has no lease, because it rests or its policy is switched off: it is left alone;
    4. its lease ran out: RUNNING where it is, cause LOST, the first time at once, after that
       DELAYED for its backoff, and by chance for up to a lease more; given up once attempts are
       used up.
    """
    transition = state.transition
    alarm = alarm_that_came(transition, now)
    if alarm is None:
        return _lease_ran_out(state, now, policy, jitter)
    if alarm is transition.alarm and _waits_for_retry(transition):
        return moved(state, replace(transition, status=Status.RUNNING, alarm=alarm.then))
    fired = Transition(
        to=alarm.to,
        status=Status.RUNNING,
        cause=Cause.ALARM,
        annotations=transition.annotations,
    )
    return moved(state, fired)


def alarm_that_came(transition: Transition, now: int) -> Alarm | None:
    """The alarm that has come by now; of a backoff and the timeout behind it the timeout, if that
    has come as well: nobody was there to retry the state before it."""
    alarm = transition.alarm
    if alarm is None or alarm.at > now:
        return None
    timeout = alarm.then
    return timeout if timeout is not None and timeout.at <= now else alarm


def _waits_for_retry(transition: Transition) -> bool:
    return transition.status is Status.DELAYED and transition.cause in {Cause.RETRY, Cause.LOST}


def _lease_ran_out(state: State, now: int, policy: RetryPolicy, jitter: float) -> State | None:
    policy = policy_of(state, policy)
    transition = state.transition
    if transition.status is not Status.RUNNING or not policy.enabled:
        return None
    # a flow that kills its process is not to take one process after the other with it, nor what
    # died beside it: those that died together are tried again apart from each other
    deaths = transition.attempt
    spread = round(jitter * lease_ms(policy))
    at = now + policy.wait_ms(deaths, jitter) + spread if deaths else None
    return _tried_again(state, policy, at, Cause.LOST, LEASE_RAN_OUT)


def _tried_again(
    state: State, policy: RetryPolicy, at: int | None, cause: Cause, failure: Failure
) -> State:
    """One more attempt of a state at the flow where it is, at that instant (ms; None: at once), or
    at its timeout if that is first; or giving it up."""
    transition = state.transition
    attempt = min(transition.attempt + 1, MAX_WHOLE)
    if policy.is_used_up(attempt):
        times = f"{attempt} attempt{'s' if attempt > 1 else ''}"
        reason = f"gave up after {times}: {failure.reason}"
        return _given_up(state, policy, attempt - 1, failure._replace(reason=reason))
    again = replace(
        transition,
        cause=cause,
        attempt=attempt,
        reason=failure.reason,
        traceback=failure.traceback,
    )
    if at is None:
        return moved(state, again)
    timeout = transition.alarm
    if timeout is not None and timeout.at <= at:
        return moved(state, replace(again, status=Status.DELAYED, cause=Cause.ALARM))
    alarm = Alarm(at, transition.to, then=timeout)
    return moved(state, replace(again, status=Status.DELAYED, alarm=alarm))


def _given_up(state: State, policy: RetryPolicy, attempt: int, failure: Failure) -> State:
    """The state at the flow that its policy has for what was given up, else FAILED where it is:
    also if it is that flow which failed."""
    transition = state.transition
    goes_on = policy.on_give_up not in {"", transition.to}
    given_up = Transition(
        to=policy.on_give_up if goes_on else transition.to,
        status=Status.RUNNING if goes_on else Status.FAILED,
        cause=Cause.GAVE_UP,
        attempt=0 if goes_on else attempt,
        reason=failure.reason,
        traceback=failure.traceback,
        annotations=transition.annotations,
    )
    return moved(state, given_up)


LEASE_RAN_OUT = Failure("the lease ran out: its executor died or hung")


# ---------------------------------------------------------------- a commit


PlaceOf: TypeAlias = Callable[[State, int, int], Place]
"""Where a state stands that is left RUNNING, at a time (ms), with a lease of that length (ms).
Asked once of each, in order."""


def plan(
    commit: Commit, commit_id: str, now: int, policy: RetryPolicy, place_of: PlaceOf = ready
) -> Plan:
    """What a commit writes. *now* is in ms; *policy* is that of states without their own."""
    commands = commit.commands
    if len(commands) == 1 and (move := MOVES.get(type(commands[0]))) is not None:
        state = move(commands[0], now, policy)
        if not state.data and not state.stacked:  # the most frequent commit has a short way
            return Plan(commit_id, (write_of(state, now, policy, place_of),))
    if not commands:
        raise InvalidValueError("Commit", "is empty: give it at least one command")
    writes: list[Write] = []
    requires: list[tuple[str, int]] = []
    payloads: dict[str, bytes] = {}
    reused: dict[tuple[int, str], bytes] = {}
    for command in commands:
        move = MOVES.get(type(command))
        if move is not None:
            state = move(command, now, policy)
            if state.data or state.stacked:
                state = take_payloads(state, payloads, reused)
            writes.append(write_of(state, now, policy, place_of))
        elif type(command) is Require:
            check_legal(command)
            requires.append((command.state.id, command.state.rev))
        else:
            raise InvalidValueError(
                "Commit",
                f"cannot hold {type(command).__name__}: it takes "
                f"{', '.join(kind.__name__ for kind in MOVES)} and Require",
            )
    if len(commands) > 1:
        _check_once(commands)
    stored = FrozenDict(payloads) if payloads else EMPTY
    again = FrozenDict(reused) if reused else EMPTY
    return Plan(commit_id, tuple(writes), tuple(requires), stored, reused=again)


def plan_state(
    state: State, commit_id: str, now: int, policy: RetryPolicy, place_of: PlaceOf = ready
) -> Plan:
    """What is written for a state that the kernel itself moved."""
    payloads: dict[str, bytes] = {}
    reused: dict[tuple[int, str], bytes] = {}
    state = take_payloads(state, payloads, reused)
    write = write_of(state, now, policy, place_of)
    return Plan(commit_id, (write,), (), payloads or EMPTY, reused=reused or EMPTY)


def write_of(state: State, now: int, policy: RetryPolicy, place_of: PlaceOf) -> Write:
    """The state with its place, if it is RUNNING, and the policy that it goes by."""
    transition = state.transition
    beside = policy if state.retry is None else None
    if transition.status is not _RUNNING:
        return Write(state) if transition.alarm is None else Write(state, beside)
    lasting = state.retry or policy
    lease = round(lasting.lease * 1000) if lasting.enabled else 0  # lease_ms, without the call
    return Write(state, beside, lease, place_of(state, now, lease))


def take_payloads(
    state: State, payloads: dict[str, bytes], reused: dict[tuple[int, str], bytes]
) -> State:
    """*state* with its pending data, also of stacked states, moved to *payloads* and replaced by
    references to this commit (rev 0). What was stored before is moved to *reused* and replaced by
    the reference that it had."""
    data: dict[str, Data | DataRef] = {}
    for name, payload in state.data.items():
        if isinstance(payload, Data) and payload.stored is not None:
            data[name] = ref = payload.stored
            reused[ref.rev, ref.checksum] = payload.content
        elif isinstance(payload, Data):
            checksum = payload.checksum
            payloads[checksum] = payload.content
            data[name] = DataRef(0, payload.size, payload.content_type, checksum)
        else:
            data[name] = payload
    stacked = {
        name: take_payloads(other, payloads, reused) for name, other in state.stacked.items()
    }
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
    return None if timeout is None else Alarm(timeout_at(timeout, now), to)


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
