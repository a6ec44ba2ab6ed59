"""A flow: a function that knows its name, and may be given wherever that name is."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias

from attrs import define, field

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    F = TypeVar("F", default=Any)
else:
    from typing import TypeVar

    F = TypeVar("F")
N = TypeVar("N")

Run: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
"""Takes a state and the engine that runs it, and gives a command."""


@define(eq=False, slots=False)
class Flow(Generic[F]):
    """A function under the name that it has among the flows. Calling it calls the function.

    ``await flow.run(state, engine)`` calls it too, in a thread if that is where it runs.
    """

    name: str
    function: F
    run: Run = field(repr=False)

    def __attrs_post_init__(self) -> None:
        functools.update_wrapper(self, self.function, updated=())  # type: ignore[arg-type]

    if TYPE_CHECKING:
        __call__: F = field(init=False)
    else:

        def __call__(self, *args, **kwargs):
            return self.function(*args, **kwargs)


if TYPE_CHECKING:

    class FlowName(Generic[N]):
        """A field that is given a flow or its name, and holds the name."""

        def __get__(self, instance: object, owner: object) -> N: ...
        def __set__(self, instance: object, value: N | Flow) -> None: ...

else:
    FlowName = Annotated[N, "is given a flow or its name, and holds the name"]

NO_FLOW: Any = ""
SAME_FLOW: Any = None
"""Defaults of such fields: no flow, and the one that the state is at."""
