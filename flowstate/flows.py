"""Flows: the user's functions, by name."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self, TypeAlias, TypeVar, cast, overload

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from .checks import check_flow
from .commands import Command
from .errors import FlowNotFoundError, InvalidValueError
from .state import State

Run: TypeAlias = Callable[[State, Any], Awaitable[Command[Any]]]
"""Takes a state and the engine that runs it."""
FlowFunction: TypeAlias = Run | Callable[[State, Any], Command[Any]]
F = TypeVar("F", bound=Callable[..., Any])


@frozen(eq=False)
class Flow:
    """A named flow. ``await flow.run(state, engine)`` calls it, wherever it runs."""

    name: str
    function: FlowFunction
    run: Run = field(repr=False)


@define(eq=False)
class Flows:
    """The flows that a process has, by name.

    An ``async def`` flow runs on the event loop. A plain ``def`` flow runs in a worker thread, or
    on the loop with ``inline=True``, for flows that only compute. A flow may also be an object
    with ``__call__``, or a class whose objects have one::

        flows = Flows()

        @flows.flow
        async def charge(state, engine): ...

        @flows.flow("ship-it")
        def ship(state, engine): ...

        flows.add("refund", Refund(gateway))
    """

    _flows: dict[str, Flow] = field(factory=dict[str, Flow])
    runs: dict[str, Run] = field(factory=dict[str, Run], init=False, repr=False)
    """name -> run: what the engine looks a flow up in, once a step."""
    limits: dict[str, int] = field(factory=dict[str, int], init=False, repr=False)
    """name -> how many states of a flow this process runs at once, if that is limited."""

    @overload
    def flow(self, function: F, /) -> F: ...
    @overload
    def flow(self, name: str = ..., /, *, inline: bool = ...) -> Callable[[F], F]: ...

    def flow(self, function: Any = "", /, *, inline: bool = False) -> Any:
        """Register a flow under its own name, or under the given one."""
        if not isinstance(function, str):
            self.add(_name(function), function)
            return function

        def register(decorated: Any) -> Any:
            self.add(function or _name(decorated), decorated, inline=inline)
            return decorated

        return register

    def add(self, name: str, function: Any, *, inline: bool = False) -> Flow:
        """Register *function* as flow *name*. A name is taken once."""
        name = check_flow("flow name", name)
        if name in self._flows:
            raise InvalidValueError(
                f"flow {name!r}", f"is already registered, by {self._flows[name].function!r}"
            )
        if inspect.isclass(function):
            function = function()
        if not callable(function):
            raise InvalidValueError(f"flow {name!r}", f"takes a callable, not {function!r}")
        flow = Flow(name, cast("FlowFunction", function), _run(function, inline=inline))
        self._flows[name] = flow
        self.runs[name] = flow.run
        return flow

    def include(self, other: Flows) -> Self:
        """Register every flow of *other* here too."""
        for flow in other:
            if flow.name in self._flows:
                raise InvalidValueError(f"flow {flow.name!r}", "is in both")
            self._flows[flow.name] = flow
            self.runs[flow.name] = flow.run
        return self

    def __getitem__(self, name: str) -> Flow:
        try:
            return self._flows[name]
        except KeyError:
            raise FlowNotFoundError(name, tuple(self._flows)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._flows

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._flows.values())

    def __len__(self) -> int:
        return len(self._flows)


def _name(function: Any) -> str:
    name = getattr(function, "__name__", "")
    if not name:
        raise InvalidValueError("flow", f"{function!r} has no name; use flows.add(name, flow)")
    return str(name)


def _run(function: Any, *, inline: bool) -> Run:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (the method itself is wanted)
    ):
        run: Run = function
        return run

    if inline:

        async def run_inline(state: State, engine: Any) -> Command[Any]:
            command: Command[Any] = function(state, engine)
            return command

        return run_inline

    async def run_in_thread(state: State, engine: Any) -> Command[Any]:
        # abandoned, not awaited, on cancellation: a thread cannot be stopped, and what it returns
        # no longer counts
        return await anyio.to_thread.run_sync(
            function, state, engine, abandon_on_cancel=True, limiter=engine.threads
        )

    return run_in_thread
