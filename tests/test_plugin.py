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

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory:", "sqlite:///{tmp}/store.db"])
def flowstate_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url: str = request.param
    return url.format(tmp=tmp_path)


@pytest.fixture
def flowstate_retry_policy() -> RetryPolicy:
    return RetryPolicy(backoff=3600, max_backoff=3600, max_attempts=25)


@pytest.fixture
def flowstate_flows() -> Flows:
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
    flowstate_engine: Engine, flowstate_driver: Driver, turn: int
) -> None:
    """With the flows, at the URL and by the policy that were overridden."""
    assert flowstate_engine.driver is flowstate_driver
    assert await flowstate_driver.head() == 0
    order = await flowstate_engine.execute(Commit(Transit(State("order-1"), "charge")))
    assert order.transition.reason == "charged"
    assert flowstate_engine.retry.max_attempts == 25


async def test_time_is_real_unless_it_is_asked_for(flowstate_engine: Engine) -> None:
    """A test without ``flowstate_virtual_clock`` runs by the system's clock."""
    assert isinstance(flowstate_engine.clock, SystemClock)


async def test_what_is_ready_is_run_by_the_recoverer_and_by_nothing_else(
    flowstate_engine: Engine, flowstate_driver: Driver
) -> None:
    """An engine without it records what ``do`` is given, and leaves it ready."""
    await flowstate_engine.do(Commit(Transit(State("order-1"), "charge")))
    assert list(await flowstate_driver.line()) == ["charge"]
    async with Recoverer(flowstate_engine):
        order = await flowstate_engine.wait("order-1")
    assert order.transition.reason == "charged"


async def test_a_recorded_order_is_run(
    flowstate_engine: Engine, flowstate_recoverer: Recoverer
) -> None:
    """``flowstate_recoverer`` works: what ``do`` leaves ready needs no ``execute``."""
    await flowstate_engine.do(Commit(Transit(State("order-1"), "charge")))
    assert (await flowstate_engine.wait("order-1")).transition.reason == "charged"
    assert flowstate_recoverer.stats().claimed == 1


async def test_a_day_of_retries_takes_no_day(
    flowstate_engine: Engine,
    flowstate_recoverer: Recoverer,
    flowstate_virtual_clock: VirtualClock,
) -> None:
    """Virtual time moves by itself, to the millisecond."""
    began = flowstate_virtual_clock.now()
    await flowstate_engine.start(Commit(Transit(State("order-1"), "fails")))
    order = await flowstate_engine.wait("order-1", Status.FAILED)
    assert order.transition.reason == "gave up after 25 attempts: OSError: still down"
    assert 24 * 3_600_000 <= order.committed_at - began < 24 * 3_600_000 + 1_000
    assert flowstate_recoverer.stats().fired == 24


async def test_virtual_time_stands_still_while_a_thread_works(
    flowstate_virtual_clock: VirtualClock,
    flowstate_recoverer: Recoverer,
    flowstate_engine: Engine,
) -> None:
    """Flows in threads and stores in threads do not run into their timeouts."""
    began = flowstate_virtual_clock.now()
    new = Transit(State("order-1"), "work", timeout=1, on_timeout="charge")
    order = await flowstate_engine.execute(Commit(new))
    assert (order.transition.status, order.committed_at) == (Status.DELAYED, began)
    order = await flowstate_engine.wait("order-1", Status.ENDED)
    assert 0 <= order.committed_at - began - 60_000 < 1_000


# ---------------------------------------------------------------- in a pytest of its own

TESTS = """
import pytest

pytestmark = pytest.mark.anyio

async def test_it(flowstate_engine):
    assert await flowstate_engine.timers.head() == 0
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
    ran.stdout.fnmatch_lines(["*fixture 'flowstate_engine' not found*"])


def test_its_names_are_nobody_elses(pytester: pytest.Pytester) -> None:
    """``driver``, ``engine`` and ``flows`` are those of other plugins: all of its own begin
    alike."""
    listed = pytester.runpytest_subprocess("--fixtures", "-v", "-pno:cacheprovider", "-q")
    section = listed.stdout.str().partition("fixtures defined from flowstate.testing.plugin")[2]
    section = section.partition("fixtures defined from")[0]
    names = [line.split()[0] for line in section.splitlines() if " -- " in line]
    assert len(names) == 8
    assert [name for name in names if not name.startswith("flowstate_")] == []
