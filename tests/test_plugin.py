"""The plugin of pytest: its fixtures, as somebody uses them who tests flows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flowstate import (
    Command,
    Commit,
    Delay,
    Driver,
    End,
    Engine,
    Flows,
    RetryPolicy,
    State,
    Status,
    SystemClock,
    Transit,
)
from flowstate.recovery import Recoverer
from flowstate.testing import VirtualClock
from flowstate.testing.plugin import engine as engine  # noqa: PLC0414  (not that of these tests)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory:", "sqlite:///{tmp}/store.db"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url: str = request.param
    return url.format(tmp=tmp_path)


@pytest.fixture
def retry_policy() -> RetryPolicy:
    return RetryPolicy(backoff=3600, max_backoff=3600, max_attempts=25)


@pytest.fixture
def flows() -> Flows:
    flows = Flows()

    @flows.flow
    async def charge(state: State, engine: Engine) -> Command:
        return Commit(End(state, reason="charged"))

    @flows.flow
    async def fails(state: State, engine: Engine) -> Command:
        raise OSError("still down")

    @flows.flow
    def work(state: State, engine: Engine) -> Command:
        time.sleep(0.02)  # in a thread, where virtual time does not see that something goes on
        return Commit(Delay(state, "charge", after=60))

    return flows


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_store_and_an_engine_of_its_own(
    engine: Engine, driver: Driver, turn: int
) -> None:
    """With the flows, at the URL and by the policy that were overridden."""
    assert engine.driver is driver
    assert await driver.head() == 0
    (order,) = await engine.do(Commit(Transit(State("order-1"), "charge")))
    assert (await engine.execute(order)).transition.reason == "charged"
    assert engine.retry.max_attempts == 25


async def test_time_is_real_unless_it_is_asked_for(engine: Engine) -> None:
    """A test without ``virtual_clock`` runs by the system's clock."""
    assert isinstance(engine.clock, SystemClock)


async def test_a_day_of_retries_takes_no_day(
    engine: Engine, recoverer: Recoverer, virtual_clock: VirtualClock
) -> None:
    """Virtual time moves by itself, to the millisecond."""
    began = virtual_clock.now()
    (order,) = await engine.do(Commit(Transit(State("order-1"), "fails")))
    await engine.start(order)
    order = await engine.wait("order-1", Status.FAILED)
    assert order.transition.reason == "gave up after 25 attempts: OSError: still down"
    assert order.committed_at - began == 24 * 3_600_000
    assert recoverer.stats().fired == 24


async def test_virtual_time_stands_still_while_a_thread_works(
    virtual_clock: VirtualClock, recoverer: Recoverer, engine: Engine
) -> None:
    """Flows in threads and stores in threads do not run into their timeouts."""
    began = virtual_clock.now()
    new = Transit(State("order-1"), "work", timeout=1, on_timeout="charge")
    (order,) = await engine.do(Commit(new))
    order = await engine.execute(order)
    assert (order.transition.status, order.committed_at) == (Status.DELAYED, began)
    order = await engine.wait("order-1", Status.ENDED)
    assert order.committed_at == began + 60_000


# ---------------------------------------------------------------- in a pytest of its own

TESTS = """
import pytest

pytestmark = pytest.mark.anyio

async def test_it(engine):
    assert await engine.timers.head() == 0
"""


def test_it_is_there_without_being_asked_for(pytester: pytest.Pytester) -> None:
    """Also where the extra is not installed, and without a warning. It loads the kernel, and
    nothing else that a test may do without."""
    pytester.makepyfile(test_it=TESTS)
    program = pytester.makepyfile(
        program="""
        import sys

        class Missing:
            def find_spec(name, path=None, target=None):
                if name.partition(".")[0] in {"hypothesis", "trio"}:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing)
        import pytest

        class Look:
            def pytest_collection(self):
                loaded = {name for name in sys.modules if name.startswith("flowstate.testing.")}
                assert loaded == {"flowstate.testing.plugin"}
                assert not {"flowstate.recovery", "sqlite3"} & set(sys.modules)

        without = ["-pno:hypothesispytest", "-pno:benchmark", "-pno:cacheprovider"]
        sys.exit(pytest.main(["-Werror", *without, "test_it.py"], plugins=[Look()]))
        """
    )
    pytester.runpython(program).assert_outcomes(passed=1)


def test_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    """``-p no:flowstate``: then its names are free for others."""
    pytester.makepyfile(TESTS)
    ran = pytester.runpytest_subprocess("-Werror", "-pno:cacheprovider", "-pno:flowstate")
    ran.assert_outcomes(errors=2)
    ran.stdout.fnmatch_lines(["*fixture 'engine' not found*"])
