"""PostgreSQL: any number of processes and machines on one store, a schema of a database.

Needs psycopg: ``pip install 'flowstate-kernel[postgres]'``.
"""

from __future__ import annotations

from ...driver import Driver
from ...errors import StoreUrlError
from ..url import StoreUrl


def from_url(url: StoreUrl) -> Driver:
    """``postgresql://user:password@host:port/database?schema=flowstate&…``

    Raises ``StoreUrlError``, also if psycopg is not installed.
    """
    try:
        from .driver import PostgresDriver  # noqa: PLC0415  (it imports psycopg)
    except ImportError as error:
        raise StoreUrlError(
            url.text, f"needs psycopg ({error}): pip install 'flowstate-kernel[postgres]'"
        ) from error
    return PostgresDriver.from_url(url)
