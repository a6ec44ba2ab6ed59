"""What is measured: each workload says in one sentence what it does.

To add one, write a coroutine function of a ``Place`` and a number that gives a ``Sample``, describe
it with a ``Workload``, and add that to the list below. The table, the JSON and the report need no
more.
"""

from __future__ import annotations

from collections.abc import Mapping

from .commits import BATCHES, COMMITS, LABELS, PROCESSES
from .reads import GETS, QUERIES
from .sizes import FOOTPRINT, GROWTH, PAYLOADS
from .timing import ALARMS, TAKEOVER
from .watching import OTHER_PROCESS, WATCHERS
from .working import JOBS, READY, READY_ELSEWHERE
from .workload import Workload

__all__ = ["WORKLOADS", "Workload"]

WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        COMMITS,
        LABELS,
        PROCESSES,
        BATCHES,
        GETS,
        QUERIES,
        WATCHERS,
        OTHER_PROCESS,
        PAYLOADS,
        READY,
        READY_ELSEWHERE,
        JOBS,
        ALARMS,
        TAKEOVER,
        GROWTH,
        FOOTPRINT,
    )
}
