"""Cron: a state that sleeps until its next time, for ever or for a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flowstate import Command, Commit, Delay, Driver, End, Engine, Flows, State, Status
from flowstate.testing.virtual import VirtualClock
from tests.helpers import to_datetime

from . import recovering

pytestmark = pytest.mark.anyio


async def test_every_second_for_five_seconds(store: Driver, clock: VirtualClock) -> None:
    """The next time is counted from the last one that was meant, so it does not drift."""
    ran: list[int] = []
    flows = Flows()

    @flows.flow
    async def tick(state: State, engine: Engine) -> Command:
        ran.append(engine.clock.now())
        meant = int(state.annotations["meant"])
        if len(ran) == 5:
            return Commit(End(state))
        meant += 1_000
        return Commit(Delay(state.with_annotations(meant=str(meant)), at=meant))

    async with clock.running(), recovering(store, flows, clock) as engine:
        first = clock.now() + 1_000
        cron = State("cron", annotations={"meant": str(first)})
        await engine.do(Commit(Delay(cron, "tick", at=first)))
        await engine.wait("cron", Status.ENDED)

    late = [at - first - 1_000 * number for number, at in enumerate(ran)]
    assert len(late) == 5
    assert all(0 <= ms < 1_000 for ms in late)


def next_working_morning(after: datetime) -> datetime:
    """Nine o'clock on the next day that is neither Saturday nor Sunday."""
    morning = after.replace(hour=9, minute=0, second=0, microsecond=0)
    while morning <= after or morning.weekday() >= 5:
        morning += timedelta(days=1)
    return morning


async def test_a_calendar_that_skips_the_weekend(store: Driver, clock: VirtualClock) -> None:
    days: list[str] = []
    flows = Flows()

    @flows.flow
    async def report(state: State, engine: Engine) -> Command:
        now = to_datetime(engine.clock.now())
        days.append(f"{now:%a %H:%M}")
        if len(days) == 7:
            return Commit(End(state))
        return Commit(Delay(state, at=next_working_morning(now)))

    async with clock.running(), recovering(store, flows, clock) as engine:
        thursday = datetime(2023, 11, 16, 9, tzinfo=UTC)  # two days from where the clock begins
        await engine.do(Commit(Delay(State("report"), "report", at=thursday)))
        await engine.wait("report", Status.ENDED)
    assert [day.removesuffix(" 09:00") for day in days] == [
        "Thu", "Fri", "Mon", "Tue", "Wed", "Thu", "Fri",
    ]  # fmt: skip
