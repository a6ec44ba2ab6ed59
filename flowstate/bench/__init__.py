"""Measuring stores: the same workloads on any of them, in turn, beside what each could do at most.

``flowstate bench`` is its command. From the values up: ``results`` is what a run is, and its JSON;
``stats`` and ``compare`` compute; a ``Site`` makes fresh stores of one kind and knows their raw
limit; a ``Workload`` measures one thing in one of them; ``runner`` takes the rounds in turn.
``report`` makes a page of a run; it needs matplotlib (``pip install 'flowstate-kernel[bench]'``).

A store that plugs in through the entry-point group ``flowstate.drivers`` is measured as it is. To
be measured in fresh stores, beside its raw limit, it offers a ``Site`` for the same scheme in the
group ``flowstate.bench``.
"""

from .compare import Change, Verdict, compare, differences, got_worse, summed_up
from .errors import BenchError
from .results import Measurement, Run, StoreFacts, WorkloadFacts, decode, encode
from .runner import Progress, Runner, Step
from .sites import STATE, RawLimit, Site, head_of, sites_of
from .stats import Summary
from .values import FULL, QUICK, Better, Effort, Measure, Sample
from .workloads import WORKLOADS, Workload

__all__ = [
    "FULL",
    "QUICK",
    "STATE",
    "WORKLOADS",
    "BenchError",
    "Better",
    "Change",
    "Effort",
    "Measure",
    "Measurement",
    "Progress",
    "RawLimit",
    "Run",
    "Runner",
    "Sample",
    "Site",
    "Step",
    "StoreFacts",
    "Summary",
    "Verdict",
    "Workload",
    "WorkloadFacts",
    "compare",
    "decode",
    "differences",
    "encode",
    "got_worse",
    "head_of",
    "sites_of",
    "summed_up",
]
