"""The version of a store's schema: what a durable driver checks when it opens a store, and in every
transaction that writes.

The second check is what a migration relies on: processes with older code may have the store open,
and must write nothing that the newer code would not find. So a migration excludes writers while it
runs, and a writer asks for the version once it has excluded others.
"""

from __future__ import annotations

from ..errors import SchemaVersionError


def check_known(store: str, found: int, known: int) -> None:
    """For opening: raise ``SchemaVersionError`` if the store's version is above the known one."""
    if found > known:
        raise SchemaVersionError(
            store,
            f"has schema version {found}, newer than the {known} that this flowstate knows; it "
            "was left untouched. Upgrade flowstate",
        )


def check_unchanged(store: str, found: int, known: int) -> None:
    """For writing: raise ``SchemaVersionError`` if the store has not the known version any more,
    which it had when it was opened."""
    if found != known:
        raise SchemaVersionError(
            store,
            f"has schema version {found} now, and this flowstate knows {known}: it was migrated "
            "while this process had it open. Nothing was written. Upgrade flowstate, and restart "
            "this process",
        )
