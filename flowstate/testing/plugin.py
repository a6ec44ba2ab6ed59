"""A plugin of pytest for tests of flows. pytest loads it by itself.

``flowstate_driver`` is an open store, ``flowstate_engine`` an open engine on it with the flows of
``flowstate_flows``, and ``flowstate_recoverer`` works and recovers beside it. A test that asks for
``flowstate_virtual_clock`` has all of them on virtual time, which moves by itself as soon as
everything waits for it: a day of retries takes no longer than the work in it.
``flowstate_store_url``, ``flowstate_flows`` and ``flowstate_retry_policy`` are there to be
overridden. All names begin alike, so that they are nobody else's.

Tests and fixtures run on the event loops of anyio's plugin: mark tests with ``pytest.mark.anyio``.
``-p no:flowstate`` leaves all of this out.

Every pytest of an environment loads this module: it imports the kernel, and everything else only
when a test asks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeGuard

import pytest

from .. import Clock, Driver, Engine, Flows, RetryPolicy, SystemClock, connect

if TYPE_CHECKING:
    from ..recovery import Recoverer
    from .virtual import VirtualClock

TERM_S = 30 * 24 * 3600
"""The lease of the recoverer (s): no other one is there to take over, and virtual time has less to
do without renewals."""


@pytest.fixture
def flowstate_store_url() -> str:
    """The URL of an empty store for the states. Override it to test on another driver."""
    return "memory:"


@pytest.fixture
def flowstate_flows() -> Flows:
    """The flows of the engine. Override it with your flows, or add to it in a test."""
    return Flows()


@pytest.fixture
def flowstate_retry_policy() -> RetryPolicy:
    """The retry policy of states without one of their own. Override it to test with another."""
    return RetryPolicy()


@pytest.fixture
async def flowstate_clock(request: pytest.FixtureRequest) -> AsyncIterator[Clock]:
    """The clock of all fixtures: that of the system, or the virtual one if the test or one of its
    fixtures asks for it."""
    if "flowstate_virtual_clock" not in request.fixturenames:
        yield SystemClock()
        return
    from .virtual import VirtualClock  # noqa: PLC0415  (loaded when asked for)

    clock = VirtualClock()
    async with clock.running():
        yield clock


@pytest.fixture
def flowstate_virtual_clock(flowstate_clock: VirtualClock) -> VirtualClock:
    """Time that moves by itself whenever every task waits, to the next instant that a task waits
    for. It stands still while the store or a flow works in a thread."""
    return flowstate_clock


@pytest.fixture
async def flowstate_driver(
    flowstate_store_url: str, flowstate_clock: Clock
) -> AsyncIterator[Driver]:
    """An open store, at ``flowstate_store_url``."""
    made = connect(flowstate_store_url)
    if _is_virtual(flowstate_clock):
        from .virtual import TimedDriver  # noqa: PLC0415  (loaded when asked for)

        if hasattr(made, "clock"):  # a driver of a server has none: the server's is used
            setattr(made, "clock", flowstate_clock)  # noqa: B010  (no part of the contract)
        made = TimedDriver(made, flowstate_clock)
    async with made as opened:
        yield opened


@pytest.fixture
async def flowstate_engine(
    flowstate_driver: Driver,
    flowstate_flows: Flows,
    flowstate_retry_policy: RetryPolicy,
    flowstate_clock: Clock,
) -> AsyncIterator[Engine]:
    """An open engine without jitter; flows that still run when the test is over are cancelled."""
    made = Engine(
        flowstate_driver,
        flowstate_flows,
        retry=flowstate_retry_policy,
        clock=flowstate_clock,
        grace=0,
        chance=lambda: 0.0,
    )
    async with made as opened:
        if _is_virtual(flowstate_clock):
            flowstate_clock.stand_still_while(lambda: opened.threads.borrowed_tokens > 0)
        yield opened


@pytest.fixture
async def flowstate_recoverer(flowstate_engine: Engine) -> AsyncIterator[Recoverer]:
    """A recoverer beside the engine: what is ready runs, and delays, timeouts and retries fire."""
    from ..recovery import Recoverer  # noqa: PLC0415  (loaded when asked for)

    async with Recoverer(flowstate_engine, lease=TERM_S) as opened:
        yield opened


def _is_virtual(clock: Clock) -> TypeGuard[VirtualClock]:
    return hasattr(clock, "stand_still_while")  # the module of the class need not be loaded
