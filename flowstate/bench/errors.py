"""What can go wrong with measuring."""

from __future__ import annotations

from flowstate import FlowstateError


class BenchError(FlowstateError):
    """A store that may not be measured, a run that cannot be read, a measurement that failed."""
