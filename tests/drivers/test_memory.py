"""The memory driver keeps every law."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field

from flowstate import Driver
from flowstate.drivers.memory import MemoryDriver
from flowstate.testing import DriverConformance, DriverMachine, Store, StoredVersion


@define
class MemoryStore(Store):
    """The one driver is the store, and shows what lies in it."""

    memory: MemoryDriver = field(factory=MemoryDriver)

    def driver(self) -> Driver:
        return self.memory

    def raw_versions(self) -> list[StoredVersion]:
        return [
            StoredVersion(state.rev, state.id, commit_id)
            for state, commit_id in self.memory.stored()
        ]

    def raw_payloads(self) -> list[tuple[int, str]]:
        return list(self.memory.stored_payloads())


class TestMemoryDriver(DriverConformance):
    def new_store(self, tmp_path: Path) -> Store:  # noqa: ARG002  (it makes no file)
        return MemoryStore()


class MemoryMachine(DriverMachine):
    def new_store(self, path: Path) -> Store:  # noqa: ARG002
        return MemoryStore()


TestMemoryMachine = MemoryMachine.TestCase
