"""Reading on after what cannot be read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from attrs import define, field

from flowstate import State, Unreadable, UnreadableVersionError, Versions

from . import output


@define(eq=False)
class Readable:
    """Passes by the versions that cannot be read, and prints a line for each of them on stderr."""

    _told: set[int] = field(factory=set[int], init=False)
    """The revisions of those that were met."""

    @property
    def exit_code(self) -> int:
        """1 if there was one, so that who calls the command learns of it."""
        return 1 if self._told else 0

    async def of(self, versions: Versions) -> AsyncGenerator[State]:
        """Those versions that can be read."""
        while True:
            try:
                state = await anext(versions)
            except StopAsyncIteration:
                return
            except UnreadableVersionError as error:
                self.tell(error)
            else:
                yield state

    def pass_by(self, unreadable: Iterable[Unreadable]) -> None:
        """What a page could not read."""
        for version in unreadable:
            self.tell(version.error())

    def tell(self, error: UnreadableVersionError) -> None:
        if error.rev not in self._told:
            self._told.add(error.rev)
            output.warn(output.plain(str(error)))
