"""Every error of flowstate, one tree: catch :class:`FlowstateError` to catch them all.

What a program needs is in the attributes; what a person needs (what was tried, what was found,
what to do) is in the message. Drivers translate the errors of their libraries at their edge and
keep the original as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class FlowstateError(Exception):
    """The root of the tree."""


# ---------------------------------------------------------------- what the caller gave


class InvalidValueError(FlowstateError, ValueError):
    """A value that no store could keep or no engine could act on. ``field`` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.field, self.problem)


class EncodeError(InvalidValueError):
    """A payload that cannot be written as JSON. ``field`` is the path to the culprit."""


class DecodeError(InvalidValueError):
    """A payload that is not of the type that was asked for. ``field`` is what was decoded."""


class TooLargeError(InvalidValueError):
    """A state or a payload above the engine's limit. ``size`` and ``limit`` are in bytes."""

    def __init__(self, field: str, size: int, limit: int, option: str) -> None:
        super().__init__(
            field,
            f"is {size:,} bytes encoded; the limit is {limit:,}. Attach large values as data, "
            f"store them elsewhere and keep a reference, or raise Engine({option}=...)",
        )
        self.size = size
        self.limit = limit
        self.option = option

    def __reduce__(self) -> tuple[type, tuple[str, int, int, str]]:  # type: ignore[override]
        return type(self), (self.field, self.size, self.limit, self.option)


class IllegalTransitionError(FlowstateError):
    """The command is not legal in the status that the state is in; nothing changed."""

    def __init__(self, id: str, status: str, command: str, legal: Sequence[str]) -> None:
        allowed = f"legal: {', '.join(legal)}" if legal else "nothing is legal: it is terminal"
        super().__init__(f"state {id!r}: {command} is not legal while {status} ({allowed})")
        self.id = id
        self.status = status
        self.command = command
        self.legal = tuple(legal)

    def __reduce__(self) -> tuple[type, tuple[str, str, str, tuple[str, ...]]]:
        return type(self), (self.id, self.status, self.command, self.legal)


# ---------------------------------------------------------------- flows and engines


class FlowNotFoundError(FlowstateError, LookupError):
    """No flow of that name is registered here."""

    def __init__(self, flow: str, registered: Sequence[str]) -> None:
        names = ", ".join(sorted(registered)) or "none"
        super().__init__(f"flow {flow!r} is not registered here (registered: {names})")
        self.flow = flow
        self.registered = tuple(registered)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.flow, self.registered)


class FlowReturnError(FlowstateError, TypeError):
    """A flow returned something that the engine cannot do for the flow's own state."""

    def __init__(self, flow: str, returned: object, problem: str) -> None:
        super().__init__(f"flow {flow!r} returned {shown(returned)}: {problem}")
        self.flow = flow
        self.returned = returned
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return type(self), (self.flow, self.returned, self.problem)


class EngineClosedError(FlowstateError, RuntimeError):
    """The engine is not inside its ``async with``, or is leaving it and takes no new work."""


# ---------------------------------------------------------------- what the store said


class RevMismatchError(FlowstateError):
    """A commit lost a race: nothing of it was written.

    ``conflicts`` names *all* ids whose revision was not the expected one, each with the pair
    (expected, found); 0 stands for "does not exist".
    """

    def __init__(self, conflicts: Mapping[str, tuple[int, int]]) -> None:
        summary = "; ".join(
            f"{id!r} expected {_rev(expected)}, found {_rev(found)}"
            for id, (expected, found) in conflicts.items()
        )
        super().__init__(f"commit refused, someone else was first: {summary}")
        self.conflicts = dict(conflicts)

    def __reduce__(self) -> tuple[type, tuple[dict[str, tuple[int, int]]]]:
        return type(self), (self.conflicts,)


class CommitIdReusedError(FlowstateError):
    """A commit has the ``commit_id`` of another one that was stored before, at revision ``rev``,
    and is not the same: nothing of it was written."""

    def __init__(self, commit_id: str, rev: int) -> None:
        super().__init__(
            f"commit_id {commit_id!r} was used before, at revision {rev}, for a commit of other "
            "commands, states or flows; nothing was written. Give each commit an id of its own, "
            "and the same id only to the same commit when it is done again"
        )
        self.commit_id = commit_id
        self.rev = rev

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (self.commit_id, self.rev)


class StateNotFoundError(FlowstateError, LookupError):
    """No state, or no version of it, answers to what was asked for."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no {what}")
        self.what = what

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.what,)


class DataNotFoundError(FlowstateError, LookupError):
    """The state has no payload of that name, or the store does not have the payload."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no {what}")
        self.what = what

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.what,)


class DataForgottenError(DataNotFoundError):
    """The content of the payload was forgotten (``Engine.forget``)."""

    def __str__(self) -> str:
        return f"{self.what} was forgotten"


class CompactedError(FlowstateError):
    """The history that was asked for is gone. ``after`` is the revision after which it was to
    begin, ``oldest`` the first one of which nothing is missing."""

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(
            f"history after revision {after} was compacted: it is whole only from revision "
            f"{oldest} on. Start with the current versions, Query(latest=True), or leave out what "
            f"is gone, after={oldest - 1}"
        )
        self.after = after
        self.oldest = oldest

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        return type(self), (self.after, self.oldest)


class StoreError(FlowstateError):
    """A store failed. ``store`` names it (a path or an address, never a password)."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(f"{store}: {problem}")
        self.store = store
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.store, self.problem)


class StoreUrlError(StoreError, ValueError):
    """A store URL that names no known driver, or has an option that the driver does not know."""


class StoreOpenError(StoreError):
    """The store cannot be opened: it is not there, not allowed, or not one of ours."""


class StoreUnreachableError(StoreOpenError):
    """The store's server does not answer, or takes no more clients. Nothing was written."""


class SchemaVersionError(StoreOpenError):
    """The store was written by a newer flowstate, or was migrated by a newer flowstate while this
    process had it open; it was left untouched."""


class StoreReadOnlyError(StoreError):
    """The store can be read but not written."""


class StoreFullError(StoreError):
    """There is no room left. Nothing of the commit was written."""


class StoreBusyError(StoreError):
    """Someone else held the store for longer than the timeout. Nothing was written."""


class StoreCorruptError(StoreError):
    """What is stored is not what was written."""


class UnreadableVersionError(StoreCorruptError):
    """A version that cannot be read: its row is damaged, or newer code wrote it. ``id`` (empty if
    not known) and ``rev`` say which one. All others can be read, and reading goes on after it."""

    def __init__(self, store: str, id: str, rev: int, why: str) -> None:
        of_state = f" (state {id!r})" if id else ""
        super().__init__(store, f"the version at revision {rev}{of_state} cannot be read: {why}")
        self.id = id
        self.rev = rev
        self.why = why

    def __reduce__(self) -> tuple[type, tuple[str, str, int, str]]:  # type: ignore[override]
        return type(self), (self.store, self.id, self.rev, self.why)


class StoreClosedError(StoreError, RuntimeError):
    """The driver is not inside its ``async with``."""


class UnknownOutcomeError(StoreError):
    """The answer to a commit was lost: it happened or it did not.

    Doing the same plan again (same commit id) gives the first outcome, never a second one. The
    engine does so by itself; this reaches a caller only when it had to give up.
    """


# ---------------------------------------------------------------- messages


def shown(value: object) -> str:
    """Any value as a message shows it: cut to what a person reads, and never an error itself."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  (anything may be given: a number too long to be written, a class whose repr fails)
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


MAX_SHOWN = 200
"""Characters of a value in a message."""


def _rev(rev: int) -> str:
    return f"revision {rev}" if rev else "no such state"
