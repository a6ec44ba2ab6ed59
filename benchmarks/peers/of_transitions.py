"""transitions: a machine of two states in memory."""

from __future__ import annotations

from typing import Any

from transitions import Machine

from .peer import Steps


class Model:
    go: Any


def measure(steps: Steps, url: str, flows: int) -> None:
    """One machine after the other is not slower than many: *flows* is always 1."""
    model = Model()
    Machine(
        model,
        states=["there", "back"],
        transitions=[["go", "there", "back"], ["go", "back", "there"]],
        initial="there",
        auto_transitions=False,
    )
    steps.begin()
    going = True
    while going:
        model.go()
        going = steps.end(0)
