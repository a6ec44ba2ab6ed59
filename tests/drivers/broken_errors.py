"""Drivers that each break the law of errors; see ``broken.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field

from flowstate import Driver, FlowstateError, Plan, StoreError
from flowstate.drivers.plans import Outcome
from flowstate.drivers.sqlite import SQLiteDriver
from flowstate.drivers.sqlite.reader import Reader
from flowstate.drivers.sqlite.writer import Writer
from flowstate.testing.store import Faults

from .faulty_sqlite import NATIVES, FaultyFile
from .test_sqlite import SQLiteStore


class RaisesWhatItMeets(SQLiteDriver):
    """Raises whatever its library does, but for the errors that it knows."""

    def _own(self, error: Exception) -> FlowstateError:
        return error  # type: ignore[return-value]


class _KeptReader(Reader):
    @property
    def is_usable(self) -> bool:
        return True


class KeepsWhatFailed(SQLiteDriver):
    """Reads again on a connection that it left in the middle of a transaction."""

    def _open_reader(self) -> Reader:
        reader = super()._open_reader()
        return _KeptReader(reader.connection, reader.path)


class _WriterOfAll(Writer):
    def write(self, plans: Sequence[Plan]) -> Sequence[Outcome]:
        try:
            return self._transact(lambda: self._write(plans))
        except Exception as error:  # noqa: BLE001  (what it breaks)
            return [StoreError(self._name, str(error))] * len(plans)


class FailsTogether(SQLiteDriver):
    """Has all plans of a group fail with one of them."""

    def _open_writer(self) -> Writer:
        writer = super()._open_writer()
        return _WriterOfAll(writer.connection, writer.file, writer.clock, writer.identity)


@define
class FaultyStore(SQLiteStore):
    """A file that is opened by one of these."""

    kind: type[SQLiteDriver] = field(kw_only=True)
    made: Faults = field(factory=lambda: Faults(NATIVES), init=False)

    def driver(self) -> Driver:
        return self.kind(FaultyFile(str(self.path), faults=self.made))

    def faults(self) -> Faults:
        return self.made


CAUGHT_BY: dict[type[Any], str] = {
    RaisesWhatItMeets: "test_a_method_raises_only_errors_of_a_store",
    KeepsWhatFailed: "test_a_method_raises_only_errors_of_a_store",
    FailsTogether: "test_a_plan_that_fails_fails_alone",
}
