"""What a run is: everything that was measured, and all that is needed to read it. Its JSON.

Every round's own figures are kept, so that other programs can compute what they like of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from . import stats
from .errors import BenchError
from .values import Better, Effort, Measure

SCHEMA = 1
"""Of the JSON. Raised when an older program could no longer read it rightly."""


class Machine(Struct, frozen=True, kw_only=True):
    """Where a run was made. ``load`` is the load average of the minute before it began."""

    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    versions: Mapping[str, str]
    load: float = 0.0


class StoreFacts(Struct, frozen=True, kw_only=True):
    """One of the stores of a run. ``name`` is what the figures refer to."""

    name: str
    url: str
    """Without a password."""
    durability: str
    """What an acknowledged commit survived: NONE, PROCESS, POWER or NODE."""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Versions and settings."""
    raw: str = ""
    """What its raw limit is; empty if none is known."""
    notes: tuple[str, ...] = ()
    """What one has to know to read its figures."""


class WorkloadFacts(Struct, frozen=True, kw_only=True):
    """What a workload measures."""

    name: str
    about: str
    parameter: str
    """What its cases differ by."""
    measures: tuple[Measure, ...]
    raw: str = ""
    """What its raw limit is made of; empty if it has none."""


class Round(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one round gave of one case on one store. Delays are in ms."""

    number: int
    figures: Mapping[str, float]
    raw: Mapping[str, float] = field(default_factory=dict[str, float])
    """The raw limit of some of the figures, measured right before them."""
    quantiles: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    """Of each kind of delay, at ``shares`` of the run."""
    took_s: float = 0.0


class Measurement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All rounds of one case on one store."""

    workload: str
    value: int
    """The parameter."""
    store: str
    rounds: tuple[Round, ...] = ()
    missing: str = ""
    """Why there are no (more) rounds."""
    has_failed: bool = False
    """Whether that is an error, and not what the store is."""

    @property
    def key(self) -> tuple[str, int, str]:
        return self.workload, self.value, self.store

    def values(self, measure: str) -> list[float]:
        """A figure of each round that has it."""
        return [taken.figures[measure] for taken in self.rounds if measure in taken.figures]

    def raw_values(self, measure: str) -> list[float]:
        """The raw limit of a figure in each round that has it."""
        return [taken.raw[measure] for taken in self.rounds if measure in taken.raw]

    def summary(self, measure: str) -> stats.Summary | None:
        """The rounds of a figure; None if there are none."""
        values = self.values(measure)
        return stats.summarize(values) if values else None

    def raw_summary(self, measure: str) -> stats.Summary | None:
        values = self.raw_values(measure)
        return stats.summarize(values) if values else None

    def shares(self, measure: Measure, of: Measure | None = None) -> list[float]:
        """In each round, how much of its raw limit a figure reached: 1 is all of it.

        *of* is whose raw limit is taken, if it has none of its own; what is given is then no
        share, but still the better the higher, and the same on a machine that is as fast.
        """
        limit = of or measure
        both = [
            (taken.figures[measure.name], taken.raw[limit.name])
            for taken in self.rounds
            if taken.figures.get(measure.name) and taken.raw.get(limit.name)
        ]
        return [_goodness(value, measure) / _goodness(raw, limit) for value, raw in both]

    def share_of_raw(self, measure: Measure) -> float | None:
        """The median of the shares; None if there are none."""
        shares = self.shares(measure)
        return stats.summarize(shares).median if shares else None


def _goodness(value: float, measure: Measure) -> float:
    return value if measure.better is Better.HIGHER else 1 / value


class Run(Struct, frozen=True, kw_only=True):
    """One run of the harness."""

    schema: int = SCHEMA
    began: str
    """UTC, ISO 8601."""
    took_s: float
    is_interrupted: bool = False
    effort: Effort
    shares: tuple[float, ...] = stats.SHARES
    machine: Machine
    stores: tuple[StoreFacts, ...]
    workloads: tuple[WorkloadFacts, ...]
    measurements: tuple[Measurement, ...]

    def store(self, name: str) -> StoreFacts:
        return next(store for store in self.stores if store.name == name)

    def of(self, workload: str) -> list[Measurement]:
        """The measurements of a workload."""
        return [
            measurement for measurement in self.measurements if measurement.workload == workload
        ]


class _Version(Struct):
    schema: int


def encode(run: Run) -> bytes:
    """The run as JSON."""
    return msgspec.json.format(msgspec.json.encode(run), indent=1)


def decode(text: bytes, where: str) -> Run:
    """The run that is in a JSON text. Raises ``BenchError``, which names *where* it was."""
    try:
        found = msgspec.json.decode(text, type=_Version).schema
        if found != SCHEMA:
            raise BenchError(
                f"{where}: is of schema {found}, and this flowstate reads schema {SCHEMA}; measure "
                "again, or use the flowstate that wrote it"
            )
        return msgspec.json.decode(text, type=Run)
    except msgspec.MsgspecError as error:
        raise BenchError(f"{where}: is not a run of `flowstate bench`: {error}") from error
