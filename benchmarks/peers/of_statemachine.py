"""python-statemachine: a machine of two states in memory."""

from __future__ import annotations

from statemachine import State, StateMachine

from .peer import Steps


class Trips(StateMachine):
    there = State(initial=True)
    back = State()
    go = there.to(back) | back.to(there)


def measure(steps: Steps, url: str, flows: int) -> None:
    """*flows* is always 1."""
    machine = Trips()
    steps.begin()
    going = True
    while going:
        machine.go()
        going = steps.end(0)
