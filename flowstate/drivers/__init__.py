"""Drivers: where states are stored. ``connect`` opens them all.

A driver plugs in through the entry-point group ``flowstate.drivers``: the name is the scheme of
its URLs, the value a callable that takes a ``flowstate.drivers.url.StoreUrl`` and returns a
``Driver``. The drivers that come with flowstate are found in the same way.
"""

from __future__ import annotations

from ..driver import Driver

__all__ = ["connect"]

GROUP = "flowstate.drivers"


def connect(url: str) -> Driver:
    """The driver for a store, not yet open: use it with ``async with``.

    ``memory:`` keeps states in this process; ``sqlite:///orders.db`` in a file (relative; four
    slashes make it absolute). Raises ``StoreUrlError``.
    """
    # here, for they are half of what `import flowstate` would cost
    from importlib.metadata import entry_points  # noqa: PLC0415

    from ..drivers.url import StoreUrl  # noqa: PLC0415
    from ..errors import StoreUrlError  # noqa: PLC0415

    parsed = StoreUrl.parse(url)
    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name == parsed.scheme:
            driver: Driver = entry.load()(parsed)
            return driver
    schemes = ", ".join(sorted({f"{entry.name}:" for entry in found})) or "none; is it installed?"
    raise StoreUrlError(parsed.text, f"no driver for {parsed.scheme}: (known: {schemes})")
