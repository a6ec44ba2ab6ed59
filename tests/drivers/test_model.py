"""The model keeps every law but that of cost: what breaks one over it breaks it by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowstate.testing import DriverConformance, DriverMachine, Store

from .model_driver import ModelStore


class TestModelDriver(DriverConformance):
    def new_store(self, tmp_path: Path) -> Store:  # noqa: ARG002  (it makes no file)
        return ModelStore()

    # slow and obvious: it looks at all there is to find anything
    test_cost_does_not_grow_with_the_history: Any = None
    test_cost_does_not_grow_with_what_has_lost_a_label: Any = None
    test_cost_does_not_grow_with_what_is_ready_and_taken: Any = None
    test_cost_of_a_claim_does_not_grow_with_flows_that_nothing_is_ready_for: Any = None
    test_cost_of_a_batch_does_not_grow_with_what_shares_a_payload: Any = None


class ModelMachine(DriverMachine):
    def new_store(self, path: Path) -> Store:  # noqa: ARG002
        return ModelStore()


TestModelMachine = ModelMachine.TestCase
