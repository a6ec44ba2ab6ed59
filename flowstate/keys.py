"""Ids that callers give to commits, so that a program that is run again commits nothing twice."""

from __future__ import annotations

from typing import Any

from .codec import digest
from .commands import Commit
from .plan import CommitKey
from .state import State, check_id

_TIMES = {"after", "at", "timeout"}
"""Fields of commands that say when."""


def key_of(commit: Commit, commit_id: object) -> CommitKey:
    """The key of a commit: its caller's id, and the digest of what the caller asks for.

    The digest says of each command its kind, the id of its state, and its other fields (flows,
    reason, annotations), but for times: a deadline that is computed anew is no other content. After
    a slash it says what the states hold: labels, annotations, data (types and checksums), stacked
    states and policies; but only if none of them was ever committed. What was read from the store
    has moved on when the same program is run again: its revision, its transition and what it holds
    do not count. What is empty is left out, so that a field which later code adds changes nothing.
    """
    id = check_id(commit_id, "commit_id")
    commands: tuple[Any, ...] = commit.commands
    asked = digest([_command(command) for command in commands])
    states = [command.state for command in commands if hasattr(command, "state")]
    if not any(state.rev for state in states):
        asked = f"{asked}/{digest([_content(state) for state in states])}"
    return CommitKey(id, asked)


def is_same(asked: str, stored: str) -> bool:
    """Whether two digests are of the same content, as far as both say what it is."""
    commands, _, content = asked.partition("/")
    stored_commands, _, stored_content = stored.partition("/")
    return commands == stored_commands and (
        not content or not stored_content or content == stored_content
    )


def _command(command: Any) -> list[Any]:
    fields = {
        name: value
        for name in command.__struct_fields__
        if name != "state" and name not in _TIMES and (value := getattr(command, name))
    }
    state = getattr(command, "state", None)  # one without is refused where the commit is planned
    return [type(command).__name__, state and state.id, fields]


def _content(state: State) -> dict[str, Any]:
    content: dict[str, Any] = {
        "labels": state.labels,
        "annotations": state.annotations,
        "data": {
            name: [payload.content_type, payload.checksum] for name, payload in state.data.items()
        },
        "stacked": {name: [other.id, _content(other)] for name, other in state.stacked.items()},
        "retry": state.retry,
    }
    return {name: value for name, value in content.items() if value}
