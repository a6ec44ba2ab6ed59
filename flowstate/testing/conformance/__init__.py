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

from .atomicity import AtomicityLaws
from .compaction import BatchLaws, CompactedOutcomeLaws
from .conflicts import ConflictLaws
from .cost import CostLaws
from .due import DueLaws
from .head import HeadLaws
from .isolation import IsolationLaws
from .order import OrderLaws
from .outcome import OutcomeLaws
from .persistence import PersistenceLaws
from .query import QueryLaws
from .read import DataLaws, ReadLaws
from .retention import PayloadRetentionLaws, RetentionLaws
from .watch import WatchLaws

__all__ = ["DriverConformance"]


class DriverConformance(
    OrderLaws,
    AtomicityLaws,
    ConflictLaws,
    IsolationLaws,
    OutcomeLaws,
    ReadLaws,
    DataLaws,
    QueryLaws,
    DueLaws,
    HeadLaws,
    PersistenceLaws,
    WatchLaws,
    RetentionLaws,
    PayloadRetentionLaws,
    BatchLaws,
    CompactedOutcomeLaws,
    CostLaws,
):
    """Subclass this, give it ``new_store``, and run it with pytest."""
