"""What people build on the kernel, each in one short test that can be read as an example.

Every scenario runs over every driver and on both event loops.
"""

from __future__ import annotations

from flowstate import Commit, Engine, Pause, State


async def next_millisecond(engine: Engine) -> State:
    """Commit until the store's clock has moved on; the last one committed is that much later."""
    (first,) = await engine.do(Commit(Pause(State("clock"))))
    state = first
    while state.committed_at == first.committed_at:
        (state,) = await engine.do(Commit(Pause(state)))
    return state
