"""PostgreSQL whose statements fail when they are told to."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
from attrs import field, frozen
from psycopg import errors

from flowstate.drivers.postgres.arrays import register
from flowstate.drivers.postgres.connection import PREPARE_AFTER, Target
from flowstate.drivers.postgres.session import Connection
from flowstate.testing.store import Faults


class FaultyConnection(Connection):
    """A connection whose statements may fail, before they are sent."""

    faults: Faults | None = None

    def execute(self, query: Any, *parameters: Any, **options: Any) -> Any:
        if self.faults is not None:
            self.faults.meet(query, parameters)
        return super().execute(query, *parameters, **options)

    def rollback(self) -> None:
        if self.faults is not None:
            self.faults.meet("ROLLBACK")
        super().rollback()


NATIVES = (
    lambda: psycopg.OperationalError("server closed the connection unexpectedly"),
    errors.DiskFull,
    errors.ProgramLimitExceeded,
)


@frozen
class FaultyTarget(Target):
    """A store that is opened with such connections."""

    faults: Faults = field(factory=lambda: Faults(NATIVES))

    def connect(self, closing: threading.Event | None = None) -> Connection:
        self.faults.meet("open")
        connection = FaultyConnection.connect(
            **dict[str, Any](self.parameters), autocommit=True, prepare_threshold=PREPARE_AFTER
        )
        register(connection.adapters)
        connection.go_by(self.deadline, closing)
        connection.faults = self.faults
        return connection
