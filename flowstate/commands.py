"""The commands, as values.

A flow returns one of these and the engine does it. ``Command[R]`` is generic in what doing it
gives back, so ``await engine.do(command)`` is fully typed.

To add a command, touch these places; the tests find a forgotten one:

1. the class here, and ``AnyCommand`` at the end of this file;
2. its column in ``TRANSITIONS`` and its row in ``MOVES`` (or none, if it moves no state), in
   ``transitions.py``;
3. ``Engine.do``, if it is not a move;
4. ``flowstate/__init__.py`` and the table in ``docs/concepts.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, get_args

from msgspec import Struct, StructMeta
from msgspec.structs import force_setattr

from . import clock
from .checks import NO_TEXT, Strings, check_flow, check_text, check_type, strings
from .errors import InvalidValueError, shown
from .flow import NO_FLOW, SAME_FLOW, Flow, FlowName
from .frozendict import EMPTY
from .state import State

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", covariant=True, default=Any)  # noqa: PLC0105  (as users read it)
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)  # noqa: PLC0105


class Command(Struct, Generic[R], frozen=True, gc=False):
    """What a flow returns; ``R`` is what ``await engine.do(command)`` gives."""


class Transit(Command[State], frozen=True, gc=False):
    """RUNNING at flow ``to``.

    With a ``timeout`` (seconds, a timedelta, or an aware datetime), the state goes to
    ``on_timeout`` (default: the same flow) if it has not moved by then.
    """

    state: State
    to: FlowName[str]
    annotations: Mapping[str, str] = EMPTY
    timeout: float | timedelta | datetime | None = None
    on_timeout: FlowName[str] = NO_FLOW

    def __post_init__(self) -> None:
        to = self.to
        if type(self.state) is not State:
            _check_state(self)
        if type(to) is not str or to not in _CHECKED:
            _check_new_to(self, to)
        if (
            self.annotations is not EMPTY
            or self.timeout is not None
            or self.on_timeout is not NO_TEXT
        ):
            _freeze(self, self.annotations)
            _check_timeout(self, self.timeout, self.on_timeout)


class Pause(Command[State], frozen=True, gc=False):
    """PAUSED until someone moves it; it will resume at ``to`` (default: the flow it is at).

    With a ``timeout``, it goes to ``on_timeout`` (default: where it would resume) if nobody has
    moved it by then.
    """

    state: State
    to: FlowName[str | None] = SAME_FLOW
    reason: str = ""
    annotations: Mapping[str, str] = EMPTY
    timeout: float | timedelta | datetime | None = None
    on_timeout: FlowName[str] = NO_FLOW

    def __post_init__(self) -> None:
        if type(self.state) is not State:
            _check_state(self)
        if self.to is not None:
            _check_to(self, self.to)
        if self.reason is not NO_TEXT:
            force_setattr(self, "reason", check_text("Pause.reason", self.reason))
        if (
            self.annotations is not EMPTY
            or self.timeout is not None
            or self.on_timeout is not NO_TEXT
        ):
            _freeze(self, self.annotations)
            _check_timeout(self, self.timeout, self.on_timeout)


class Resume(Command[State], frozen=True, gc=False):
    """A PAUSED, DELAYED or FAILED state is RUNNING again at its flow, cause RESUME, attempt 0."""

    state: State
    annotations: Mapping[str, str] = EMPTY

    def __post_init__(self) -> None:
        if type(self.state) is not State:
            _check_state(self)
        if self.annotations is not EMPTY:
            _freeze(self, self.annotations)


class Delay(Command[State], frozen=True, gc=False):
    """DELAYED; when the time comes it transits to ``to`` (default: the flow it is at).

    The time is either ``after`` (seconds or timedelta) or ``at`` (an aware datetime).
    """

    state: State
    to: FlowName[str | None] = SAME_FLOW
    after: float | timedelta | None = None
    at: datetime | int | None = None
    annotations: Mapping[str, str] = EMPTY

    def __post_init__(self) -> None:
        if type(self.state) is not State:
            _check_state(self)
        if self.to is not None:
            _check_to(self, self.to)
        if self.annotations is not EMPTY:
            _freeze(self, self.annotations)
        if (self.after is None) == (self.at is None):
            raise InvalidValueError("Delay", "takes either after=… or at=…")
        if self.after is not None:
            force_setattr(self, "after", clock.seconds("Delay.after", self.after))
        if self.at is not None:
            force_setattr(self, "at", clock.instant("Delay.at", self.at))

    def instant(self, now: int) -> int:
        """When it is over (ms since the epoch), if it begins now."""
        if self.after is None:
            return self.at  # type: ignore[return-value]  # one of the two is given, made exact
        return now + clock.milliseconds(self.after)  # type: ignore[arg-type]  # made seconds


class Retry(Command[State], frozen=True, gc=False):
    """What the kernel does when a flow raises, at a time of the flow's choosing.

    DELAYED at the same flow for ``after`` (seconds or timedelta), one more attempt; a running
    timeout is kept. Gives up once the attempts are used up (``RetryPolicy``).
    """

    state: State
    after: float | timedelta
    reason: str = ""

    def __post_init__(self) -> None:
        _check_state(self)
        force_setattr(self, "after", clock.seconds("Retry.after", self.after))
        force_setattr(self, "reason", check_text("Retry.reason", self.reason))

    @property
    def after_ms(self) -> int:
        """``after``, in milliseconds."""
        return clock.milliseconds(self.after)  # type: ignore[arg-type]  # made seconds


class Fail(Command[State], frozen=True, gc=False):
    """What the kernel does when it gives up: FAILED at the flow where the state is, or RUNNING at
    the flow ``on_give_up`` of its policy."""

    state: State
    reason: str = ""

    def __post_init__(self) -> None:
        _check_state(self)
        force_setattr(self, "reason", check_text("Fail.reason", self.reason))


class Save(Command[State], frozen=True, gc=False):
    """A new version of a state that rests, with other labels, annotations or data: its transition
    and its alarm stay as they are."""

    state: State

    def __post_init__(self) -> None:
        _check_state(self)


class End(Command[State], frozen=True, gc=False):
    """ENDED: terminal."""

    state: State
    reason: str = ""
    annotations: Mapping[str, str] = EMPTY

    def __post_init__(self) -> None:
        if type(self.state) is not State:
            _check_state(self)
        if self.reason is not NO_TEXT:
            force_setattr(self, "reason", check_text("End.reason", self.reason))
        if self.annotations is not EMPTY:
            _freeze(self, self.annotations)


class Require(Command[State], frozen=True, gc=False):
    """Only inside a commit: it holds only if this state is still at this revision."""

    state: State

    def __post_init__(self) -> None:
        if type(self.state) is not State:
            _check_state(self)


class _Variadic(StructMeta):
    """Lets a Struct take its one field as positional arguments: ``Commit(a, b)``, as people write
    it, in place of ``Commit((a, b))``."""

    if not TYPE_CHECKING:  # type checkers go by the __init__ of the class

        def __call__(cls, *commands):  # noqa: N805  (a metaclass)
            for command in commands:
                if type(command) not in _COMMANDS:
                    raise InvalidValueError("Commit", f"takes commands, not {shown(command)}")
            return _construct(cls, commands)


_construct: Any = StructMeta.__call__


class Commit(Command[tuple[State, ...]], frozen=True, gc=False, metaclass=_Variadic):
    """All of these commands, durably and atomically, or none of them.

    Gives the committed states in the order of the commands.
    """

    commands: tuple[Command[State], ...]

    if TYPE_CHECKING:

        def __init__(self, *commands: Command[State]) -> None: ...

    def __reduce__(self) -> tuple[type, tuple[Command[State], ...]]:
        return Commit, self.commands


class Execute(Command[None], frozen=True, gc=False):
    """Run the state in the background."""

    state: State

    def __post_init__(self) -> None:
        if type(self.state) is not State:
            _check_state(self)


class Noop(Command[None], frozen=True, gc=False):
    """Nothing: the state was moved elsewhere."""


AnyCommand: TypeAlias = (
    Transit | Pause | Resume | Delay | Retry | Fail | End | Save | Require | Commit | Execute | Noop
)
_COMMANDS = frozenset(get_args(AnyCommand))


def _check_state(command: Any) -> None:
    """Raise ``InvalidValueError`` unless the command has a state, and none of a subclass."""
    name = type(command).__name__
    if isinstance(command.state, State):
        check_type(f"{name}.state", command.state, State)
        return
    raise InvalidValueError(
        f"{name}.state",
        f"takes a State, not {shown(command.state)}; begin a new one, State('order-1'), or read "
        "the one that is stored, await engine.get('order-1')",
    )


_CHECKED: set[str] = set()
"""Names of flows that were looked at already: there are many transits to one flow."""
MAX_CHECKED = 4_096


def _check_new_to(command: Transit, to: object) -> None:
    if type(to) is Flow:
        force_setattr(command, "to", to.name)
        return
    _check_to(command, to)
    if len(_CHECKED) < MAX_CHECKED:
        _CHECKED.add(command.to)


def _freeze(command: Command[State], annotations: Mapping[str, str]) -> None:
    if annotations is not EMPTY and type(annotations) is not Strings:
        field = f"{type(command).__name__}.annotations"
        force_setattr(command, "annotations", strings(field, annotations))


def _check_to(command: Command[State], to: object) -> None:
    force_setattr(command, "to", check_flow(f"{type(command).__name__}.to", to))


def timeout_at(timeout: float | timedelta | datetime, now: int) -> int:
    """When a timeout comes (ms since the epoch) that begins now."""
    if isinstance(timeout, datetime):
        return clock.instant("timeout", timeout)
    return now + clock.milliseconds(timeout)  # type: ignore[arg-type]  # made seconds


def _check_timeout(
    command: Command[State], timeout: float | timedelta | datetime | None, on_timeout: str
) -> None:
    name = type(command).__name__
    if on_timeout is not NO_TEXT:
        force_setattr(command, "on_timeout", check_flow(f"{name}.on_timeout", on_timeout))
    if isinstance(timeout, datetime):
        clock.instant(f"{name}.timeout", timeout)
    elif timeout is not None:
        force_setattr(command, "timeout", clock.seconds(f"{name}.timeout", timeout))
    elif on_timeout:
        raise InvalidValueError(f"{name}.on_timeout", "needs a timeout")
