"""SQLite: one file, many processes, WAL, an acknowledged commit survives a power cut."""

from .driver import SQLiteDriver

__all__ = ["SQLiteDriver"]
