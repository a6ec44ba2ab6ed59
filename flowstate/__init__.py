"""flowstate: the smallest durable kernel for workflows, state machines, sagas, queues and actors.

A flow is a function that takes a state and returns a command; an engine does the command and
commits the resulting state through a driver, which keeps every version in one ordered log.
"""

# first: Ctrl-C may come while the rest is imported
from . import interrupt  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
from .clock import Clock, SystemClock
from .commands import (
    AnyCommand,
    Command,
    Commit,
    Delay,
    End,
    Execute,
    Fail,
    Noop,
    Pause,
    Require,
    Resume,
    Retry,
    Save,
    Transit,
)
from .compaction import CompactionRun
from .data import Data, DataRef
from .driver import Driver, Durability
from .drivers import connect
from .engine import Engine
from .errors import (
    CommitIdReusedError,
    CompactedError,
    DataForgottenError,
    DataNotFoundError,
    DecodeError,
    EncodeError,
    EngineClosedError,
    FlowNotFoundError,
    FlowReturnError,
    FlowstateError,
    IllegalTransitionError,
    InvalidValueError,
    RevMismatchError,
    SchemaVersionError,
    StateNotFoundError,
    StoreBusyError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreOpenError,
    StoreReadOnlyError,
    StoreUnreachableError,
    StoreUrlError,
    TooLargeError,
    UnknownOutcomeError,
    UnreadableVersionError,
)
from .flow import Flow
from .flows import Flows
from .forgetting import Forgotten
from .leases import Due, DuePage
from .plan import Plan, Write
from .query import Page, Query, Unreadable
from .retention import Compaction, Retention
from .schema import state_schema
from .state import Alarm, Cause, RetryPolicy, State, Status, Transition
from .timers import Timers
from .watch import Versions, Watcher

__all__ = [
    "Alarm",
    "AnyCommand",
    "Cause",
    "Clock",
    "Command",
    "Commit",
    "CommitIdReusedError",
    "CompactedError",
    "Compaction",
    "CompactionRun",
    "Data",
    "DataForgottenError",
    "DataNotFoundError",
    "DataRef",
    "DecodeError",
    "Delay",
    "Driver",
    "Due",
    "DuePage",
    "Durability",
    "EncodeError",
    "End",
    "Engine",
    "EngineClosedError",
    "Execute",
    "Fail",
    "Flow",
    "FlowNotFoundError",
    "FlowReturnError",
    "Flows",
    "FlowstateError",
    "Forgotten",
    "IllegalTransitionError",
    "InvalidValueError",
    "Noop",
    "Page",
    "Pause",
    "Plan",
    "Query",
    "Require",
    "Resume",
    "Retention",
    "Retry",
    "RetryPolicy",
    "RevMismatchError",
    "Save",
    "SchemaVersionError",
    "State",
    "StateNotFoundError",
    "Status",
    "StoreBusyError",
    "StoreClosedError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreOpenError",
    "StoreReadOnlyError",
    "StoreUnreachableError",
    "StoreUrlError",
    "SystemClock",
    "Timers",
    "TooLargeError",
    "Transit",
    "Transition",
    "UnknownOutcomeError",
    "Unreadable",
    "UnreadableVersionError",
    "Versions",
    "Watcher",
    "Write",
    "connect",
    "state_schema",
]
