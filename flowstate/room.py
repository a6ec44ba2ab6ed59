"""Room: how many states an engine runs at once, in all and of each flow that has a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import anyio
from attrs import define, field


@define(eq=False)
class Room:
    """The places of an engine, for what it runs in the background. ``limits`` bounds how many
    states of a flow run, also in the foreground."""

    size: int
    limits: Mapping[str, int]
    """flow -> how many; a flow that is not here has no limit."""
    held: Collection[str] = ()
    """The flows that nobody is to begin with, as far as is known here."""
    free: int = field(init=False)
    _running: Counter[str] = field(factory=Counter[str], init=False)
    """flow with a limit -> states of it that run."""
    _was_refused: bool = field(default=False, init=False)
    """Whether there was no room for something since places were last reserved."""
    _freed: anyio.Event | None = field(default=None, init=False)
    """There is one only while somebody waits for room."""

    def __attrs_post_init__(self) -> None:
        self.free = self.size

    def take(self, flow: str) -> bool:
        """Take a place for a state at that flow, if there is one."""
        if not self.free or not self.enter(flow):
            self._was_refused = True
            return False
        self.free -= 1
        return True

    def give_back(self, flow: str) -> None:
        """Give back the place of a state that is at that flow."""
        self.free += 1
        self.leave(flow)
        self._tell()

    def enter(self, flow: str) -> bool:
        """Count one more state of that flow, if it is not held and its limit has room."""
        if flow in self.held:
            return False
        limit = self.limits.get(flow)
        if limit is not None:
            if self._running[flow] >= limit:
                self._was_refused = True
                return False
            self._running[flow] += 1
        return True

    def leave(self, flow: str) -> None:
        """Count one state less of that flow."""
        if flow in self.limits:
            self._running[flow] -= 1
            self._tell()

    def of(self, flows: Iterable[str], most: int) -> dict[str, int]:
        """How many more states of each of these flows may run, *most* in all; without those that
        have no room."""
        most = min(most, self.free)
        room = {flow: min(most, self._left(flow, most)) for flow in flows if flow not in self.held}
        return {flow: left for flow, left in room.items() if left > 0}

    def reserve(self, room: Mapping[str, int], most: int) -> tuple[dict[str, int], int]:
        """Take places for what is to be claimed, *most* in all and of each flow as *room* says; as
        far as there are any."""
        self._was_refused = False
        places = min(most, self.free)
        self.free -= places
        reserved = {flow: min(count, self._left(flow, places)) for flow, count in room.items()}
        for flow in self.limits.keys() & reserved.keys():
            self._running[flow] += reserved[flow]
        return reserved, places

    def settle(self, reserved: Mapping[str, int], places: int, flows: Sequence[str]) -> None:
        """Give back what was reserved, except for the states at these flows."""
        used = Counter(flows)
        self.free += places - len(flows)
        for flow in self.limits.keys() & reserved.keys():
            self._running[flow] -= reserved[flow] - used[flow]
        if self._was_refused:  # somebody who could have had a place meanwhile
            self._tell()

    def hold(self, flows: Collection[str]) -> None:
        """Begin with these flows no more, and with all others again."""
        was_held, self.held = self.held, flows
        if any(flow not in flows for flow in was_held):
            self._tell()

    async def freed(self) -> None:
        """Return when there is more room than now."""
        if self._freed is None:
            self._freed = anyio.Event()
        await self._freed.wait()

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs in the background."""
        return self.free == self.size

    def _left(self, flow: str, most: int) -> int:
        limit = self.limits.get(flow)
        return most if limit is None else limit - self._running[flow]

    def _tell(self) -> None:
        if self._freed is not None:
            self._freed.set()
            self._freed = None
