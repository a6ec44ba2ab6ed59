"""What authors of drivers import to prove them.

``DriverConformance`` is a suite to subclass: it proves every law of the driver contract against a
``Store``. ``DriverMachine`` compares a driver with a plain model through random operations.
``FaultDriver`` loses the answers to commits, on a plan that you give it; a driver of your own kind
around another one subclasses ``WrapperDriver``.

``VirtualClock`` is time that a test moves, with ``TimedDriver`` for drivers that work in threads;
``Transcript`` notes what happened and lets a test wait for it.
``flowstate.testing.simulation`` runs a whole cluster with faults from one seed, and
``flowstate.testing.history`` checks what such a run, or yours, left behind.

Needs pytest and hypothesis: ``pip install flowstate-kernel[testing]``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import DriverConformance
    from .faults import Fault, FaultDriver
    from .stateful import DriverMachine
    from .store import Store, StoredVersion
    from .transcript import Transcript
    from .virtual import TimedDriver, VirtualClock
    from .wrapper import WrapperDriver

__all__ = [
    "DriverConformance",
    "DriverMachine",
    "Fault",
    "FaultDriver",
    "Store",
    "StoredVersion",
    "TimedDriver",
    "Transcript",
    "VirtualClock",
    "WrapperDriver",
]

for _needed in ("pytest", "hypothesis"):
    if find_spec(_needed) is None:
        raise ImportError(
            f"flowstate.testing needs {_needed}: pip install 'flowstate-kernel[testing]'",
            name=_needed,
        )

if "pytest" in sys.modules:  # so that a law that does not hold shows the values
    sys.modules["pytest"].register_assert_rewrite(f"{__name__}.conformance", f"{__name__}.stateful")

# Loaded when first asked for: the processes that the suite starts need neither of the two.
_MODULES = {
    "DriverConformance": ".conformance",
    "DriverMachine": ".stateful",
    "Fault": ".faults",
    "FaultDriver": ".faults",
    "Store": ".store",
    "StoredVersion": ".store",
    "TimedDriver": ".virtual",
    "Transcript": ".transcript",
    "VirtualClock": ".virtual",
    "WrapperDriver": ".wrapper",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
