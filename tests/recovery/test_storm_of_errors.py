"""Whatever the statements of a store raise: engine, keeper, worker and recoverer live, and in the
end all work is done."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from flowstate import Commit, End, Engine, Flows, RetryPolicy, State, Status, Transit
from flowstate.drivers.sqlite import SQLiteDriver
from flowstate.recovery import Recoverer
from flowstate.testing.store import Faults

from ..drivers.faulty_sqlite import NATIVES, FaultyFile

pytestmark = pytest.mark.anyio

JOBS = 30
POLICY = RetryPolicy(lease=1, max_attempts=None, backoff=0.01, max_backoff=0.1)


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_errors_ends_nothing(tmp_path: Path, seed: int) -> None:
    flows = Flows()

    @flows.flow
    async def first(state: State, engine: Engine) -> Commit:
        await anyio.sleep(0.01)
        return Commit(Transit(state.attach("done", 1), second))

    @flows.flow
    async def second(state: State, engine: Engine) -> Commit:
        await engine.data(state, "done")
        return Commit(End(state))

    chance = random.Random(seed)
    kinds = [*NATIVES, lambda: TypeError("a page is damaged"), RecursionError, KeyError]
    faults = Faults(NATIVES)
    driver = SQLiteDriver(FaultyFile(str(tmp_path / "store.db"), faults=faults))
    failed = 0
    async with driver, Engine(driver, flows, retry=POLICY) as engine, Recoverer(engine):
        for n in range(JOBS):
            await engine.do(Commit(Transit(State(f"{n}"), first)))
            if n % 3 == 0:
                make = chance.choice(kinds)
                faults.begin(make, after=chance.randrange(20), times=chance.randrange(1, 4))
                await anyio.sleep(0.03)
                faults.end()
                failed += faults.failed
        assert failed
        with anyio.fail_after(60):
            for n in range(JOBS):
                await engine.wait(f"{n}", Status.ENDED)
        held = [each.id for each in await driver.holdings()]
        assert [] == [id for id in held if not id.startswith("flowstate.")]
