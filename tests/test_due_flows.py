"""`due_flows`: whoever asks whether all is well need not know the flows."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowstate import Commit, Delay, Driver, End, Engine, Pause, State, Transit, connect

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{}/store.db"])
async def test_the_flows_are_those_of_current_alarms_and_leases(url: str, tmp_path: Path) -> None:
    async with connect(url.format(tmp_path)) as driver, Engine(driver) as engine:
        assert await engine.timers.due_flows() == ()
        (moved,) = await engine.do(Commit(Delay(State("a"), "before", after=3600)))
        await engine.do(
            Commit(
                Delay(moved, "wake", after=3600),
                Delay(State("b"), "wake", after=0),
                Transit(State("c"), "run"),
                Pause(State("d"), "answer", timeout=5, on_timeout="late"),
                Pause(State("e"), "never"),
                End(State("f")),
            )
        )
        assert await engine.timers.due_flows() == ("late", "run", "wake")
        # the contract's own, for drivers without an index
        assert await Driver.due_flows(driver) == ("late", "run", "wake")
