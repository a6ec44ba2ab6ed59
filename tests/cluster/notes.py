"""What the processes of a load and the one that judges them have in common."""

from __future__ import annotations

from struct import Struct

import msgspec

from flowstate import State
from flowstate.plan import Plan
from flowstate.testing.history import Acknowledged, Seen

ACCOUNTS = tuple(f"account/{number}" for number in range(8))
OPENING = 100
"""What each of them has in the beginning."""
TIMES = Struct("<dd")
"""When a commit began, and when its outcome was there: by the clock that all processes share."""


class Notes(msgspec.Struct, frozen=True):
    """What one process tried, was told, and saw; and each error that its user would have seen."""

    plans: list[Plan]
    acknowledged: list[Acknowledged]
    seen: Seen
    errors: list[str]


def opened(account: str) -> State:
    return State(account, annotations={"has": str(OPENING), "by": "0", "move": ""})
