"""Reading the log: pages, watchers, and the one tail that feeds them.

A watcher is a cursor, nothing else: it holds no task and no subscription, so one that is dropped
half-way leaks nothing, and a slow one slows only itself. Near the head it is served from the
tail's buffer; further behind it reads pages from the driver, at its own pace. What this engine
itself commits while a watcher waits goes into the buffer without a read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from attrs import define, field
from msgspec.structs import replace

from .driver import Driver
from .errors import CompactedError
from .plan import Plan
from .query import Left, Page, Query, Unreadable
from .state import State

_EVERYTHING = Query()
_EVERYTHING_LEFT = Query(leaving=True)


@define(eq=False)
class Tail:
    """The newest versions of the log, read once for all watchers of an engine.

    Whoever waits first reads for everybody. ``listeners`` are those of the engine's committer: the
    tail is among them while somebody waits. ``size`` bounds the buffer, ``page_size`` a read; both
    in versions.
    """

    driver: Driver
    listeners: list[Callable[[Plan, tuple[State, ...]], None]] = field(repr=False)
    noticed: Callable[[Sequence[State | Unreadable]], None] = field(
        default=lambda _: None, repr=False
    )
    """Called with what was read: somebody else may have committed it."""
    size: int = 10_000
    page_size: int = 1_000
    _versions: list[State | Unreadable] = field(factory=list[State | Unreadable], init=False)
    """Every version above revision ``_from`` and up to ``_upto``."""
    _left: dict[int, Left] | None = field(default=None, init=False)
    """Revision -> what the state was before, of these versions; None as long as nobody asked."""
    _from: int = field(default=-1, init=False)
    _upto: int = field(default=-1, init=False)
    _reading: anyio.Lock = field(factory=anyio.Lock, init=False)
    _waiting: int = field(default=0, init=False)

    def covers(self, query: Query, after: int) -> bool:
        """Whether the buffer knows what comes right after that revision, for such a query."""
        return self._from <= after < self._upto and self._knows(query)

    def _knows(self, query: Query) -> bool:
        return not query.leaving or self._left is not None

    @property
    def upto(self) -> int:
        """The newest revision that the buffer knows; -1 if it was never filled."""
        return self._upto

    def page(self, query: Query, after: int) -> Page:
        """The matching versions after a revision that the buffer covers."""
        start = bisect_right(self._versions, after, key=_rev)
        stop = start + self.page_size
        chunk = self._versions[start:stop]
        upto = chunk[-1].rev if stop < len(self._versions) else self._upto
        if not query.leaving or self._left is None:
            return Page.of(filter(query.may_match, chunk), upto)
        left = self._left
        return Page.of([each for each in chunk if query.selects(each, left.get(each.rev))], upto)

    async def advance(self, query: Query, after: int) -> None:
        """Wait until there is something after that revision, and read it into the buffer, with all
        that such a query asks for."""
        if not self._knows(query):
            self._left = {}
            self._begin(after)
        elif not self._from <= after <= self._upto:
            # nobody looked for a while: begin anew here rather than read what nobody wants
            self._begin(after)
        with self._listening():
            await self.driver.wait(after)
        async with self._reading:
            start = self._upto
            if start > after:
                return  # another watcher has read meanwhile, or this engine committed it
            everything = _EVERYTHING if self._left is None else _EVERYTHING_LEFT
            page = await self.driver.read(everything, start, self.page_size)
            self.noticed(page.entries)
            if self._upto != start or everything.leaving is (self._left is None):
                return  # the same, while this one read; or somebody has begun anew
            if page.compacted > start:
                # the buffer would have a gap: begin anew above it. Who was waiting here looks for
                # itself, and learns what it has missed
                self._begin(page.compacted)
            else:
                if self._left is not None:
                    self._left.update(page.left)
                self._extend(page.entries, page.upto)

    def offer(self, plan: Plan, versions: tuple[State, ...]) -> None:
        """What this engine has committed: taken if it follows on, so that nobody has to read it.
        Else somebody else's commits are in between, and whoever waits reads them all; so too if
        it has to be told what a state was before that nobody here has seen."""
        if not versions or versions[0].rev != self._upto + 1:
            return
        if self._left is not None:
            for write, state in zip(plan.writes, versions, strict=True):
                previous = self._find(write.state.rev)
                if previous is None and write.state.rev:
                    return
                if previous is not None and (left := Left.of(previous).before(state)) is not None:
                    self._left[state.rev] = left
        self._extend(versions, versions[-1].rev)

    @contextmanager
    def _listening(self) -> Generator[None]:
        if not self._waiting:
            self.listeners.append(self.offer)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.listeners.remove(self.offer)

    def _find(self, rev: int) -> State | None:
        """The version at a revision, if it is in the buffer."""
        place = bisect_right(self._versions, rev, key=_rev) - 1
        found = self._versions[place] if place >= 0 else None
        return found if isinstance(found, State) and found.rev == rev else None

    def _begin(self, after: int) -> None:
        self._versions, self._from, self._upto = [], after, after
        if self._left:
            self._left = {}

    def _extend(self, versions: Sequence[State | Unreadable], upto: int) -> None:
        self._versions.extend(versions)
        self._upto = upto
        if len(self._versions) > 2 * self.size:  # trim rarely, so that a version is moved once
            self._from = self._versions[-self.size - 1].rev
            del self._versions[: -self.size]
            if self._left:
                first = self._from
                self._left = {rev: left for rev, left in self._left.items() if rev > first}


@define(eq=False)
class Versions:
    """The versions that match a query, up to the head as it was when reading began.

    An async iterator of ``State`` in revision order, or the newest first; no more than ``limit`` of
    them. Reads page by page, so a long history needs no memory. Gives what there is: compacted
    versions are not missed. Raises ``UnreadableVersionError`` in place of a version that cannot be
    read, and goes on after it when it is asked for the next one.
    """

    _driver: Driver
    query: Query
    page_size: int = 1_000
    newest_first: bool = field(default=False, kw_only=True)
    limit: int | None = field(default=None, kw_only=True)
    start: int | None = field(default=None, kw_only=True)
    """The revision beyond which reading begins; None: where the query says, or the head."""
    rev: int = field(default=0, init=False)
    """Everything as far as this revision has been given: reading may go on beyond it."""
    compacted: int = field(default=0, init=False)
    """The highest revision that had been removed when it was last read: up to it some may be
    missing. 0: none is."""
    _ready: deque[State | Unreadable] = field(factory=deque[State | Unreadable], init=False)
    _given: int = field(default=0, init=False)
    _looked_upto: int = field(default=0, init=False)
    _begun: int = field(default=0, init=False)
    """What is up to this revision was not asked for."""
    _end: int = field(default=-1, init=False)

    def __attrs_post_init__(self) -> None:
        self._begun = self.query.after
        self.rev = self._looked_upto = self._begun if self.start is None else self.start

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> State:
        if self._given == self.limit:
            raise StopAsyncIteration
        while not self._ready:
            self.rev = self._looked_upto
            if not await self._more():
                raise StopAsyncIteration
        entry = self._ready.popleft()
        self._given += 1
        # the last one of a page settles also what was looked at and did not match
        self.rev = entry.rev if self._ready else self._looked_upto
        if type(entry) is Unreadable:
            raise entry.error()
        return entry

    async def page(self) -> Page:
        """All of it, as one page."""
        entries: list[State | Unreadable] = []
        while self._given != self.limit and await self._more():
            self._given += len(self._ready)
            entries.extend(self._ready)
            self._ready.clear()
        upto, newest_first = self._looked_upto, self.newest_first
        return Page.of(entries, upto, self.compacted, newest_first=newest_first)

    async def _begin(self) -> None:
        self._end = await self._driver.head()
        if self.query.from_now:
            self.rev = self._looked_upto = self._begun = self._end
        if self.newest_first and self.start is None:
            self.rev = self._looked_upto = self._end + 1

    async def _more(self) -> bool:
        """Get another page. False at the end."""
        await anyio.lowlevel.checkpoint()  # a driver in memory would not let others run
        if self._end < 0:
            await self._begin()
        if self._is_over():
            return False
        await self._read(self.query)
        return True

    def _is_over(self) -> bool:
        if self.newest_first:
            return self._looked_upto <= self._begun + 1
        return self._looked_upto >= self._end

    async def _read(self, query: Query) -> None:
        """Take another page."""
        wanted = self.page_size
        if self.limit is not None:
            wanted = min(wanted, self.limit - self._given)
        page = await self._driver.read(
            query, self._looked_upto, wanted, newest_first=self.newest_first
        )
        if self.newest_first and page.upto <= self._begun:
            entries = [entry for entry in page.entries if entry.rev > self._begun]
            page = Page.of(entries, self._begun + 1, page.compacted)
        self._take(page)

    def _take(self, page: Page) -> None:
        self._ready.extend(page.entries)
        self._looked_upto = page.upto
        self.compacted = max(self.compacted, page.compacted)


@define(eq=False)
class Current(Versions):
    """The current versions that match a query: every state that did when reading began, and
    matches still, in some version, and none twice.

    What moves while it is being listed may be where nobody looks any more: then the log tells of
    it, and it comes last.
    """

    _seen: set[str] = field(factory=set[str], init=False)
    """The ids of those that were given."""
    _asked: Query = field(init=False)
    """What is being read: the query, and then the log of what has moved."""
    _moved_from: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._asked = self.query

    async def _more(self) -> bool:
        await anyio.lowlevel.checkpoint()
        if self._end < 0:
            await self._begin()
        if self._is_over():
            # again if compaction may have removed what moved before it was read
            if not self._asked.latest and self.compacted <= self._moved_from:
                return False
            self._asked = replace(self.query.live(), leaving=False)
            self.newest_first = False
            self._moved_from = self._looked_upto = self._end
            self._end = await self._driver.head()
            return self._end > self._moved_from
        await self._read(self._asked)
        return True

    def _take(self, page: Page) -> None:
        new: dict[str, State | Unreadable] = {}
        for entry in page.entries:
            if entry.id not in self._seen:
                new.setdefault(entry.id, entry)
        self._seen.update(new)
        super()._take(Page.of(new.values(), page.upto, page.compacted))


@define(eq=False)
class Watcher(Versions):
    """The versions that match a query, as they are and as they come; it never ends by itself.

    An async iterator of ``State``, also usable with ``async with``. ``watcher.rev`` is a resume
    token: ``engine.watch(query, after=rev)`` goes on there, losing and repeating nothing. A query
    with ``latest=True`` gives the current versions first, then every change.

    Raises ``CompactedError`` where versions that it has not given yet were compacted, whether they
    matched or not: ``watcher.rev`` stays, so what was given was given. After an
    ``UnreadableVersionError`` it is that version's revision: going on passes it by.
    """

    _tail: Tail = field(kw_only=True, alias="tail")
    _waiting: Callable[[], AbstractContextManager[None]] = field(
        default=nullcontext, kw_only=True, alias="waiting"
    )
    """What is around each wait: in a flow, it ends when the engine is left."""
    _live: Query = field(init=False)
    """The query without ``latest``: what is left of it once the current versions are given."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._live = self.query.live()

    async def __aenter__(self) -> Self:
        if self._end < 0:  # "from now" means from here, not from the first time of looking
            await self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to let go of."""

    async def _more(self) -> bool:
        await anyio.lowlevel.checkpoint()
        if self._end < 0:
            await self._begin()
        after = self._looked_upto
        if self.query.latest and after < self._end:
            page = await self._driver.read(self.query, after, self.page_size)
            # what became current after we began is a change, and the log will give it
            current = [entry for entry in page.entries if entry.rev <= self._end]
            self._take(Page.of(current, min(page.upto, self._end), page.compacted))
        elif self._tail.covers(self._live, after):
            self._take(self._tail.page(self._live, after))
        elif after != self._tail.upto and after < await self._driver.head():
            page = await self._driver.read(self._live, after, self.page_size)
            if page.compacted > after:
                raise CompactedError(after, page.compacted + 1)
            self._take(page)
        else:
            with self._waiting():
                await self._tail.advance(self._live, after)
        return True


def _rev(entry: State | Unreadable) -> int:
    return entry.rev
