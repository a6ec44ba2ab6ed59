"""Taking the rounds: every case on every store in turn, so that all of them see the same machine.

A round is every case of every workload, each on one store after the other; which store is first
changes from round to round. A round that is cut short still leaves whole rounds behind it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import cast

import anyio
from attrs import define, field, frozen
from msgspec.structs import replace

from flowstate import Durability
from flowstate.drivers.loop import Loop

from .errors import BenchError
from .machine import machine
from .place import Place
from .results import Measurement, Round, Run, StoreFacts
from .sites import Site
from .values import Effort, Sample
from .workloads import Workload

MAX_MEASUREMENT_S = 300.0
"""Longer than that, a case is given up on a store."""
WARM_UP = Effort(rounds=1, seconds=0.02, states=100, is_quick=True)


@frozen
class Case:
    """A workload with one value of its parameter."""

    workload: Workload
    value: int


@frozen
class Step:
    """One case on one store in one round; round 0 warms up, and is not counted."""

    round: int
    case: Case
    store: str

    @property
    def key(self) -> tuple[str, int, str]:
        return self.case.workload.name, self.case.value, self.store


def schedule(
    workloads: Sequence[Workload], stores: Sequence[str], effort: Effort
) -> Iterator[Step]:
    """The steps of a run, in order."""
    for workload in workloads:
        smallest = Case(workload, min(workload.cases(effort)))
        yield from (Step(0, smallest, store) for store in stores if workload.is_warmed_up)
    for number in range(1, effort.rounds + 1):
        first = (number - 1) % len(stores)
        for workload in workloads:
            for value in workload.cases(effort) if number <= workload.rounds(effort) else ():
                for store in (*stores[first:], *stores[:first]):
                    yield Step(number, Case(workload, value), store)


@define
class Estimate:
    """How long what remains will take: as long as the last time, or as is guessed at first."""

    effort: Effort
    _took: dict[tuple[str, int, str], float] = field(factory=dict[tuple[str, int, str], float])

    def add(self, step: Step, took_s: float) -> None:
        if step.round:
            self._took[step.key] = took_s

    def seconds(self, step: Step) -> float:
        if not step.round:
            return 0.2
        guess = 1.6 * self.effort.seconds + step.case.workload.cost_s(step.case.value)
        return self._took.get(step.key, guess)


@define
class Progress:
    """Where a run is."""

    step: Step
    rounds: int
    done_s: float
    """How long the steps that are done were estimated to take."""
    left_s: float
    """How long the steps that remain are estimated to take, this one included."""


@define(eq=False)
class Runner:
    """Measures workloads on stores, by name. ``tell`` is called before every step.

    The sites are open. A case that fails on a store is left out there from then on, and says why.
    """

    sites: Mapping[str, Site]
    workloads: Sequence[Workload]
    effort: Effort
    tell: Callable[[Progress], None] = lambda _: None
    _rounds: dict[tuple[str, int, str], list[Round]] = field(
        factory=dict[tuple[str, int, str], list[Round]], init=False
    )
    _missing: dict[tuple[str, int, str], str] = field(
        factory=dict[tuple[str, int, str], str], init=False
    )
    _failed: set[tuple[str, int, str]] = field(factory=set[tuple[str, int, str]], init=False)
    _stores: list[StoreFacts] = field(factory=list[StoreFacts], init=False)
    _durabilities: dict[str, Durability] = field(factory=dict[str, Durability], init=False)
    _numbers: int = field(default=0, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _cancel: Callable[[], None] | None = field(default=None, init=False)
    """Ends the measurement that runs now."""

    def stop(self) -> None:
        """Have ``run`` end soon, and give what there is. May be called by a signal handler."""
        self._is_stopped = True
        cancel = self._cancel
        if cancel is not None:
            with suppress(RuntimeError):  # its event loop has just ended
                cancel()

    def run(self) -> Run:
        """All rounds. Raises ``FlowstateError`` if a store cannot be opened at all."""
        about = machine()
        began = datetime.now(UTC)
        start = time.perf_counter()
        for name, site in self.sites.items():
            self._stores.append(self._facts(name, site))
        self._steps()
        return Run(
            began=began.isoformat(timespec="seconds"),
            took_s=round(time.perf_counter() - start, 1),
            is_interrupted=self._is_stopped,
            effort=self.effort,
            machine=about,
            stores=tuple(self._stores),
            workloads=tuple(workload.facts(self.effort) for workload in self.workloads),
            measurements=tuple(self._measurements()),
        )

    def _steps(self) -> None:
        steps = list(schedule(self.workloads, list(self.sites), self.effort))
        estimate = Estimate(self.effort)
        done_s = 0.0
        for index, step in enumerate(steps):
            workload = step.case.workload
            if self._durabilities[step.store] < workload.needs:
                self._missing[step.key] = "needs a store that other processes can open"
            if step.key in self._missing:
                continue
            if self._is_stopped:
                break
            left_s = sum(estimate.seconds(later) for later in steps[index:])
            self.tell(Progress(step, self.effort.rounds, done_s, left_s))
            before = time.perf_counter()
            self._take(step)
            done_s += estimate.seconds(step)
            estimate.add(step, time.perf_counter() - before)

    def _take(self, step: Step) -> None:
        effort = self.effort if step.round else WARM_UP
        start = time.perf_counter()
        try:
            measured = self._measure(step, effort)
        except Exception as error:  # noqa: BLE001  (a store of others may fail in any way)
            if self._is_stopped:
                return
            when = f"in round {step.round}" if step.round else "while warming up"
            self._failed.add(step.key)
            self._missing[step.key] = f"failed {when}: {_message(error)}"
        else:
            if step.round and not self._is_stopped:
                made = replace(measured, took_s=round(time.perf_counter() - start, 3))
                self._rounds.setdefault(step.key, []).append(made)

    def _measure(self, step: Step, effort: Effort) -> Round:
        """The raw limit, and then the workload in a fresh store."""
        case, site = step.case, self.sites[step.store]
        workload = case.workload
        gc.collect()
        raw = workload.raw(site, case.value, effort) if workload.raw else None
        self._numbers += 1
        prefix = "" if site.is_fresh else f"{self._numbers}-"
        gc.collect()
        with site.fresh() as url:
            place = Place(site, url, effort, prefix)
            sample = anyio.run(self._bounded, workload, place, case.value)
        has_raw = {measure.name for measure in workload.measures if measure.has_raw}
        limits = raw.all_figures() if raw else {}
        return Round(
            number=step.round,
            figures=sample.all_figures(),
            raw={name: limit for name, limit in limits.items() if name in has_raw},
            quantiles=sample.distributions(),
        )

    async def _bounded(self, workload: Workload, place: Place, value: int) -> Sample:
        with anyio.move_on_after(MAX_MEASUREMENT_S) as scope:
            self._cancel = partial(Loop.current().soon_threadsafe, scope.cancel)
            if not self._is_stopped:
                return await workload.run(place, value)
        raise BenchError(f"took longer than {MAX_MEASUREMENT_S:g} s")

    def _facts(self, name: str, site: Site) -> StoreFacts:
        durability = self._durabilities[name] = site.durability()
        raw = site.raw
        return StoreFacts(
            name=name,
            url=site.shown,
            durability=durability.name,
            facts=site.facts(),
            raw=raw.about if raw else "",
            notes=site.notes(),
        )

    def _measurements(self) -> Iterator[Measurement]:
        for workload in self.workloads:
            for value in workload.cases(self.effort):
                for store in self.sites:
                    key = workload.name, value, store
                    rounds = self._rounds.get(key, [])
                    missing = self._missing.get(key, "")
                    if rounds or missing:
                        yield Measurement(
                            workload=workload.name,
                            value=value,
                            store=store,
                            rounds=tuple(rounds),
                            missing=missing,
                            has_failed=key in self._failed,
                        )


def _message(error: Exception) -> str:
    """What went wrong first, out of the groups that task groups make."""
    if isinstance(error, ExceptionGroup):
        return _message(cast("ExceptionGroup[Exception]", error).exceptions[0])
    return f"{type(error).__name__}: {error}"
