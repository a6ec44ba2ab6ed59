"""Comparing two runs: what is slower, beyond the noise. Pure."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from .results import Machine, Measurement, Run, WorkloadFacts
from .stats import Summary, summarize
from .values import Better, Measure

MIN_ROUNDS = 3
"""Of each run; with fewer, nothing is beyond the noise."""
TOLERANCE = 0.10
"""How far medians may differ, as a share of the earlier one, whatever the noise."""


class Verdict(enum.Enum):
    """What has become of a figure."""

    SAME = "same"
    BETTER = "better"
    WORSE = "worse"
    MACHINE = "machine"
    """It changed, but not beside its raw limit, which did as well: the machine, not the store."""
    UNSURE = "unsure"
    """There are too few rounds to tell."""

    @property
    def words(self) -> str:
        """For people."""
        return _TOLD[self]


_TOLD = {
    Verdict.WORSE: "worse",
    Verdict.MACHINE: "changed as the raw limit did: the machine",
    Verdict.BETTER: "better",
    Verdict.SAME: "the same within the noise",
    Verdict.UNSURE: "with too few rounds to tell",
}


@frozen
class Change:
    """One figure in two runs. ``ratio`` is now / earlier."""

    workload: WorkloadFacts
    value: int
    store: str
    measure: Measure
    earlier: Summary
    now: Summary
    verdict: Verdict

    @property
    def ratio(self) -> float:
        return self.now.median / self.earlier.median if self.earlier.median else 1.0

    @property
    def gain(self) -> float:
        """How many times better it is now; below 1, it got worse."""
        if not self.now.median or not self.earlier.median:
            return 1.0
        return self.ratio if self.measure.better is Better.HIGHER else 1 / self.ratio


def compare(now: Run, earlier: Run, tolerance: float = TOLERANCE) -> list[Change]:
    """Every figure that both runs have.

    A figure has changed beyond the noise if the worst round of one run is better than the best
    round of the other, and their medians differ by more than *tolerance*. Where a raw limit was
    measured, the same must hold beside the raw limit: what the machine won or lost is not the
    store's.
    """
    before = {measurement.key: measurement for measurement in earlier.measurements}
    return [
        change
        for facts in now.workloads
        for measurement in now.of(facts.name)
        if measurement.key in before
        for change in _changes(facts, measurement, before[measurement.key], tolerance)
    ]


def got_worse(changes: Iterable[Change]) -> list[Change]:
    """Those that are worse beyond the noise, the worst first."""
    worse = (change for change in changes if change.verdict is Verdict.WORSE)
    return sorted(worse, key=lambda change: change.gain)


def summed_up(changes: Sequence[Change]) -> str:
    """How many figures became what, and how far that can be trusted."""
    if not changes:
        return "The runs have no figure in common."
    counts = {verdict: sum(change.verdict is verdict for change in changes) for verdict in Verdict}
    summary = ", ".join(f"{count} {verdict.words}" for verdict, count in counts.items() if count)
    text = f"{len(changes):,} figure{'' if len(changes) == 1 else 's'}: {summary}."
    chance = by_chance(changes)
    if counts[Verdict.WORSE] and chance >= 1:
        text += (
            f" With so few rounds, up to {chance:.0f} may seem worse by chance alone: look whether "
            "the same do again, or give both runs more --rounds."
        )
    return text


def by_chance(changes: Iterable[Change]) -> float:
    """How many figures that did not change are to be expected to seem worse, at most.

    Of n rounds then and m now, in an order that only chance made, all of now are behind all of then
    in one of (n + m over m) orders. Of 3 and 3 that is 1 of 20, of 5 and 5 it is 1 of 252.
    """
    return sum(
        1 / math.comb(change.now.rounds + change.earlier.rounds, change.now.rounds)
        for change in changes
        if change.verdict is not Verdict.UNSURE
    )


def differences(now: Run, earlier: Run) -> Iterator[str]:
    """What differs between the runs besides flowstate: figures of different machines, versions or
    settings cannot tell what changed."""
    yield from _differ("the machine", _machine(now.machine), _machine(earlier.machine))
    yield from _differ("quick", now.effort.is_quick, earlier.effort.is_quick)
    for store in now.stores:
        for other in earlier.stores:
            if other.name == store.name:
                yield from _differ(f"{store.name}, durability", store.durability, other.durability)
                for name in sorted(store.facts.keys() | other.facts.keys()):
                    what = f"{store.name}, {name}"
                    yield from _differ(what, store.facts.get(name), other.facts.get(name))


def _differ(what: str, now: object, earlier: object) -> Iterator[str]:
    if now != earlier:
        yield f"{what}: {earlier} then, {now} now"


def _machine(machine: Machine) -> str:
    return f"{machine.cpu}, {machine.cores} cores, {machine.system}, {machine.python}"


def _changes(
    facts: WorkloadFacts, now: Measurement, earlier: Measurement, tolerance: float
) -> Iterator[Change]:
    limits = [measure for measure in facts.measures if measure.has_raw]
    for measure in facts.measures:
        after, before = now.summary(measure.name), earlier.summary(measure.name)
        if after is None or before is None:
            continue
        verdict = judge(after, before, measure.better, tolerance)
        if limits and verdict in {Verdict.WORSE, Verdict.BETTER}:
            limit = measure if measure.has_raw else limits[0]
            shares, shares_before = now.shares(measure, limit), earlier.shares(measure, limit)
            if shares and shares_before:
                relative = summarize(shares), summarize(shares_before)
                if judge(*relative, Better.HIGHER, tolerance) is not verdict:
                    verdict = Verdict.MACHINE
        yield Change(facts, now.value, now.store, measure, before, after, verdict)


def judge(now: Summary, earlier: Summary, better: Better, tolerance: float) -> Verdict:
    """Whether one figure has changed beyond the noise."""
    if min(now.rounds, earlier.rounds) < MIN_ROUNDS:
        return Verdict.UNSURE
    if abs(now.median - earlier.median) <= tolerance * abs(earlier.median):
        return Verdict.SAME
    if now.low > earlier.high:
        return Verdict.BETTER if better is Better.HIGHER else Verdict.WORSE
    if now.high < earlier.low:
        return Verdict.WORSE if better is Better.HIGHER else Verdict.BETTER
    return Verdict.SAME
