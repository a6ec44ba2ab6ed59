"""The conformance suite over the stores that ``prove`` was given, for pytest to collect."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conformance import DriverConformance
from ..store import Store
from .session import BACKENDS, SETUP


class TestDriver(DriverConformance):
    @pytest.fixture(params=BACKENDS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """A parameter of the class, so that a law is proved on all loops before the next law."""
        backend: str = request.param
        return backend

    @pytest.fixture(autouse=True)
    def _setup(self, request: pytest.FixtureRequest) -> None:
        self._made = request.config.stash[SETUP]
        self.patience_s = self._made.patience_s  # type: ignore[misc]  # a class variable, set for this run

    def new_store(self, tmp_path: Path) -> Store:
        return self._made.new_store(tmp_path)
