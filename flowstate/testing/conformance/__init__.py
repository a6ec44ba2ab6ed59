"""The conformance suite: every law of the driver contract, as tests to inherit.

A driver is done when this passes::

    class TestMyDriver(DriverConformance):
        def new_store(self, tmp_path):
            return MyStore(tmp_path)

``MyStore`` is a ``flowstate.testing.Store``. What a driver can do beyond the contract is declared
there; tests of what is not declared are skipped. Every test runs on asyncio and, if it is
installed, on trio.

Each of the nine laws of docs/concepts.md is proved by one module, whose first line has its number:
``order`` (1), ``atomicity`` (2), ``durability`` (3), ``isolation`` (4), ``outcome`` (5), ``cost``
(6), ``watch`` (7), ``claims`` (8), ``errors`` (9). The rest of the contract has no numbers:
``conflicts``, ``accepted``, ``read``, ``query``, ``leaving``, ``due``, ``places``, ``leases``,
``presence``, ``head``, ``forgetting``, ``retention``, ``compaction``. The first line of a module is
the heading that ``flowstate check`` prints above what its mixins prove. A module has one mixin, or
two if what it proves has two parts (``read`` and ``retention``: versions and payloads; ``outcome``:
the ids of plans and those of callers). ``base`` and ``runs`` have what they share, and prove
nothing.
"""

from __future__ import annotations

from .accepted import AcceptedLaws
from .atomicity import AtomicityLaws
from .claims import ClaimLaws
from .compaction import BatchLaws
from .conflicts import ConflictLaws
from .cost import CostLaws
from .due import DueLaws
from .durability import DurabilityLaws
from .errors import ErrorLaws
from .forgetting import ForgetLaws
from .head import HeadLaws
from .isolation import IsolationLaws
from .leases import LeaseLaws
from .leaving import LeavingLaws
from .order import OrderLaws
from .outcome import OutcomeLaws, RecordLaws
from .places import PlaceLaws
from .presence import PresenceLaws
from .query import QueryLaws
from .read import DataLaws, ReadLaws
from .retention import PayloadRetentionLaws, RetentionLaws
from .watch import WatchLaws

__all__ = ["DriverConformance"]


class DriverConformance(
    OrderLaws,
    AtomicityLaws,
    DurabilityLaws,
    IsolationLaws,
    OutcomeLaws,
    RecordLaws,
    ConflictLaws,
    AcceptedLaws,
    ReadLaws,
    DataLaws,
    QueryLaws,
    LeavingLaws,
    DueLaws,
    ClaimLaws,
    PlaceLaws,
    LeaseLaws,
    PresenceLaws,
    ErrorLaws,
    HeadLaws,
    WatchLaws,
    ForgetLaws,
    RetentionLaws,
    PayloadRetentionLaws,
    BatchLaws,
    CostLaws,  # the last, for it takes the longest
):
    """Subclass this, give it ``new_store``, and run it with pytest."""
