"""Flows: the user's functions, by name."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol, Self, TypeVar, overload

import anyio
import anyio.to_thread
from attrs import define, field

from .checks import check_flow, check_whole
from .commands import Command
from .errors import FlowNotFoundError, InvalidValueError, shown
from .flow import Flow, Run
from .state import State

F = TypeVar("F", bound=Callable[[State, Any], Command[Any] | Awaitable[Command[Any]]])


class _Register(Protocol):
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  (a class is no flow function)
        self, function: type[F], /
    ) -> type[F]: ...
    @overload
    def __call__(self, function: F, /) -> Flow[F]: ...


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

        refund = flows.add("refund", Refund(gateway))
    """

    by_name: dict[str, Flow] = field(factory=dict[str, Flow], init=False)
    limits: dict[str, int] = field(factory=dict[str, int], init=False, repr=False)
    """name -> how many states of that flow this process runs at once; a flow that is not here has
    no limit."""

    @overload
    def flow(
        self, name: str = ..., /, *, inline: bool = ..., limit: int | None = ...
    ) -> _Register: ...
    @overload
    def flow(  # pyright: ignore[reportOverlappingOverload]  (a class is no flow function)
        self, function: type[F], /
    ) -> type[F]: ...
    @overload
    def flow(self, function: F, /) -> Flow[F]: ...

    def flow(self, function: Any = "", /, *, inline: bool = False, limit: int | None = None) -> Any:
        """Register a function under its own name, or under the given one, and give the flow.

        A class that is decorated stays the class: what ``add`` gives is the flow. *limit* is how
        many states of it this process runs at once, in whatever way: one that executes another of
        its own flow waits for room, so with a limit of 1 for ever.
        """
        if not isinstance(function, str):
            return self.flow(inline=inline, limit=limit)(function)

        def register(decorated: Any) -> Any:
            name = function or _name(decorated)
            flow = self.add(name, decorated, inline=inline, limit=limit)
            return decorated if inspect.isclass(decorated) else flow

        return register

    def add(
        self,
        name: str,
        function: type[F] | F,
        *,
        inline: bool = False,
        limit: int | None = None,
    ) -> Flow[F]:
        """Register *function* as flow *name*, and give the flow. A name is taken once."""
        name = check_flow("flow name", name)
        if limit is not None:
            limit = check_whole(f"flow {name!r}, limit", limit, 1)
        if name in self.by_name:
            raise InvalidValueError(
                f"flow {name!r}", f"is already registered, by {self.by_name[name].function!r}"
            )
        called = _called(function)
        if not callable(called):
            raise InvalidValueError(f"flow {name!r}", f"takes a callable, not {shown(called)}")
        _check_takes_two(name, called)
        flow = self.by_name[name] = Flow(name, called, _run(called, inline=inline))
        if limit is not None:
            self.limits[name] = limit
        return flow

    def include(self, other: Flows) -> Self:
        """Register every flow of *other* here too."""
        for flow in other:
            if flow.name in self.by_name:
                raise InvalidValueError(f"flow {flow.name!r}", "is in both")
            self.by_name[flow.name] = flow
        self.limits.update(other.limits)
        return self

    def __getitem__(self, name: str) -> Flow:
        try:
            return self.by_name[name]
        except KeyError:
            raise FlowNotFoundError(name, tuple(self.by_name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)


def _check_takes_two(name: str, function: Callable[..., Any]) -> None:
    """Refuse what cannot be called with a state and an engine: each attempt would be in vain."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # it does not say; some that are written in C do not
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise InvalidValueError(
            f"flow {name!r}",
            f"is called with a state and the engine, and {shown(function)} does not take them "
            f"({error}); write it as f(state, engine)",
        ) from None


def _name(function: Any) -> str:
    name = getattr(function, "__name__", "")
    if not name:
        raise InvalidValueError("flow", f"{function!r} has no name; use flows.add(name, flow)")
    return str(name)


def _called(function: Any) -> Any:
    """What a flow calls: an object of a class, the function of another flow."""
    if isinstance(function, Flow):
        return function.function  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return function() if inspect.isclass(function) else function


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
