"""What authors of drivers and of flows import to test them.

Drivers. ``DriverConformance`` is a suite to subclass: it proves every law of the driver contract
against a ``Store``. ``DriverMachine`` compares a driver with a plain model through random
operations. ``prove`` does both without a test file, and is what ``flowstate check`` calls.
``FaultDriver`` loses the answers to those commits that you name; another driver around a driver
subclasses ``WrapperDriver``.

Flows. ``flowstate.testing.plugin`` is a plugin, which pytest loads by itself, with the
fixtures ``driver``, ``engine``, ``recoverer`` and ``virtual_clock``. ``VirtualClock`` is time that
a test moves, with ``TimedDriver`` for drivers that work in threads; ``Transcript`` notes what
happens and lets a test wait for it. ``simulate`` runs a cluster with faults from one seed, over
the flows of a ``Scenario``; ``check`` judges the ``History`` of such a run, or of one of yours.

Needs pytest and hypothesis: ``pip install 'flowstate-kernel[testing]'``. Names are loaded when
they are first used, so that what needs neither of the two works without them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import DriverConformance
    from .faults import Fault, FaultDriver
    from .history import Acknowledged, History, Invariant, RecordingDriver, Seen, check
    from .proof import Failure, Judgement, Law, Listener, NoSuchLawError, Verdict, prove
    from .scenario import Scenario
    from .simulation import Outcome, simulate
    from .stateful import DriverMachine
    from .store import MakeStore, Store, StoredVersion
    from .stores import Ability, NoStoreError, NotNewError, UrlStores, stores_of
    from .transcript import Transcript
    from .virtual import TimedDriver, VirtualClock
    from .wrapper import WrapperDriver

__all__ = [
    "Ability",
    "Acknowledged",
    "DriverConformance",
    "DriverMachine",
    "Failure",
    "Fault",
    "FaultDriver",
    "History",
    "Invariant",
    "Judgement",
    "Law",
    "Listener",
    "MakeStore",
    "NoStoreError",
    "NoSuchLawError",
    "NotNewError",
    "Outcome",
    "RecordingDriver",
    "Scenario",
    "Seen",
    "Store",
    "StoredVersion",
    "TimedDriver",
    "Transcript",
    "UrlStores",
    "Verdict",
    "VirtualClock",
    "WrapperDriver",
    "check",
    "prove",
    "simulate",
    "stores_of",
]

_MODULES = {
    "conformance": ["DriverConformance"],
    "faults": ["Fault", "FaultDriver"],
    "history": ["Acknowledged", "History", "Invariant", "RecordingDriver", "Seen", "check"],
    "proof": ["Failure", "Judgement", "Law", "Listener", "NoSuchLawError", "Verdict", "prove"],
    "scenario": ["Scenario"],
    "simulation": ["Outcome", "simulate"],
    "stateful": ["DriverMachine"],
    "store": ["MakeStore", "Store", "StoredVersion"],
    "stores": ["Ability", "NoStoreError", "NotNewError", "UrlStores", "stores_of"],
    "transcript": ["Transcript"],
    "virtual": ["TimedDriver", "VirtualClock"],
    "wrapper": ["WrapperDriver"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_EXTRA = frozenset({"hypothesis", "pytest"})

if _pytest := sys.modules.get("pytest"):  # so that an assertion that fails shows the values
    _pytest.register_assert_rewrite(f"{__name__}.conformance", f"{__name__}.stateful")


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".{_MODULE_OF[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise ImportError(
            f"flowstate.testing needs {error.name}: pip install 'flowstate-kernel[testing]'",
            name=error.name,
        ) from error
    return getattr(module, name)
