"""The machine: random operations, on the driver and on a plain model of a store.

``prove`` has pytest collect this module if it is to try random operations.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ..stateful import DriverMachine
from ..store import Store
from .session import SETUP


def test_a_driver_does_what_a_plain_model_does(request: pytest.FixtureRequest) -> None:
    """Operations on the driver, in any order, give what a list and some dictionaries give."""
    setup = request.config.stash[SETUP]

    class Machine(DriverMachine):
        def new_store(self, path: Path) -> Store:
            return setup.new_store(path)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=setup.examples,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
