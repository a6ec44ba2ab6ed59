"""The conformance suite: every law of the driver contract, as tests to inherit.

A driver is done when this passes::

    class TestMyDriver(DriverConformance):
        def new_store(self, tmp_path):
            return MyStore(tmp_path)

``MyStore`` is a ``flowstate.testing.Store``. What a driver can do beyond the contract is declared
there; tests of what is not declared are skipped. Every test runs on asyncio and, if it is
installed, on trio. One module of this package proves one law.
"""

from __future__ import annotations

import pytest

# so that a law that does not hold shows the values; before the modules are imported
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{law}"
        for law in (
            "atomicity",
            "base",
            "conflicts",
            "cost",
            "due",
            "head",
            "isolation",
            "order",
            "outcome",
            "persistence",
            "read",
            "watch",
        )
    )
)

from .atomicity import AtomicityLaws  # noqa: E402
from .conflicts import ConflictLaws  # noqa: E402
from .cost import CostLaws  # noqa: E402
from .due import DueLaws  # noqa: E402
from .head import HeadLaws  # noqa: E402
from .isolation import IsolationLaws  # noqa: E402
from .order import OrderLaws  # noqa: E402
from .outcome import OutcomeLaws  # noqa: E402
from .persistence import PersistenceLaws  # noqa: E402
from .read import DataLaws, ReadLaws  # noqa: E402
from .watch import WatchLaws  # noqa: E402

__all__ = ["DriverConformance"]


class DriverConformance(
    OrderLaws,
    AtomicityLaws,
    ConflictLaws,
    IsolationLaws,
    OutcomeLaws,
    ReadLaws,
    DataLaws,
    DueLaws,
    HeadLaws,
    PersistenceLaws,
    WatchLaws,
    CostLaws,
):
    """Subclass this, give it ``new_store``, and run it with pytest."""
