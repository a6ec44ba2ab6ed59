"""The driver in memory."""

from .driver import MemoryDriver

__all__ = ["MemoryDriver"]
